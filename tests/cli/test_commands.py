"""Each command on a tiny model: its keys, its text, its exit codes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tiny
from command import result_of, tercet
from tercet.cli import app
from tercet.runtime import Engine, Tokenizer


def test_quantize_measures_itself_and_writes_the_table_into_the_card(source: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    options = ("--recipe", "w1.58-rounded", "--eval-text", text, "--eval-tokens", 128, "--threads", 1)
    result = result_of("quantize", source, "-o", out, *options)
    assert [row["name"] for row in result["rows"]] == ["original", "W1.58-rounded"]
    original, packed = result["rows"]
    assert original["scores"]["kl"] == 0
    assert original["scores"]["top1_agreement"] == 1
    assert packed["scores"]["kl"] > 0
    assert packed["runs_on"] == "engine"
    assert packed["file_mb"] == pytest.approx(result["file_mb"], rel=0.2)
    assert all(row["prefill_tokens_per_s"] > 0 and row["decode_tokens_per_s"] > 0 for row in result["rows"])
    card = (out / "README.md").read_text()
    assert "| original |" in card
    assert "non-overlapping windows" in card


def test_eval_agrees_with_the_engine_itself(packed: Path, source: Path, text: Path) -> None:
    options = ("--text", text, "--context", 32, "--tokens", 200)
    result = result_of("eval", packed, *options, "--against", source)
    assert {"perplexity", "kl", "top1_agreement", "tokens", "context"} <= result.keys()
    assert (result["tokens"], result["context"]) == (192, 32)
    assert result["runs_on"] == "engine"
    ids = Tokenizer.open(packed).encode(text.read_text())[:192]
    engine, total = Engine.open(packed), 0.0
    for window in np.array(ids).reshape(-1, 32):
        logits = engine.logits(window)[:-1].astype(np.float64)
        likelihood = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total -= likelihood[np.arange(31), window[1:]].sum()
    assert result["perplexity"] == pytest.approx(np.exp(total / (6 * 31)), rel=1e-9)


def test_eval_of_a_float_model_against_itself(source: Path, text: Path) -> None:
    result = result_of("eval", source, "--text", text, "--context", 16, "--tokens", 64, "--against", source)
    assert result["kl"] == pytest.approx(0, abs=1e-12)
    assert result["top1_agreement"] == 1
    assert result["runs_on"] == "torch"


def test_eval_states_its_protocol(packed: Path, text: Path) -> None:
    result = tercet("eval", packed, "--text", text, "--tokens", 64)
    assert "non-overlapping windows of 64, no BOS, first token unscored" in " ".join(result.stdout.split())


def test_generate_streams_what_it_returns(packed: Path) -> None:
    arguments = ("generate", packed, "the ternary", "--max-tokens", 12)
    result = result_of(*arguments)
    assert len(result["tokens"]) <= 12
    assert result["text"] == Tokenizer.open(packed).decode(result["tokens"])
    assert tercet(*arguments).stdout == result["text"] + "\n"


def test_generate_reads_standard_input_and_stops_before_a_stop_text(packed: Path) -> None:
    whole = result_of("generate", packed, "-", "--max-tokens", 12, stdin="the ternary")["text"]
    middle = whole[len(whole) // 2 :][:2]
    cut = result_of("generate", packed, "the ternary", "--max-tokens", 12, "--stop", middle)["text"]
    assert cut == whole[: whole.index(middle)]


def test_input_that_is_not_utf8_is_read_as_far_as_it_goes(packed: Path) -> None:
    result = CliRunner().invoke(app, ["generate", str(packed), "-", "--max-tokens", "2"], input=b"the \xff\xfe ternary")
    assert result.exit_code == 0, result.stderr


def test_sampling_repeats_with_its_seed(packed: Path) -> None:
    arguments = ("generate", packed, "a", "--temperature", 2, "--max-tokens", 16, "--seed")
    first, again, other = (result_of(*arguments, seed)["tokens"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_chat_answers_every_line(packed: Path) -> None:
    result = tercet("chat", packed, "--max-tokens", 4, "--json", stdin="hello\n\nmore\n")
    assert result.exit_code == 0, result.stderr
    replies = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(replies) == 2
    assert replies[1]["prompt_tokens"] > replies[0]["prompt_tokens"]


def test_chat_hands_arguments_to_the_template_and_samples_as_the_model_s_makers(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(packed, folder)
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ messages[-1].content }}{% if think %} and think {{ how }}{% endif %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    config["generation"] |= {"temperature": 2.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
    (folder / "config.json").write_text(json.dumps(config))

    def said(*options: Any) -> dict[str, Any]:
        result = tercet("chat", folder, "--max-tokens", 16, "--json", *options, stdin="hello\n")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    plain, thinking = said(), said("--template-arg", "think=true", "--template-arg", "how=much")
    assert thinking["prompt_tokens"] > said("--template-arg", "think=true")["prompt_tokens"] > plain["prompt_tokens"]
    assert said("--template-arg", "think=false")["prompt_tokens"] == plain["prompt_tokens"]
    assert said()["tokens"] == plain["tokens"] != said("--seed", 1)["tokens"]
    assert said("--temperature", 0)["tokens"] == said("--temperature", 0, "--seed", 1)["tokens"]
    for wrong in ("think", "=1", "messages=1"):
        result = tercet("chat", folder, "--template-arg", wrong, stdin="hello\n")
        assert result.exit_code != 0
        assert wrong.partition("=")[0] in result.stderr


def test_bench(packed: Path) -> None:
    result = result_of("bench", packed, "--prefill", 16, "--decode", 4, "--rounds", 2, "--threads", 1)
    assert {"prefill_tokens_per_s", "decode_tokens_per_s", "resident_mb", "load_s", "threads"} <= result.keys()
    assert result["threads"] == 1
    assert result["decode_tokens_per_s"] > 0


def test_more_tokens_than_the_context_are_refused_before_memory_is_taken(packed: Path) -> None:
    refused = tercet("bench", packed, "--prefill", 10**9)
    assert refused.exit_code == 1
    assert "do not fit the model's context" in refused.stderr


def test_inspect_counts_every_bit(packed: Path) -> None:
    result = result_of("inspect", packed)
    linears = [tensor for tensor in result["tensors"] if tensor["format"] == "t2"]
    weights = sum(np.prod(tensor["shape"]) for tensor in linears)
    assert result["bits_per_ternary_weight"] == pytest.approx(8 * sum(tensor["bytes"] for tensor in linears) / weights)
    assert result["bits_per_ternary_weight"] == 2.25
    total = sum(np.prod(tensor["shape"]) for tensor in result["tensors"])
    assert result["ternary_share"] == pytest.approx(weights / total)
    assert 0.2 < result["zero_share"] < 0.8
    assert result["file_mb"] == sum(file.stat().st_size for file in packed.iterdir()) / 1e6
    assert all(0.1 < tensor["error"] < 1 for tensor in linears)
    assert result_of("inspect", packed / "model.safetensors") == result


def test_inspect_a_float_file(source: Path) -> None:
    result = result_of("inspect", source / "model.safetensors")
    assert result["bits_per_weight"] == 32
    assert result["ternary_share"] == 0
    assert result["bits_per_ternary_weight"] is None


def test_verify(packed: Path) -> None:
    result = result_of("verify", packed)
    assert result["ok"] is True
    assert result["kl"] < 1e-6
    assert result["max_abs_error"] < 1e-3
    assert result["mismatches"] == 0
    assert result["matrices"] == 15


def test_verify_refuses_a_flipped_bit(packed: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in packed.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    data = bytearray((damaged / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (damaged / "model.safetensors").write_bytes(data)
    result = tercet("verify", damaged)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_info() -> None:
    result = result_of("info")
    assert result["isa"] in result["isas"]
    assert "scalar" in result["isas"]
    assert result["threads"] >= 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "nowhere", "x"),
        ("eval", "nowhere", "--text", __file__),
        ("inspect", "nowhere.gguf"),
        ("verify", "nowhere"),
        ("bench", "nowhere"),
        ("quantize", "nowhere", "-o", "out"),
        ("quantize", "smollm2", "-o", "out", "--recipe", "no such recipe"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_1(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = tercet(
        *(tmp_path / a if a == "out" else a for a in arguments), *(["--json"] if arguments[0] != "x" else [])
    )
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len([line for line in lines if line.startswith("tercet: ")]) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("generate",), ("bench", "x", "--rounds", "0"), ("eval", "--nope")]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = tercet(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "--max-tokens", "2"), "the prompt is empty"),
        (("x", "--top-p", "0"), "top_p is 0.0; it must be above 0"),
        (("x", "--seed", str(2**64)), "seed is"),
    ],
)
def test_a_value_out_of_range_is_wrong_usage_too(packed: Path, arguments: tuple[str, ...], message: str) -> None:
    result = tercet("generate", packed, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_speculation_changes_no_text(packed: Path) -> None:
    arguments = ("generate", packed, "the ternary the ternary the ternary", "--max-tokens", 40)
    assert result_of(*arguments) == result_of(*arguments, "--no-speculate")


def test_a_folder_that_is_not_ours_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    result = tercet("quantize", source, "-o", tmp_path, "--recipe", "w1.58-rounded", "--eval-tokens", 0)
    assert result.exit_code == 1
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_texts_that_cannot_be_read_are_named_before_the_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tercet.pipeline.run.begin", None)
    for fields in ({"distil": {"text": "no.txt"}, "train": {"steps": 1}}, {"evaluate": {"text": "no.txt"}}):
        recipe = tmp_path / "recipe.json"
        recipe.write_text(json.dumps({"rules": [{"quantizer": "l2"}], "calibrate": None, **fields}))
        result = tercet("quantize", source, "-o", tmp_path / "out", "--recipe", recipe)
        assert result.exit_code == 1
        assert "no.txt: cannot be read" in result.stderr


def test_models_with_different_tokenizers_are_not_compared(packed: Path, text: Path, tmp_path: Path) -> None:
    other = tiny.save_folder(tmp_path / "other", vocab_size=280)
    result = tercet("eval", packed, "--text", text, "--tokens", 64, "--against", other)
    assert result.exit_code == 1
    assert "tokens" in result.stderr


def test_a_language_model_reads_no_pictures_and_takes_no_recipe_for_towers(source: Path, tmp_path: Path) -> None:
    for options, reason in (
        (("--recipe", "clip-q-all"), "language model"),
        (("--pictures", "scenes"), "does not read pictures"),
    ):
        result = tercet("quantize", source, "-o", tmp_path / "out", *options)
        assert result.exit_code == 1
        assert reason in result.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("torch", ("quantize", "SOURCE", "-o", "OUT")),
        ("transformers", ("quantize", "SOURCE", "-o", "OUT")),
        ("torch", ("tune", "SOURCE", "PACKED", "-o", "OUT", "--text", "TEXT")),
        ("torch", ("compare", "SOURCE", "w1.58-rounded", "-o", "OUT")),
        ("torch", ("demo", "--out", "OUT")),
        ("torch", ("demo", "clip", "--out", "OUT")),
        ("tercet.evaluate.originals", ("eval", "SOURCE", "--text", "TEXT")),
        ("tercet.evaluate.originals", ("eval", "PACKED", "--text", "TEXT", "--against", "SOURCE")),
        ("tercet.evaluate.originals", ("embed", "SOURCE", "TEXT", "-o", "OUT.npy")),
    ],
)
def test_without_torch_one_line_names_what_to_install(
    missing: str,
    arguments: tuple[str, ...],
    packed: Path,
    source: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if missing.startswith("tercet"):  # the module that would import torch is imported anew
        for name in (missing, "tercet.evaluate.float_clip"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        missing = "torch"
    monkeypatch.setitem(sys.modules, missing, None)
    places = {"SOURCE": source, "PACKED": packed, "TEXT": text, "OUT": tmp_path / "out", "OUT.npy": tmp_path / "o.npy"}
    result = tercet(*(places.get(word, word) for word in arguments))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"tercet: this needs the package {missing}")
    assert line.endswith("pip install 'tercet[train]'")
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    for name, shown in {"x[/]": "x[/]", "[bold]b[/bold]": "[bold]b[/bold]", "\x1b]0;t\x07": "?]0;t?"}.items():
        head = json.dumps({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
        (tmp_path / "a.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(16))
        result = tercet("inspect", tmp_path / "a.safetensors")
        assert result.exit_code == 0, result.stderr
        assert shown in result.stdout
        assert "\x1b" not in result.stdout
    refused = tercet("inspect", tmp_path / "\x1b[31mred")
    assert "\x1b" not in refused.stderr
