"""True bits a weight, and what packing and PackedTensor refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import weights
from tercet.errors import FormatError, QuantizeError
from tercet.packing import FORMATS, PackedTensor, invalid_codes, pack, unpack
from tercet.tensor import IntTensor, TernaryTensor


@pytest.mark.parametrize(
    ("fmt", "cols", "group", "shift", "bits"),
    [
        ("t2", 576, 64, False, 2.25),
        ("t2", 576, 64, True, 2.5),
        ("t2", 576, 576, False, 2 + 16 / 576),
        ("t19", 608, 608, False, 32 / 19 + 16 / 608),
        ("t19", 1024, 128, False, 1.75 + 0.125),
        ("t5", 640, 128, False, 1.725),
        ("b1", 512, 128, False, 1.125),
        ("q8", 576, 64, False, 8.25),
        ("q4", 576, 64, False, 4.25),
        ("t2", 17, 17, False, 2 * 32 / 17 + 16 / 17),  # padding counts
    ],
)
def test_true_bits(fmt: str, cols: int, group: int, shift: bool, bits: float) -> None:
    packed = pack(weights.tensor(fmt, 64, cols, group, shift, seed=3), fmt)
    assert packed.bits_per_weight == pytest.approx(bits, rel=1e-12)
    assert packed.nbytes * 8 == pytest.approx(bits * 64 * cols)


def test_padding_rows_count() -> None:
    assert pack(weights.tensor("t2", 1, 64, 64, False, 0), "t2").bits_per_weight == 16 * (2 + 16 / 64)


def test_float_bits() -> None:
    assert pack(np.ones((3, 5), np.float32), "f16").bits_per_weight == 16
    assert pack(np.ones((3, 5), np.float32), "f32").bits_per_weight == 32


@pytest.mark.parametrize("group", [32, 64])
def test_t19_refuses_small_groups_and_names_t2(group: int) -> None:
    with pytest.raises(QuantizeError, match=f"t19: groups of {group} .*use t2"):
        pack(weights.tensor("t2", 4, 128, group, False, 0), "t19")


def test_pack_refuses_what_a_format_cannot_hold() -> None:
    ternary, integers = weights.tensor("t2", 4, 64, 32, True, 0), weights.tensor("q8", 4, 64, 32, False, 0)
    zeros = TernaryTensor(np.zeros((2, 32), np.int8), np.ones((2, 1), np.float16))
    odd = weights.tensor("t2", 4, 64, 16, False, 0)
    floats = np.ones((2, 2), np.float32)
    cases: list[tuple[Any, str, str]] = [
        (ternary, "q8", "no shift|kind"),
        (integers, "t2", "kind"),
        (integers, "q4", "kind"),
        (integers, "f16", "group"),
        (zeros, "b1", "use t2"),
        (odd, "t2", "groups of 16"),
        (ternary, "t3", "unknown format"),
        (floats, "t2", "float"),
        (floats * np.float32(1e6), "f16", "too large"),
        (floats * np.float32(np.nan), "f32", "not finite"),
        (floats[0], "f32", "matrices"),
        (floats.astype(np.float64), "f32", "matrices"),
        (np.ones((0, 4), np.float32), "f32", "empty"),
    ]
    for tensor, fmt, message in cases:
        with pytest.raises(QuantizeError, match=message) as caught:
            pack(tensor, fmt)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fmt", "word"),
    [("t2", 3 << 14), ("t19", 27), ("t19", 31 << 25), ("t19", 3 << 30), ("q8", 128 << 8)],
)
def test_an_invalid_code_is_found(fmt: str, word: int) -> None:
    packed = pack(weights.tensor(fmt, 20, 128, 128, False, 0), fmt)
    packed.codes.view("<u4")[0, 2, 5] = word
    assert invalid_codes(packed) == 1
    with pytest.raises(FormatError, match="1 invalid codes"):
        unpack(packed)


def test_an_invalid_byte_of_t5_is_found() -> None:
    packed = pack(weights.tensor("t5", 20, 128, 128, False, 0), "t5")
    packed.codes[3, 7] = 243
    assert invalid_codes(packed) == 1


@pytest.mark.parametrize("fmt", sorted(weights.GROUPS))
def test_padding_must_be_padding(fmt: str) -> None:
    """Any change of a padding column's or row's code is found."""
    tensor = weights.tensor(fmt, 17, 37, 37, False, 5)
    wide = np.pad(tensor.codes, ((0, 15), (0, 40)), constant_values=1)
    full = type(tensor)(wide, *([tensor.bits] if isinstance(tensor, IntTensor) else []), np.ones((32, 1), np.float16))
    packed, filled = pack(tensor, fmt), pack(full, fmt)
    rows, tiles = packed.codes.shape[:2]
    hostile = replace(packed, codes=np.ascontiguousarray(filled.codes[:rows, :tiles]))
    assert invalid_codes(hostile) > 0


def test_a_float_that_is_not_finite_is_counted() -> None:
    for fmt in ("f16", "f32"):
        packed = pack(np.ones((40, 30), np.float32), fmt)
        packed.codes[7, 3], packed.codes[39, 29], packed.codes[0, 0] = np.nan, -np.inf, -65504
        assert invalid_codes(packed) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, -0.0])
def test_scales_are_checked(value: float) -> None:
    packed = pack(weights.tensor("t2", 20, 128, 64, True, 0), "t2")
    assert packed.scale is not None
    assert packed.shift is not None
    scale, shift = packed.scale.copy(), packed.shift.copy()
    scale[1, 0, 2] = shift[0, 1, 3] = value
    with pytest.raises(FormatError, match="scale is not finite"):
        replace(packed, scale=scale)
    if value == -1.0:
        assert replace(packed, shift=shift).shift is shift
    else:
        with pytest.raises(FormatError, match="shift is not finite"):
            replace(packed, shift=shift)


def test_padding_rows_have_no_scale() -> None:
    packed = pack(weights.tensor("t2", 20, 64, 64, True, 0), "t2")
    assert packed.scale is not None
    scale = packed.scale.copy()
    scale[1, 0, 4] = 1
    with pytest.raises(FormatError, match="padding row"):
        replace(packed, scale=scale)


def test_negative_zero_is_not_stored() -> None:
    scale, shift = np.array([[-0.0]], np.float16), np.array([[-0.0]], np.float16)
    packed = pack(TernaryTensor(np.zeros((1, 32), np.int8), scale, shift), "t2")
    assert packed.scale is not None
    assert packed.shift is not None
    assert not packed.scale.view(np.uint16).any()
    assert not packed.shift.view(np.uint16).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "t3"}, "unknown format"), ({"shape": (0, 64)}, "empty"), ({"shape": (2**31, 64)}, "too large"),
        ({"shape": (40, 64)}, "codes is"), ({"shape": (20, 128)}, "codes is"), ({"group_size": 0}, "groups of 0"),
        ({"group_size": 48}, "groups of 48"), ({"group_size": 32}, "scale is"), ({"scale": None}, "scale missing"),
        ({"format": "q8"}, "no shift"), ({"format": "f16", "shift": None}, "codes is|too many"),
    ],
)  # fmt: skip
def test_parts_must_fit(change: dict[str, Any], message: str) -> None:
    packed = pack(weights.tensor("t2", 20, 64, 64, True, 0), "t2")
    with pytest.raises(FormatError, match=message) as caught:
        replace(packed, **change)
    assert "\n" not in str(caught.value)


def test_a_group_is_bounded() -> None:
    with pytest.raises(QuantizeError, match="at most 131072"):
        pack(TernaryTensor(np.zeros((1, 131073), np.int8), np.ones((1, 1), np.float16)), "t2")


def test_the_formats() -> None:
    assert FORMATS == ("t2", "t19", "t5", "b1", "q8", "q4", "f16", "f32")
    assert PackedTensor("f32", (1, 2), 2, np.ones((1, 2), np.float32)).nbytes == 8
