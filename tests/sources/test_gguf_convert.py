"""A model written as llama.cpp's converter would, and converted back: the same tensors, config and logits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType

import gguf_files
import tiny
from tercet.errors import FormatError, ModelError
from tercet.program import interpreter
from tercet.sources import resolve
from tercet.sources.gguf.config import config
from tercet.sources.gguf.reader import GGUFFile

Extra = Callable[[GGUFWriter], None]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))


def tokenizer(writer: GGUFWriter) -> None:
    gguf_files.add_tokenizer(writer, tiny.tokenizer(), tiny.SHAPE["vocab_size"], "gpt-2", tiny.SPECIAL)
    writer.add_eos_token_id(2)
    writer.add_chat_template(tiny.CHAT_TEMPLATE)


def theta(value: float) -> Extra:
    return lambda writer: writer.add_rope_freq_base(value)


def linear(writer: GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def llama3(writer: GGUFWriter) -> None:
    writer.add_rope_freq_base(500000.0)
    wavelength = 2 * np.pi * 500000.0 ** (np.arange(0, 16, 2) / 16)
    smooth = np.clip((8192 / wavelength - 1) / 3, 0, 1)
    writer.add_tensor("rope_freqs.weight", (1 / ((1 - smooth) / 8 + smooth)).astype(np.float32))


def gemma(writer: GGUFWriter) -> None:
    writer.add_sliding_window(tiny.WINDOW)
    writer.add_uint32("gemma3.attention.sliding_window_pattern", 2)
    writer.add_rope_freq_base(1000000.0)


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
CASES: dict[str, tuple[str, str, dict[str, Any], Extra]] = {
    "llama": ("llama", "llama", {}, theta(10000.0)),
    "llama-head": ("llama", "llama", {"head_dim": 32, "tie_word_embeddings": False, **THETA}, theta(5000.0)),
    "llama-bias": ("llama", "llama", {"attention_bias": True, "mlp_bias": True}, theta(10000.0)),
    "llama-linear": (
        "llama",
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
        linear,
    ),
    "llama3": ("llama", "llama", {"rope_parameters": LLAMA3}, llama3),
    "qwen2": ("qwen2", "qwen2", {"use_sliding_window": False}, theta(10000.0)),
    "qwen3": ("qwen3", "qwen3", {}, theta(10000.0)),
    "gemma3": ("gemma3_text", "gemma3", {"query_pre_attn_scalar": 32}, gemma),
    "phi2": ("phi", "phi2", {}, lambda writer: writer.add_rope_dimension_count(16)),
}


@pytest.mark.parametrize("case", CASES)
def test_parity_with_the_original(tmp_path: Path, case: str) -> None:
    family, architecture, overrides, extra = CASES[case]
    original, settings, tensors = tiny.model(family, **overrides)
    path = gguf_files.write(tmp_path / "m.gguf", architecture, settings, tensors, tokenizer, extra)
    source = resolve(str(path))
    converted = source.tensors()
    assert set(converted) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_allclose(converted[name], values, rtol=0, atol=3e-7 if architecture == "gemma3" else 0)
    ids = tiny.ids()
    expected, found = tiny.reference(original, ids), tiny.reference(source.pretrained(), ids)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert source.generation()["eos_token_id"] == [2]
    assert b"im_start" in source.tokenizer_files()["tokenizer_config.json"]


def test_a_bit_that_flips_in_the_cache_is_found(tmp_path: Path) -> None:
    _, settings, tensors = tiny.model("llama")
    path = gguf_files.write(tmp_path / "m.gguf", "llama", settings, tensors, tokenizer)
    folder = resolve(str(path)).folder
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 2
        (folder / name).write_bytes(raw)
        with pytest.raises(FormatError, match=re.escape(name)):
            list(resolve(str(path)).tensors().values())
        with pytest.raises(FormatError, match=re.escape(name)):
            resolve(str(path)).pretrained()
        raw[len(raw) // 2] ^= 2
        (folder / name).write_bytes(raw)
    assert list(resolve(str(path)).tensors().values())


def granite(writer: GGUFWriter) -> None:
    writer.add_embedding_scale(3.0)
    writer.add_attention_scale(0.2)
    writer.add_residual_scale(0.4)
    writer.add_logit_scale(0.5)


def cohere2(writer: GGUFWriter) -> None:
    writer.add_logit_scale(0.5)
    writer.add_sliding_window(tiny.WINDOW)


def rotary(count: int) -> Extra:
    return lambda writer: writer.add_rope_dimension_count(count)


OTHERS: dict[str, tuple[dict[str, Any], Extra]] = {
    "cohere2": (
        {
            "sliding_window_pattern": 4,
            "num_hidden_layers": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        cohere2,
    ),
    "ernie4_5": ({}, theta(500000.0)),
    "exaone4": ({"sliding_window": None, "layer_types": ["full_attention"] * 2}, lambda _: None),
    "gemma": ({}, lambda _: None),
    "glm4": ({"attention_bias": True}, rotary(16)),
    "granite": ({}, granite),
    "olmo2": ({}, lambda _: None),
    "phi3": ({}, rotary(12)),
    "smollm3": ({"num_hidden_layers": 4, "no_rope_layers": None}, theta(2000000.0)),
    "stablelm": ({}, rotary(8)),
    "starcoder2": ({"sliding_window": None}, lambda _: None),
}


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_architectures(tmp_path: Path, architecture: str) -> None:
    """Written with llama.cpp's table of names; keys that nobody reads are refused."""
    overrides, extra = OTHERS[architecture]
    original, settings, _ = tiny.model(architecture, **overrides)
    tied = settings["tie_word_embeddings"]
    stored = {n: v.numpy() for n, v in original.state_dict().items() if not (tied and n == "lm_head.weight")}
    path = gguf_files.write(tmp_path / "m.gguf", architecture, settings, stored, tokenizer, extra)
    source = resolve(str(path))
    source.check()
    ids = tiny.ids()
    expected = tiny.reference(original, ids)
    found = interpreter.logits(source.model.text, source.tensors(), ids)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    again = tiny.reference(source.pretrained(), ids)
    assert np.abs(again - expected).max() <= 1e-4 * np.abs(expected).max()

    def one_more(writer: GGUFWriter) -> None:
        extra(writer)
        writer.add_float32(f"{architecture}.attention.clamp_kqv", 8.0)

    path = gguf_files.write(tmp_path / "other.gguf", architecture, settings, stored, tokenizer, one_more)
    with pytest.raises(ModelError, match=r"attention\.clamp_kqv may change what the model computes"):
        resolve(str(path))


def test_the_parity_test_sees_the_row_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_files, "rotate_rows", lambda values, _: values)
    with pytest.raises(AssertionError):
        test_parity_with_the_original(tmp_path, "llama")


def test_quantized_matrices_are_those_of_the_file(tmp_path: Path) -> None:
    from gguf import quants

    _, settings, tensors = tiny.model("llama")
    kind = GGMLQuantizationType.Q8_0
    path = gguf_files.write(tmp_path / "m.gguf", "llama", settings, tensors, tokenizer, quantized=kind)
    name = "model.layers.1.mlp.down_proj.weight"
    expected = quants.dequantize(quants.quantize(tensors[name], kind), kind)
    np.testing.assert_array_equal(resolve(str(path)).tensors()[name], expected)


def test_conversion_happens_once_and_leaves_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, settings, tensors = tiny.model("llama")
    path = gguf_files.write(tmp_path / "m.gguf", "llama", settings, tensors, tokenizer)
    first = resolve(str(path))
    monkeypatch.setattr("tercet.sources.gguf.convert.write", lambda *_: pytest.fail("converted again"))
    assert resolve(str(path)) == first
    (tmp_path / "copy.gguf").write_bytes(path.read_bytes())
    assert resolve(str(tmp_path / "copy.gguf")).folder == first.folder
    assert [p.name for p in first.folder.parent.iterdir()] == [first.folder.name]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    _, settings, tensors = tiny.model("llama")
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = np.inf
    path = gguf_files.write(tmp_path / "m.gguf", "llama", settings, tensors, tokenizer)
    with pytest.raises(FormatError, match="not finite"):
        resolve(str(path))
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def raw_config(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    path = tmp_path / "raw.gguf"
    pairs = {**gguf_files.SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    path.write_bytes(gguf_files.small({k: v for k, v in pairs.items() if v is not None}).data)
    with GGUFFile(path) as gguf:
        return config(gguf)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"general__architecture": "mamba"}, ModelError, "'mamba' is not supported; known: llama, qwen2"),
        ({"llama__block_count": 1 << 29}, FormatError, "block_count"),
        ({"llama__block_count": 4096}, FormatError, "but the file has 11 tensors"),
        ({"llama__attention__head_count": 0}, FormatError, "expected an integer from 1"),
        ({"llama__attention__head_count_kv": [1]}, ModelError, "differs by layer"),
        ({"llama__attention__head_count": 3}, FormatError, "not a multiple of 3 heads"),
        ({"llama__embedding_length": None}, FormatError, "is missing"),
        ({"llama__vocab_size": 9}, FormatError, "has 8 tokens"),
        ({"llama__attention__layer_norm_rms_epsilon": float("nan")}, FormatError, "positive number"),
        ({"llama__rope__scaling__type": "longrope"}, FormatError, "none, linear and yarn"),
        ({"llama__rope__dimension_count": 8}, FormatError, "only phi2 may rotate a part"),
    ],
)
def test_metadata_that_makes_no_model(tmp_path: Path, changes: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        raw_config(tmp_path, **changes)


def test_gemma_without_a_pattern_has_one_full_layer_in_six(tmp_path: Path) -> None:
    pairs = {key.replace("llama.", "gemma3."): value for key, value in gguf_files.SMALL.items()}
    pairs |= {"general.architecture": "gemma3", "gemma3.attention.sliding_window": 512, "gemma3.block_count": 7}
    path = tmp_path / "gemma.gguf"
    path.write_bytes(gguf_files.small(pairs).data)
    with GGUFFile(path) as gguf:
        made = config(gguf)
    assert made["layer_types"] == ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]
    assert made["rope_parameters"]["sliding_attention"]["rope_theta"] == 10000.0


@pytest.mark.parametrize(
    ("name", "entry", "match"),
    [
        ("token_embd.weight", ([32, 9], 8), "has shape"),  # vocabulary against embedding rows
        ("blk.0.ffn_gate_inp.weight", ([32, 4], 0), "no llama model has"),
        ("blk.0.attn_q.bias", ([64], 0), "has shape"),
        ("rope_freqs.weight", ([32], 0), "does not fit its heads"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, name: str, entry: tuple[list[int], int], match: str) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(gguf_files.small(tensors={**gguf_files.SMALL_TENSORS, name: entry}).data)
    with pytest.raises((FormatError, ModelError), match=match):
        resolve(str(path))
