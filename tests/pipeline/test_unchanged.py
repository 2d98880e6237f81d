"""Packed folders are those of earlier versions: calibrated alone, and trained for a few steps after that.

    PYTHONPATH=tests python tests/pipeline/test_unchanged.py

makes the golden files again; do that only where results are meant to change, and say why in the commit.

What is compared, on one thread with float32 products:

    calibrated   codes, int8 tensors, scales and vectors: equal; where torch has other instructions than the files were
                 made with, scales and vectors as in
    trained      codes and int8 tensors: equal; scales: within 1 ulp of float16; vectors: within 1e-5, without the keys'
                 biases, whose gradient is zero but for rounding, so that AdamW walks them at random

Sums in another order (another instruction set or number of threads, the same operations done otherwise) move gradients
by 1e-6. Activations are rounded to int8 on the way, so a single one near a tie could move a hundred codes: the seeds
are such that none is. With them the comparison holds where each linear's output and each gradient is off by 1e-6, on
two threads, and with torch's, MKL's, oneDNN's and our own code for older processors.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import tiny
import tiny_clip
from tercet.artifact import Artifact
from tercet.packing import PackedTensor, unpack
from tercet.pipeline import Data, quantize
from tercet.recipe import Recipe
from tercet.tensor import IntTensor, TernaryTensor

GOLDEN = Path(__file__).parents[1] / "golden" / "folders"
MADE_WITH = "AVX2"  # as `torch.backends.cpu.get_cpu_capability` calls it
STAGES = ("calibrated", "trained")
TRAIN = {"steps": 4, "batch": 2, "precision": "float32", "scale_lr": 2e-3, "norm_lr": 1e-3}
DECODER: dict[str, Any] = {"group_size": 32, "calibrate": {"tokens": 512, "context": 32}, "distil": {"kl": 1}}
CASES: dict[str, dict[str, Any]] = {
    "decoder": {**DECODER, "train": {**TRAIN, "context": 6, "lr": 0.015, "seed": 8}},
    "rotated": {**DECODER, "train": {**TRAIN, "context": 6, "lr": 0.015, "seed": 11}, "rotate": True},
    "clip": {
        "group_size": "row",
        "calibrate": {"tokens": 512},
        "distil": {"kind": "clip", "task": 0},
        "train": {**TRAIN, "lr": 0.03, "seed": 5},
    },
}
TOWER = {"hidden_size": 32, "intermediate_size": 64}

Tensors = dict[str, dict[str, NDArray[Any]]]  # by kind, then by name
Golden = dict[str, NDArray[Any]]  # by kind: all tensors of it in one row, in the order of their names


def folder_of(case: str, fields: dict[str, Any], place: Path) -> Path:
    """The packed folder of a case's tiny model: all that this file asks of the pipeline."""
    if case == "clip":
        source = str(published(tiny_clip.folder(place / case, text=TOWER, vision=TOWER)))
        data = Data(pictures=[tiny_clip.Coloured(32, seed=1)])
        return quantize(source, place / "out", Recipe.parse(fields), data, threads=1).folder
    folder, text = tiny.save_folder(place / case, vocab_size=264, intermediate_size=64), place / "text.txt"
    text.write_text(" ".join(np.random.default_rng(0).choice(tiny.TEXT.split(), 1000)), encoding="utf-8")
    if fields["distil"]:
        fields = {**fields, "distil": {**fields["distil"], "text": str(text)}}
    recipe = Recipe.parse(fields)
    return quantize(str(published(folder)), place / "out", recipe, Data(text, examine=False), threads=1).folder


def published(folder: Path) -> Path:
    """With weights of 16 bits, as models are published: the last bits, which a machine may draw otherwise, are gone."""
    file = folder / "model.safetensors"
    save_file({name: t.astype(np.float16).astype(np.float32) for name, t in load_file(file).items()}, file)
    return folder


def made(case: str, stage: str) -> Tensors:
    """What the folder of a case holds, made in a cache of its own."""
    fields = {"rules": [{"quantizer": "learned"}, {"keep": "int8"}], **CASES[case]}
    if stage == "calibrated":
        fields |= {"distil": None, "train": None}
    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch.dict(os.environ, {"TERCET_CACHE": f"{place}/cache"}),
        mock.patch("tercet.data.default_texts", return_value=None),
    ):
        return tensors(folder_of(case, fields, Path(place)))


def tensors(folder: Path) -> Tensors:
    """Of an int8 tensor the SHA-256 alone: it is rounded, and never changes."""
    found: Tensors = {"codes": {}, "scales": {}, "vectors": {}, "int8": {}}
    for name, tensor in sorted(Artifact.open(folder, check=True).tensors.items()):
        loose = unpack(tensor) if isinstance(tensor, PackedTensor) else tensor
        if isinstance(loose, TernaryTensor):
            found["codes"][name], found["scales"][name] = loose.codes, loose.scale
        elif isinstance(loose, IntTensor):
            digest = hashlib.sha256(loose.codes.tobytes() + loose.scale.tobytes()).digest()
            found["int8"][name] = np.frombuffer(digest, np.uint8)
        else:
            found["vectors"][name] = loose
    return found


def joined(found: Tensors) -> Golden:
    return {kind: np.concatenate([array.ravel() for array in named.values()]) for kind, named in found.items()}


def split(golden: Golden, like: Tensors) -> Tensors:
    """The golden tensors by name; names and shapes are those of `like`."""
    found: Tensors = {}
    for kind, named in like.items():
        sizes = [array.size for array in named.values()]
        assert golden[kind].size == sum(sizes), f"{kind}: {golden[kind].size} before, {sum(sizes)} now"
        parts = np.split(golden[kind], np.cumsum(sizes)[:-1])
        found[kind] = {name: part.reshape(named[name].shape) for name, part in zip(named, parts, strict=True)}
    return found


def read(case: str, stage: str) -> Golden:
    """Codes of the trained folder are stored as their distance to the calibrated ones, which is nearly always 0."""
    with np.load(GOLDEN / f"{case}-{stage}.npz") as file:
        golden = dict(file)
    return golden if stage == "calibrated" else {**golden, "codes": golden["codes"] + read(case, "calibrated")["codes"]}


def wrong(found: NDArray[Any], wanted: NDArray[Any], kind: str, stage: str) -> int:
    """How many values differ by more than they may."""
    exact = stage == "calibrated" and torch.backends.cpu.get_cpu_capability() == MADE_WITH
    if kind == "scales" and not exact:  # none is negative, so that their bits are in the order of their values
        return int((np.abs(found.view(np.int16).astype(int) - wanted.view(np.int16)) > 1).sum())
    if kind == "vectors" and not exact:
        return int((np.abs(found - wanted) > 1e-5).sum())
    return int((found.view(f"u{found.itemsize}") != wanted.view(f"u{wanted.itemsize}")).sum())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("case", CASES)
def test_the_folder_is_the_one_of_before(case: str, stage: str) -> None:
    found = made(case, stage)
    apart = {}
    for kind, named in split(read(case, stage), found).items():
        for name, wanted in named.items():
            if not (stage == "trained" and name.endswith("k_proj.bias")):
                count = wrong(found[kind][name], wanted, kind, stage)
                apart |= {f"{kind} of {name}": f"{count} of {wanted.size}"} if count else {}
    assert not apart


@pytest.mark.parametrize("case", CASES)
def test_training_moved_what_it_trains(case: str) -> None:
    """Else the golden files of trained folders would show little."""
    before, after = read(case, "calibrated"), read(case, "trained")
    assert (before["codes"] != after["codes"]).sum() > 100
    assert (before["scales"] != after["scales"]).mean() > 0.9
    assert (before["vectors"] != after["vectors"]).mean() > 0.9
    assert np.array_equal(before["int8"], after["int8"])


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        before, after = (joined(made(case, stage)) for stage in STAGES)
        np.savez_compressed(GOLDEN / f"{case}-calibrated.npz", **before)
        np.savez_compressed(GOLDEN / f"{case}-trained.npz", **{**after, "codes": after["codes"] - before["codes"]})


if __name__ == "__main__":
    main()
