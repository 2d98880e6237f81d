"""Headers of safetensors files that nobody vouches for: each rule, and the message that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tercet import fsio
from tercet.artifact import Entry, read_header, write_safetensors
from tercet.errors import FormatError


def file(tmp_path: Path, header: Any, data: int = 8, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(raw) if length is None else length
    (tmp_path / "x.safetensors").write_bytes(size.to_bytes(8, "little") + raw + bytes(data))
    return tmp_path / "x.safetensors"


def tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_sound_header(tmp_path: Path) -> None:
    tensors = {"b": tensor("BF16", [2, 2]), "a": tensor("F4", [0], [0, 0])}
    path = file(tmp_path, {"__metadata__": {"format": "pt"}, **tensors})
    base = path.stat().st_size - 8
    assert read_header(path) == {"a": Entry("F4", (0,), base, base), "b": Entry("BF16", (2, 2), base, base + 8)}


def test_files_of_others_and_ours(tmp_path: Path) -> None:
    arrays = {"a": np.ones((3, 5), np.float32), "b": np.zeros(7, np.int8), "c": np.arange(2, dtype=np.int64)}
    save_file(arrays, tmp_path / "theirs.safetensors")
    with fsio.atomic_folder(tmp_path / "ours", replaces=lambda _: False) as folder:
        write_safetensors(folder / "x.safetensors", arrays)
    for path in (tmp_path / "theirs.safetensors", tmp_path / "ours/x.safetensors"):
        raw = path.read_bytes()
        for name, entry in read_header(path).items():
            assert raw[entry.start : entry.end] == arrays[name].tobytes()
            assert entry.shape == arrays[name].shape


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"{", "not valid JSON"),
        (b'{"a\xff":1}', "not Unicode"),
        (b'{"\\ud800":1}', "not Unicode"),
        (b'{"a":1,"a":2}', "duplicate key 'a'"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper"),
        ({"__metadata__": {"a": 1}}, "__metadata__"),
        ({"__metadata__": []}, "__metadata__"),
        ({"": tensor()}, "name of 0"),
        ({"x" * 1025: tensor()}, "name of 1025"),
        ({"a": 1}, "nothing else"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "nothing else"),
        ({"a": tensor() | {"more": 1}}, "nothing else"),
        ({"a": tensor("F33")}, "unknown dtype 'F33'"),
        ({"a": tensor(["F32"])}, "unknown dtype"),
        ({"a": tensor("F32", [1] * 9)}, "at most 8"),
        ({"a": tensor("F32", [2.0])}, "sizes below"),
        ({"a": tensor("F32", [True, 2])}, "sizes below"),
        ({"a": tensor("F32", [-2])}, "sizes below"),
        ({"a": tensor("F32", [2**64])}, "sizes below"),
        ({"a": tensor("F32", "2")}, "sizes below"),
        ({"a": tensor("F32", [4194305, 4194305, 211106198978564])}, "does not take 8 bytes"),
        ({"a": tensor("F32", [2**62, 2**62, 0])}, "does not take 8 bytes"),
        ({"a": tensor("F4", [1], [0, 0])}, "does not take 0 bytes"),
        ({"a": tensor("F32", [3])}, "does not take 8 bytes"),
        ({"a": tensor("F32", [2], [0])}, "two offsets"),
        ({"a": tensor("F32", [2], [0, 8, 8])}, "two offsets"),
        ({"a": tensor("F32", [2], [-8, 0])}, "two offsets"),
        ({"a": tensor("F32", [2], [8, 16])}, "hole"),
        ({"a": tensor("F32", [2], [0, 8]), "b": tensor("F32", [1], [4, 8])}, "overlaps"),
        ({"a": tensor("F32", [1], [0, 4])}, "cut off, or bytes were added"),
        ({"a": tensor("F32", [4], [0, 16])}, "cut off, or bytes were added"),
        ({"a": tensor("F32", [2], [2**62, 2**62 + 8])}, "hole"),
    ],
)
def test_each_rule(tmp_path: Path, header: Any, message: str) -> None:
    path = file(tmp_path, header)
    with pytest.raises(FormatError, match=message) as caught:
        read_header(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 3, 10**4, 2**31, 2**63, 2**64 - 1])
def test_a_wrong_length(tmp_path: Path, length: int) -> None:
    path = file(tmp_path, {"a": tensor()}, length=length)
    with pytest.raises(FormatError, match="header"):
        read_header(path)


def test_a_large_header_is_not_read(tmp_path: Path) -> None:
    path = file(tmp_path, {})
    with path.open("r+b") as sparse:
        sparse.truncate(1 << 32)
        sparse.seek(0)
        sparse.write(((1 << 32) - 8).to_bytes(8, "little"))
    with pytest.raises(FormatError, match="header of 4294967288 bytes"):
        read_header(path)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        read_header(tmp_path / "missing")
    with pytest.raises(FormatError, match="not a regular file"):
        read_header(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match="0 bytes"):
        read_header(tmp_path / "empty")
