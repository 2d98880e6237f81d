"""Folders of pictures-and-texts models: transformers' and open_clip's give the same names, shapes and embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import open_clip_model
import tiny_towers as tiny
from tercet import families
from tercet.errors import FormatError, ModelError
from tercet.program import interpreter
from tercet.program.patches import patches
from tercet.sources import Source, resolve

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "quick-gelu": {"quick_gelu": True},
    "end-of-text": {"text": {"pool_type": "eos", "eos_id": tiny.END}},
    "sizes": {"vision": {"image_size": [24, 24], "mlp_ratio": 1.5}, "text": {"mlp_ratio": 2.0}},
    "siglip-like": {
        "vision": {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 0.02}},
        "text": {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 0.05}},
        "init_logit_bias": -10,
    },
    "first": {"text": {"no_causal_mask": True, "pool_type": "first"}},
}


def ours(source: Source) -> list[Any]:
    """Embeddings of pictures and texts, as `tiny` has them, by the interpreter."""
    towers, tensors = source.model, source.tensors()
    assert {name: tensors[name].shape for name in tensors} == {n: w.shape for n, w in towers.weights.items()}
    pictures = patches(tiny.pixels(size=towers.pixels.size), towers.pixels.patch)
    return [
        interpreter.embeddings(towers.image, tensors, pictures),
        interpreter.embeddings(towers.text, tensors, tiny.texts()),
    ]


def same(found: list[Any], wanted: list[Any]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_transformers_folder(family: str, tmp_path: Path) -> None:
    source = resolve(str(tiny.save_folder(tmp_path / "model", family)))
    made, _, tensors = tiny.model(family)
    same(ours(source), list(tiny.reference(made, tiny.pixels(), tiny.texts())[:2]))
    found = source.tensors()
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)
    files = source.tokenizer_files()
    assert list(files) == ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]
    assert json.loads(files["preprocessor_config.json"]) == {"size": {"shortest_edge": 28}}
    assert source.generation() == {"eos_token_id": []}


def test_preprocessing_in_the_newer_file(tmp_path: Path) -> None:
    folder = tiny.save_folder(tmp_path / "model", "clip")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FormatError, match=r"no preprocessor_config\.json; copy the original model's"):
        resolve(str(folder)).tokenizer_files()
    (folder / "processor_config.json").write_text('{"image_processor": {"do_resize": true, "auto_map": {"a": "b"}}}')
    assert json.loads(resolve(str(folder)).tokenizer_files()["preprocessor_config.json"]) == {"do_resize": True}
    (folder / "processor_config.json").write_text('{"image_processor": 3}')
    with pytest.raises(FormatError, match="image_processor is no object"):
        resolve(str(folder)).tokenizer_files()


@pytest.mark.parametrize("prefix", ["", "text."])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_open_clip_folder(variant: str, prefix: str, tmp_path: Path) -> None:
    given = VARIANTS[variant]
    square = {**given, "vision": {**given.get("vision", {})}}
    if isinstance(size := square["vision"].get("image_size"), list):
        square["vision"]["image_size"] = size[0]
    made, config = open_clip_model.model(**square)
    config["vision_cfg"] |= given.get("vision", {})
    source = resolve(str(open_clip_model.save_folder(tmp_path / "model", made, config, prefix=prefix)))
    towers = source.model
    same(ours(source), open_clip_model.embeddings(made, tiny.pixels(size=towers.pixels.size), tiny.texts()))
    assert source.tensors()[towers.scale].item() == 3.5
    assert towers.bias == ("logit_bias" if "init_logit_bias" in given else "")
    assert not towers.bias or source.tensors()[towers.bias].item() == -7.25


def test_a_config_of_open_clips_own_source(tmp_path: Path) -> None:
    """Those have no model_cfg, and leave out what is the default."""
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    sparse = {"embed_dim": 512, "vision_cfg": {"patch_size": 32}, "text_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(sparse))
    mine, published = families.model(resolve(str(folder)).config), families.model({"model_type": "clip"})
    assert mine.weights == published.weights
    assert {op.function for op in mine.image.ops if op.kind == "activation"} == {"gelu"}


def test_how_open_clip_prepares_pictures_and_texts(tmp_path: Path) -> None:
    """In its own words, with what it leaves out; the size is always the tower's."""
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    made = json.loads(resolve(str(folder)).tokenizer_files()["preprocessor_config.json"])
    own = {"size": 28, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "fill_color": 0}
    assert made == {**own, "interpolation": "bicubic", "resize_mode": "shortest"}
    settings = json.loads(resolve(str(folder)).tokenizer_files()["tokenizer_config.json"])
    assert settings["open_clip"] == {"clean": "lower", "pad_token_id": 0}
    edit(folder, preprocess_cfg={"resize_mode": "squash", "interpolation": "bilinear", "size": 224})
    assert resolve(str(folder)).preprocessor() == {**own, "interpolation": "bilinear", "resize_mode": "squash"}
    edit(folder, preprocess_cfg={"resize_mode": "stretch"})
    with pytest.raises(ModelError, match="resize_mode is 'stretch'; it must be one of shortest, longest, squash"):
        resolve(str(folder)).tokenizer_files()


def test_transformers_config_goes_first(tmp_path: Path) -> None:
    """Many folders of the hub hold both layouts."""
    folder = tiny.save_folder(tmp_path / "model", "clip")
    other = open_clip_model.save_folder(tmp_path / "other", *open_clip_model.model())
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (other / name).rename(folder / name)
    assert resolve(str(folder)).config["text_config"]["eos_token_id"] == tiny.END


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("vision", "text", "message"),
    [
        ({"timm_model_name": "vit_base_patch16_siglip_224"}, {}, "image towers of timm are not supported"),
        ({"layers": [3, 4, 6, 3]}, {}, "the image tower is a ResNet"),
        ({}, {"hf_model_name": "roberta-base"}, "a Hugging Face model reads the texts"),
        ({"attentional_pool": True}, {}, "attentional_pool is True; it must be absent"),
        ({"ls_init_value": 1e-5}, {}, "ls_init_value is 1e-05; it must be absent"),
        ({"pool_type": "avg"}, {}, "pool_type is 'avg'; it must be one of tok"),
        ({"head_width": 48}, {}, r"head_width is 48; it must be a divisor of width \(64\)"),
        ({}, {"proj_type": "mlp"}, "proj_type is 'mlp'; it must be one of linear"),
        ({}, {"pool_type": "eos", "eos_id": 2}, "eos_id is 2; it must be another id"),
        ({}, {"text_arch": "modern"}, "text_arch is 'modern'; it must be one of clip"),
        ({"mlp_ratio": 1e300}, {}, "mlp_ratio is 1e[+]300; it must be a number from 0.001 to 64"),
        ({"width": True}, {}, "width is True"),
    ],
)
def test_what_is_not_built_is_refused(vision: Any, text: Any, message: str, tmp_path: Path) -> None:
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    edit(
        folder, model_cfg={"vision_cfg": {**config["vision_cfg"], **vision}, "text_cfg": {**config["text_cfg"], **text}}
    )
    with pytest.raises(ModelError, match=message) as caught:
        resolve(str(folder))
    assert "\n" not in str(caught.value)


def test_a_third_tower_is_refused(tmp_path: Path) -> None:
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    edit(folder, model_cfg={"multimodal_cfg": {"width": 3}})
    with pytest.raises(ModelError, match="more than two towers"):
        resolve(str(folder))


def test_tensors_that_compute_something_else_are_refused(tmp_path: Path) -> None:
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    others = (
        "visual.transformer.resblocks.0.ls_1.gamma",
        "visual.attn_pool.query",
        "transformer.resblocks.00.ln_1.bias",
    )
    for name in others:
        save_file({**state, name: torch.ones(3)}, path)
        with pytest.raises(FormatError, match=f"tensor {name!r} is none of a CLIP"):
            resolve(str(folder))
    save_file({**state, "text.logit_scale": torch.ones(3)}, path)
    with pytest.raises(FormatError, match="logit_scale' is stored twice"):
        resolve(str(folder))
    save_file({**state, "attn_mask": torch.ones(3)}, path)
    resolve(str(folder))
    save_file({**state, "visual.proj": torch.ones(64, 41)}, path)
    with pytest.raises(FormatError, match=r"visual_projection\.weight is \[41, 64\]; the config says \[40, 64\]"):
        resolve(str(folder)).tensors()


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    for stored in ("visual.ln_pre.bias", "transformer.resblocks.0.attn.in_proj_weight"):
        save_file({name: value for name, value in state.items() if name != stored}, path)
        with pytest.raises(FormatError, match=r"the model has no tensor .*; it is incomplete"):
            resolve(str(folder)).tensors()


def test_pickles_are_refused_there_too(tmp_path: Path) -> None:
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(FormatError, match=r"open_clip_pytorch_model\.bin: pickled weights are refused"):
        resolve(str(folder))
