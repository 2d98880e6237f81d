"""generation_config.json: the tokens that end a text, and how the model's makers sample from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tercet.errors import FormatError
from tercet.families.settings import Settings

__all__ = ["GENERATION", "generation"]

GENERATION = "generation_config.json"
# What transformers takes where do_sample is set and a value is absent.
SAMPLED = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


def generation(config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What a packed folder keeps under `generation`.

    Args:
        config: config.json; older models keep their end tokens there.
        own: what generation_config.json holds; empty where there is none.

    Returns {"eos_token_id": [...]}, with bos_token_id where there is one, and the fields of `tercet.runtime.Sampling`
    where the model is to be sampled from (do_sample) or has a repetition penalty. Raises FormatError, ModelError.
    """
    made: dict[str, Any] = {"eos_token_id": _tokens({**config, **own}.get("eos_token_id"))}
    begin = _tokens({**config, **own}.get("bos_token_id"))
    if begin:
        made["bos_token_id"] = begin[0]
    settings = Settings({key: value for key, value in own.items() if value is not None}, SAMPLED, GENERATION)
    if settings.flag("do_sample"):
        made["temperature"] = settings.number("temperature", 0, 100)
        made["top_k"] = settings.integer("top_k", 0, 2**31 - 1)
        made["top_p"] = settings.number("top_p", 1e-9, 1)
        made["min_p"] = settings.number("min_p", 0, 1)
    penalty = settings.number("repetition_penalty", 0.01, 100)
    return made if penalty == 1 else {**made, "repetition_penalty": penalty}


def _tokens(value: Any) -> list[int]:
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int for token in tokens):
        raise FormatError(f"{GENERATION}: eos_token_id and bos_token_id must be token ids, or lists of them")
    return tokens
