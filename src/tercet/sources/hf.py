"""The only part of `sources` that imports torch: the float model itself, and text sampled from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.utils import logging

from tercet.errors import FormatError, ModelError

__all__ = ["Decodes", "load", "sample"]

TOP_K = 200


class Decodes(Protocol):
    """Anything that turns ids into text; `tercet.runtime.Tokenizer` does."""

    def decode(self, ids: list[int]) -> str: ...


CLASSES: dict[str, Any] = {
    "text": AutoModelForCausalLM,
    "multimodal": AutoModelForImageTextToText,
    "pair": AutoModel,
}


def load(folder: Path, kind: str = "text") -> PreTrainedModel:
    """The model in `folder`, of one of the kinds in `CLASSES`, float32, eval mode, with transformers' own code only.

    Raises ModelError (no such architecture, or its settings do not work), FormatError (weights are missing or misfit:
    transformers would fill them with random numbers).
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar would run through ours
    try:
        loaded: Any = CLASSES[kind].from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # it raises what its parts raise, huggingface_hub's validation among them
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{folder}: transformers cannot load this model: {reason[0][:300]}") from error
    model: PreTrainedModel = loaded[0]
    for kind in ("missing", "mismatched"):
        if names := sorted(map(str, loaded[1][f"{kind}_keys"])):
            raise FormatError(f"{folder}: {len(names)} tensors {kind}, such as {names[0][:120]}; get the model again")
    model.train(False)
    return model


@torch.no_grad()
def sample(
    model: PreTrainedModel, tokenizer: Decodes, tokens: int, seed: int, *, length: int = 256, batch: int = 64
) -> str:
    """About `tokens` tokens of text written by the model itself, in pieces of `length`, separated by blank lines.

    Each piece begins with a random token, goes on greedily for three and then samples at temperature 1 from the 200
    best tokens: the recipe of LLM-QAT (Liu et al. 2023, arXiv:2305.17888), which found it to keep the diversity of the
    pretraining data. The same seed gives the same text; torch's own generator is left alone.
    """
    pieces: list[str] = []
    generator = torch.Generator().manual_seed(seed)
    end = model.generation_config.eos_token_id if model.generation_config else None
    ends = end if isinstance(end, list) else [end]
    vocabulary = int(model.config.get_text_config().vocab_size)
    while len(pieces) * length < tokens:
        rows = min(batch, -(-tokens // length) - len(pieces))
        ids = torch.randint(vocabulary, (rows, 1), generator=generator)
        cache = None
        for position in range(1, length):
            output = model(ids[:, -1:] if cache is not None else ids, past_key_values=cache, use_cache=True)
            cache, logits = output.past_key_values, output.logits[:, -1].float()
            chosen = logits.argmax(-1, keepdim=True) if position <= 3 else _draw(logits, generator)
            ids = torch.cat([ids, chosen], 1)
        pieces += [tokenizer.decode(_until(row, ends)) for row in ids.tolist()]
    return "\n\n".join(pieces)


def _draw(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    best, order = logits.topk(min(TOP_K, logits.shape[-1]), -1)
    return order.gather(-1, torch.multinomial(best.softmax(-1), 1, generator=generator))


def _until(row: list[int], ends: list[int | None]) -> list[int]:
    """The tokens before the first end token; what a model writes behind it is no text."""
    for position, token in enumerate(row[1:], 1):
        if token in ends:
            return row[:position]
    return row
