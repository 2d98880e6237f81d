"""The GGUF reader: blocks decode as gguf-py says, and known attacks are refused each for its own reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants

import gguf_files
from tercet.errors import FormatError
from tercet.sources.gguf.reader import BLOCKS, GGUFFile, TensorInfo


def refused(tmp_path: Path, data: bytes | bytearray, match: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=match) as caught:
        GGUFFile(path)
    assert "\n" not in str(caught.value)


def one_tensor(dims: list[int], kind: int = 0, offset: int = 0, data: int = 128) -> bytes:
    raw = gguf_files.Raw(0, 1)
    raw.info("x", dims, kind, offset)
    raw.data += bytes(-len(raw.data) % 32 + data)
    return bytes(raw.data)


@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_every_type_decodes_as_gguf_quants(tmp_path: Path, kind: int) -> None:
    label, block, block_bytes = BLOCKS[kind]
    rng = np.random.default_rng(kind)
    rows, columns = 3, 2 * block
    if label in ("F32", "F16", "BF16"):
        raw = quants.quantize(rng.standard_normal((rows, columns)).astype(np.float32), GGMLQuantizationType(kind))
    else:
        raw = rng.integers(0, 256, (rows, 2 * block_bytes), dtype=np.uint8) & 0x3F  # small scales: all are finite
    path = tmp_path / "blocks.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("x", raw, raw_dtype=GGMLQuantizationType(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(path) as gguf:
        values = gguf.read("x")
        assert gguf.metadata["general.architecture"] == "llama"
    assert values.dtype == np.float32
    assert values.shape == (rows, columns)
    np.testing.assert_array_equal(values, quants.dequantize(raw, GGMLQuantizationType(kind)))


def test_the_type_table_is_that_of_ggml() -> None:
    from gguf import GGML_QUANT_SIZES

    for kind, (label, block, block_bytes) in BLOCKS.items():
        assert GGMLQuantizationType(kind).name == label
        assert GGML_QUANT_SIZES[GGMLQuantizationType(kind)] == (block, block_bytes)


def test_values_come_back_typed(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf_files.small().data)
    with GGUFFile(path) as gguf:
        for key, value in gguf_files.SMALL.items():
            found = gguf.metadata[key]
            found = found.tolist() if isinstance(found, np.ndarray) else found
            assert found == (np.float32(value) if isinstance(value, float) else value)
        assert gguf.tensors["blk.0.attn_k.weight"] == TensorInfo(
            (16, 32), 3, gguf.tensors["blk.0.attn_k.weight"].start, 320
        )


@pytest.mark.parametrize("count", [1 << 61, (1 << 64) - 1, 1 << 20])
@pytest.mark.parametrize("field", ["tensor count", "pair count"])
def test_counts_beyond_the_file(tmp_path: Path, field: str, count: int) -> None:  # CVE-2024-23605
    raw = gguf_files.small()
    at = next(offset for name, offset, _ in raw.fields if name == field)
    raw.data[at : at + 8] = count.to_bytes(8, "little")
    refused(tmp_path, raw.data, "declared, more than the file can hold")


@pytest.mark.parametrize(
    ("dims", "match"),
    [
        ([4194305, 4194305, 211106198978564], "product overflows"),  # wraps to 4 in 64 bits
        ([1 << 32, 1 << 32], "product overflows"),
        ([1 << 62], "bytes of tensor 'x' overflow"),
        ([0], "is empty"),
        ([1, 0], "is empty"),
        ([1, 1, 1, 1, 1], "5 dimensions"),
        ([], "0 dimensions"),
        ([33], "past the end"),
    ],
)
def test_shapes_that_wrap_or_are_empty(tmp_path: Path, dims: list[int], match: str) -> None:
    refused(tmp_path, one_tensor(dims), match)


def test_sizes_whose_sum_wraps(tmp_path: Path) -> None:  # CVE-2025-53630
    raw = gguf_files.Raw(0, 2)
    raw.info("a", [1 << 60], 0, 0)
    raw.info("b", [1 << 60], 0, 1 << 62)
    refused(tmp_path, raw.data + bytes(256), "past the end|overflow")


@pytest.mark.parametrize(
    ("offset", "match"),
    [
        (32, "past the end"),  # CVE-2026-7482: reading there leaks what lies behind the file
        (1 << 62, "past the end"),
        ((1 << 64) - 32, "overflows"),
        (1, "multiple of the alignment"),
    ],
)
def test_offsets(tmp_path: Path, offset: int, match: str) -> None:
    refused(tmp_path, one_tensor([32], offset=offset), match)


def test_holes_overlaps_and_trailing_bytes(tmp_path: Path) -> None:
    for second, match in ((0, "overlaps"), (160, "hole")):
        raw = gguf_files.Raw(0, 2)
        raw.info("a", [32], 0, 0)
        raw.info("b", [32], 0, second)
        refused(tmp_path, raw.data + bytes(-len(raw.data) % 32 + 320), match)
    refused(tmp_path, one_tensor([32], data=160), "32 bytes follow the last tensor")


def test_rows_must_be_whole_blocks(tmp_path: Path) -> None:
    refused(tmp_path, one_tensor([48, 2], kind=8), "not a multiple of Q8_0's block 32")


@pytest.mark.parametrize("kind", [4, 5, 9, 15, 24, 1000, (1 << 32) - 1])
def test_types_that_are_not_read(tmp_path: Path, kind: int) -> None:
    name = {9: "Q8_1", 15: "Q8_K", 24: "I8"}.get(kind, kind)
    refused(tmp_path, one_tensor([256], kind=kind), f"has type {name}, which is not read")


@pytest.mark.parametrize("alignment", [0, 3, 48, 8192, 1 << 31])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    raw = gguf_files.Raw(1, 0)
    raw.pair("general.alignment", alignment)
    refused(tmp_path, raw.data, "power of two")


def test_names_and_keys_appear_once(tmp_path: Path) -> None:
    raw = gguf_files.Raw(2, 0)
    raw.pair("a", 1)
    raw.pair("a", 2)
    refused(tmp_path, raw.data, "appears twice")
    raw = gguf_files.Raw(0, 2)
    raw.info("x", [32], 0, 0)
    raw.info("x", [32], 0, 128)
    refused(tmp_path, raw.data + bytes(-len(raw.data) % 32 + 256), "appears twice")


def test_strings_of_all_arrays_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tercet.sources.gguf.reader.MAX_STRINGS", 5)
    raw = gguf_files.Raw(3, 0)
    for key in "abc":
        raw.pair(key, ["x", "y"])
    refused(tmp_path, raw.data, "c has 2 strings, at most 5 are allowed in all")


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    refused(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull")


def test_strings_and_arrays_are_bounded(tmp_path: Path) -> None:
    raw = gguf_files.Raw(0, 1)
    raw.info("x" * 65, [32], 0, 0)
    refused(tmp_path, raw.data + bytes(256), "65 bytes long")
    raw = gguf_files.Raw(1, 0)
    raw.pair("bad", "\0")
    refused(tmp_path, raw.data[:-1] + b"\xff", "not UTF-8")
    for kind, match in ((9, "array of arrays"), (77, "unknown type 77")):
        raw = gguf_files.Raw(1, 0)
        raw.string("nested")
        raw.put("type", "<I", 9)
        raw.put("element type", "<I", kind)
        raw.put("count", "<Q", 1)
        refused(tmp_path, raw.data + bytes(64), match)
    for kind, count in ((0, 1 << 63), (12, (1 << 64) - 1), (8, 1 << 20), (8, 1 << 63)):
        raw = gguf_files.Raw(1, 0)
        raw.string("long")
        raw.put("type", "<I", 9)
        raw.put("element type", "<I", kind)
        raw.put("count", "<Q", count)
        refused(tmp_path, raw.data + bytes(64), "long (needs|has)")
    raw = gguf_files.Raw(1, 0)
    raw.pair("flag", True)
    refused(tmp_path, raw.data[:-1] + b"\x02", "bool with value 2")


def test_what_is_no_gguf(tmp_path: Path) -> None:
    refused(tmp_path, b"", "empty")
    refused(tmp_path, b"PK\x03\x04" + bytes(60), "no GGUF file")
    for version in (0, 1, 4, 3 << 24):
        refused(tmp_path, gguf_files.Raw(0, 0, version).data, f"GGUF version {version}")
    with pytest.raises(FormatError, match="cannot be read"):
        GGUFFile(tmp_path / "absent.gguf")


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "nan.gguf"
    path.write_bytes(one_tensor([32])[:-4] + np.float32(np.inf).tobytes())
    with GGUFFile(path) as gguf, pytest.raises(FormatError, match="not finite"):
        gguf.read("x")
