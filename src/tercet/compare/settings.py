"""What all rows of a comparison have in common but for the model they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tercet.data.pairs import Captioned
from tercet.pipeline.lessons import Data

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Attributes:
    data: what models read in place of what recipes say, and what the table is measured on.
    validation_text: what a language model's learning rates are chosen by: a file, "default" or "generated"; the
        validation split of the default text if None.
    validation_pictures: what an image-text model's are chosen by, by name (the validation split where there is one)
        or opened.
    eval_tokens: of both texts; what the first recipe says if None.
    threads: of torch and of the engine.
    command: what was called, for the record.
    """

    data: Data = field(default_factory=Data)
    validation_text: str | Path | None = None
    validation_pictures: Sequence[str | Captioned] = ()
    eval_tokens: int | None = None
    threads: int | None = None
    command: str = ""
