"""How the next token is chosen. The work is in native/engine/sampling.cpp: the same token on every machine.

In transformers' order: repetition penalty over prompt and answer, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tercet import _native
from tercet.artifact import CONFIG, ModelFolder
from tercet.errors import EngineError

__all__ = ["Sampling"]


@dataclass(frozen=True)
class Sampling:
    """Settings of one generation; the defaults are greedy.

    Attributes:
        temperature: divides the logits; 0 takes the best token and ignores what follows but the penalty.
        top_k: tokens kept; 0 keeps all.
        top_p: keeps a token while those before it hold less than this probability; (0, 1].
        min_p: keeps tokens with at least this share of the best one's probability; [0, 1].
        repetition_penalty: divides positive and multiplies negative logits of tokens seen before; > 0.
        seed: of the random numbers, 0 .. 2^64-1.
        max_tokens: at most so many new tokens; None runs until the context is full.

    Raises EngineError where a value is outside these ranges.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        self._check("temperature", 0 <= self.temperature <= 1e6, "0 or more")
        self._check("top_k", 0 <= self.top_k < 2**31, "0 (all) or more")
        self._check("top_p", 0 < self.top_p <= 1, "above 0 and at most 1")
        self._check("min_p", 0 <= self.min_p <= 1, "between 0 and 1")
        self._check("repetition_penalty", 0 < self.repetition_penalty <= 1e6, "above 0")
        self._check("seed", 0 <= self.seed < 2**64, "between 0 and 2^64-1")
        self._check("max_tokens", self.max_tokens is None or self.max_tokens >= 0, "0 or more")

    def _check(self, name: str, ok: bool, rule: str) -> None:
        value = getattr(self, name)
        if not ok or (isinstance(value, float) and not math.isfinite(value)):
            raise EngineError(f"sampling: {name} is {value}; it must be {rule}")

    @classmethod
    def of(cls, folder: str | Path, **chosen: Any) -> Sampling:
        """As the makers of a packed model sample from it; greedy where they do not say.

        Args:
            chosen: fields that go before what the folder says; None leaves it to the folder.

        Raises FormatError where config.json is missing or damaged, EngineError as the class.
        """
        said = ModelFolder(folder).json(CONFIG).get("generation")
        known = [field.name for field in fields(cls)]
        made = {name: said[name] for name in known if name in said} if isinstance(said, dict) else {}
        return cls(**made | {name: value for name, value in chosen.items() if value is not None})

    def sampler(self, vocab_size: int, isa: str = "") -> _native.Sampler:
        """A fresh native sampler: its random numbers start from the seed. `isa` changes speed, no token."""
        return _native.Sampler(
            vocab_size,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            isa=isa,
        )
