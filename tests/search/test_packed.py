"""A packed model from its folder to what is found with it, natively."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fake_clip
import tiny_packed
import tiny_towers
from fake_clip import COLOURS, paint
from tercet import artifact
from tercet.evaluate.verify import verify
from tercet.packing import PackedTensor
from tercet.runtime.pictures.embedder import Embedder
from tercet.runtime.pictures.encoder import Encoder
from tercet.search import Index, build, find

SIDE = tiny_towers.VISION["image_size"]


def pack(folder: Path, linear: str) -> Path:
    _, tensors, config = tiny_packed.towers("clip", linear)
    pictures = {**fake_clip.PREPROCESSOR, "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    files = {
        "tokenizer.json": fake_clip.tokenizer().to_str().encode(),
        "tokenizer_config.json": b'{"pad_token": "<end>"}',
        "preprocessor_config.json": json.dumps(pictures).encode(),
    }
    rest = {"recipe": {}, "card": "", "generation": {}, "source": {}, "calibration": {}}
    artifact.save(folder, model=config, tensors=tensors, tokenizer_files=files, **rest)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("packed") / "model", "t2")


def test_a_packed_model_finds_a_picture_by_itself(folder: Path, tmp_path: Path) -> None:
    clip = Embedder.open(folder, threads=1)
    paths = [paint(tmp_path / "in" / f"{colour}-{n}.png", colour, n, (40, 30)) for colour in COLOURS for n in range(2)]
    build(tmp_path / "in", clip, tmp_path / "one", batch=5)
    build(tmp_path / "in", clip, tmp_path / "other", batch=32, workers=1)
    one, other = Index.open(tmp_path / "one"), Index.open(tmp_path / "other")
    np.testing.assert_array_equal(one.matrix()[1], other.matrix()[1])
    for path in paths[::3]:
        hits = find(one, clip, path, 2)
        assert hits[0].score == pytest.approx(1, abs=2e-3)
        assert hits[0].path.split("-")[0] == path.name.split("-")[0]
    assert len(find(one, clip, "a red thing", 3)) == 3


WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("accelerate", "torch", "transformers")))  # to import one is an ImportError
from tercet.cli import main
main()
"""


def test_commands_run_where_torch_is_not_installed(folder: Path, tmp_path: Path) -> None:
    def tercet(*arguments: object) -> None:
        words = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    for colour in COLOURS:
        paint(tmp_path / "in" / colour / "0.png", colour)
    tercet("embed", folder, tmp_path / "in", "-o", tmp_path / "vectors.npy")
    tercet("index", tmp_path / "in", "-m", folder, "-o", tmp_path / "index")
    tercet("search", tmp_path / "index", "a red thing")
    tercet("eval", folder, "--dataset", tmp_path / "in", "--json")


def test_verify_checks_both_towers(folder: Path) -> None:
    for place in (folder, pack(folder.parent / "t5", "t5")):
        found = verify(place, threads=1)
        matrices = [name for name, tensor in artifact.Artifact.open(place).tensors.items() if is_matrix(name, tensor)]
        assert found.ok
        assert found.compared == "embeddings"
        assert found.kl is None
        assert found.matrices == len(matrices)
        assert found.max_abs_error > 0
        assert found.relative_error < 1e-5


@pytest.mark.parametrize("tower", ["encode_pixels", "encode_ids"])
@pytest.mark.parametrize("wrong", [1.001, np.nan])
def test_verify_finds_a_tower_that_computes_something_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tower: str, wrong: float
) -> None:
    right = getattr(Encoder, tower)
    monkeypatch.setattr(Encoder, tower, lambda self, rows: right(self, rows) * np.float32(wrong))
    assert not verify(folder, threads=1).ok


def is_matrix(name: str, tensor: object) -> bool:
    return isinstance(tensor, PackedTensor) and not name.endswith(
        ("token_embedding.weight", "position_embedding.weight")
    )


def test_rows_and_pixels_go_to_the_towers_as_they_are(folder: Path, tmp_path: Path) -> None:
    clip = Embedder.open(folder, threads=1)
    path = paint(tmp_path / "a.png", "red")
    (made,) = clip.pictures([path, tmp_path / "none.png"], lambda path: path)
    assert [source for source, _ in made.refused] == [tmp_path / "none.png"]
    np.testing.assert_array_equal(made.vectors, clip.encoder.encode_pixels(clip.preprocessor(_opened(path))[None]))
    np.testing.assert_array_equal(clip.texts(["red"]), clip.encoder.encode_ids(clip.captions(["red"])))
    assert clip.captions(["red"]).shape == (1, clip.encoder.context)


def test_the_fingerprint_is_that_of_the_weights(folder: Path, tmp_path: Path) -> None:
    own = Embedder.open(folder, threads=1).fingerprint
    assert Embedder.open(pack(tmp_path / "same", "t2"), threads=1).fingerprint == own
    assert Embedder.open(pack(tmp_path / "other", "t5"), threads=1).fingerprint != own


def _opened(path: Path) -> Image.Image:

    return Image.open(path)
