"""Checkpoints as others save them: what transformers loads is loaded, what does not fit is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

import tiny
from tercet import families
from tercet.errors import FormatError
from tercet.program import interpreter
from tercet.sources import resolve

State = dict[str, torch.Tensor]
EMBEDDING, HEAD, DOWN = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.down_proj.weight"


def edited(folder: Path, edit: Callable[[State], State]) -> Path:
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in edit(load_file(path)).items()}, path, {"format": "pt"})
    return folder


TIED: dict[str, Callable[[State], State]] = {
    "head stored as well": lambda state: {**state, HEAD: state[EMBEDDING].clone()},
    "head alone": lambda state: {HEAD if name == EMBEDDING else name: value for name, value in state.items()},
    "without its prefix": lambda state: {name.removeprefix("model."): value for name, value in state.items()},
    "from torch.compile": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "from both": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    "with old buffers": lambda state: {**state, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)},
}


@pytest.mark.parametrize("case", TIED)
def test_what_transformers_loads_is_loaded(case: str, tmp_path: Path) -> None:
    made, _, _ = tiny.model("llama")
    source = resolve(str(edited(tiny.save_folder(tmp_path / "model"), TIED[case])))
    source.check()
    found = interpreter.logits(source.model.text, source.tensors(), tiny.ids())
    wanted = tiny.reference(made, tiny.ids())
    assert np.abs(found - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_a_head_that_is_called_tied_and_is_not(tmp_path: Path) -> None:
    """transformers goes by the weights, and so does what is packed."""
    folder = edited(tiny.save_folder(tmp_path / "model"), lambda state: {**state, HEAD: state[EMBEDDING].flip(0)})
    source = resolve(str(folder))
    assert source.config["tie_word_embeddings"] is False
    assert HEAD in families.model(source.config).weights
    found = interpreter.logits(source.model.text, source.tensors(), tiny.ids())
    wanted = tiny.reference(source.pretrained(), tiny.ids())
    assert np.abs(found - wanted).max() < 2e-5 * np.abs(wanted).max()


MISFITS: dict[str, tuple[Callable[[State], State], str]] = {
    "on its side": (
        lambda state: {**state, DOWN: state[DOWN].T},
        r"model\.layers\.0\.mlp\.down_proj\.weight is \[128, 64\]; the config says \[64, 128\]",
    ),
    "more rows": (
        lambda state: {**state, EMBEDDING: torch.cat([state[EMBEDDING], torch.zeros(18, 64)])},
        r"embed_tokens\.weight is \[318, 64\]; the config says \[300, 64\]",
    ),
    "no head": (lambda state: {n: v for n, v in state.items() if n != HEAD}, r"no tensor lm_head\.weight"),
    "a bias": (
        lambda state: {**state, "model.layers.0.self_attn.q_proj.bias": torch.ones(64)},
        r"1 tensors that no llama model reads, such as 'model\.layers\.0\.self_attn\.q_proj\.bias'",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    edit, message = MISFITS[case]
    source = resolve(str(edited(tiny.save_folder(tmp_path / "model", tie_word_embeddings=False), edit)))
    with pytest.raises(FormatError, match=message) as caught:
        source.check()
    assert "\n" not in str(caught.value)


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    folder = tiny.save_folder(tmp_path / "model")
    resolve(str(folder)).check()
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    count = 300 - tokenizer.get_vocab_size() + 1
    tokenizer.add_tokens([AddedToken(f"<tool_{index}>", normalized=False) for index in range(count)])
    tokenizer.save(str(path))
    with pytest.raises(FormatError, match=r"ids up to 300, but the model has 300 rows; resize the model's embedding"):
        resolve(str(folder)).check()


def test_a_view_where_a_view_suffices(tmp_path: Path) -> None:
    source = resolve(str(tiny.save_folder(tmp_path / "model", "phi3")))
    tensors = source.tensors()
    for part in ("self_attn.v_proj", "mlp.up_proj"):
        assert not tensors[f"model.layers.1.{part}.weight"].flags.owndata
