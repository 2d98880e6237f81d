"""Law 3 for the packed products: every instruction set gives the reference's result, bit for bit."""

from __future__ import annotations

from collections import Counter
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_cases import GROUPS, PACKED, SHIFTED, TILE_COLUMNS, activations, isas, same_bits, weight
from tercet import kernels
from tercet.packing import pack, reference

TOKENS = {"one": (1, 1), "few": (2, 11), "many": (12, 20)}
CASES = 100


@pytest.mark.parametrize("fmt", PACKED)
def test_every_cell_of_the_sweep_equals_the_reference(fmt: str) -> None:
    """format x instruction set x row tail x group x shift x token class: each cell at least 100 cases."""
    rng = np.random.default_rng(PACKED.index(fmt))
    shifts = (False, True) if fmt in SHIFTED else (False,)
    sizes = (*GROUPS[fmt], "row", "row, ragged")
    cells: Counter[tuple[object, ...]] = Counter()
    for group, shift, ragged_rows in product(sizes, shifts, (False, True)):
        for _ in range(CASES):
            rows = int(rng.integers(1, 4)) * 16 - (int(rng.integers(1, 16)) if ragged_rows else 0)
            cols, groups = _width(fmt, group, rng)
            tensor = weight(fmt, rows, cols, groups, rng, shift)
            packed, bias = pack(tensor, fmt), rng.normal(size=rows).astype(np.float32)
            x = activations(TOKENS["many"][1], cols, rng)
            expected = reference.linear(tensor, x, bias)
            for (name, (low, high)), isa in product(TOKENS.items(), isas(fmt)):
                n = int(rng.integers(low, high + 1))
                got = kernels.matmul(packed, x[:n], bias=bias, isa=isa)
                assert same_bits(got, expected[:n]), f"{isa} {fmt}[{rows}, {cols}] groups {groups} tokens {n}"
                cells[isa, ragged_rows, group, shift, name] += 1
    wanted = list(product(isas(fmt), (False, True), sizes, shifts, TOKENS))
    assert set(cells) == set(wanted)
    assert min(cells[cell] for cell in wanted) >= CASES


def _width(fmt: str, group: int | str, rng: np.random.Generator) -> tuple[int, int]:
    if isinstance(group, int):
        groups = int(rng.integers(1, 4))
        return group * groups, groups
    tile = TILE_COLUMNS[fmt]
    cols = int(rng.integers(1, 12)) * tile
    return (cols - int(rng.integers(1, tile)), 1) if "ragged" in group else (cols, 1)


@pytest.mark.parametrize("fmt", PACKED)
def test_no_tokens_give_no_rows(fmt: str) -> None:
    packed = pack(weight(fmt, 40, 128, 1, np.random.default_rng(0), False), fmt)
    for isa in isas(fmt):
        assert kernels.matmul(packed, np.zeros((0, 128), np.float32), isa=isa).shape == (0, 40)


@pytest.mark.parametrize("fmt", PACKED)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 80), groups=st.integers(1, 6), n=st.integers(1, 150))
def test_tokens_rows_and_threads_do_not_change_each_other(fmt: str, seed: int, rows: int, groups: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    cols = groups * (64 if 64 in GROUPS[fmt] else 128)
    packed = pack(weight(fmt, rows, cols, groups, rng), fmt)
    x = activations(n, cols, rng)
    token = int(rng.integers(n))
    expected = kernels.matmul(packed, x, isa="scalar")
    for isa in isas(fmt):
        together = kernels.matmul(packed, x, isa=isa)
        assert same_bits(together, expected)
        assert same_bits(kernels.matmul(packed, x[token : token + 1], isa=isa), expected[token : token + 1])
        assert same_bits(kernels.matmul(packed, x, isa=isa, threads=int(rng.integers(2, 5))), expected)


@pytest.mark.parametrize("fmt", PACKED)
def test_any_bytes_give_the_same_on_every_instruction_set(fmt: str) -> None:
    """Invalid codes (2-bit 3, -128, base-3 overflow) are refused by verify; a kernel must agree and stay in bounds."""
    rng = np.random.default_rng(7)
    for group, n in product((*GROUPS[fmt][-2:], 640), (1, 5, 40)):
        packed = _raw(fmt, 48, 640, group, rng.integers(0, 256, 48 * 640, dtype=np.uint8), rng)
        for x in (activations(n, 640, rng), np.full((n, 640), -2.0, np.float32), np.full((n, 640), 2.0, np.float32)):
            expected = kernels.matmul(packed, x, isa="scalar")
            for isa in isas(fmt):
                assert same_bits(kernels.matmul(packed, x, isa=isa), expected)


@pytest.mark.parametrize("fmt", PACKED)
@pytest.mark.parametrize("byte", [0xFF, 0x80, 0x7F, 0xAA])
def test_extreme_codes_neither_saturate_nor_overflow(fmt: str, byte: int) -> None:
    rng = np.random.default_rng(8)
    packed = _raw(fmt, 16, 1024, 1024, np.full(16 * 1024, byte, np.uint8), rng)
    for value, n in product((-1.0, 1.0), (1, 13)):
        x = np.full((n, 1024), value, np.float32)
        expected = kernels.matmul(packed, x, isa="scalar")
        assert all(same_bits(kernels.matmul(packed, x, isa=isa), expected) for isa in isas(fmt))


@pytest.mark.parametrize("fmt", ["t2", "t19"])
def test_a_very_wide_row_scale_does_not_overflow(fmt: str) -> None:
    """700,000 columns of +1 against 127: past what t2's accumulator of weight 64 holds without a flush."""
    cols, word = 700_000, {"t2": 0xAAAAAAAA, "t19": 0xB5AD6B5A}[fmt]  # every code 2: T = 1
    codes = np.full((16, -(-cols // TILE_COLUMNS[fmt])), word, "<u4").view(np.uint8)
    packed = SimpleNamespace(
        format=fmt, shape=(16, cols), group_size=cols, codes=codes, scale=np.ones(16, np.float16), shift=None
    )
    for n in (1, 2):
        x = np.full((n, cols), 127.0, np.float32)
        for isa in isas(fmt):
            assert (kernels.matmul(packed, x, isa=isa) == np.float32(127 * cols)).all()


def _raw(
    fmt: str, rows: int, cols: int, group: int, noise: np.ndarray, rng: np.random.Generator
) -> SimpleNamespace:  # rows a multiple of 16
    groups = cols // group
    size = rows * 4 * groups * -(-group // TILE_COLUMNS[fmt])
    scale = np.abs(rng.normal(size=(rows // 16, groups, 16))).astype(np.float16)
    return SimpleNamespace(
        format=fmt, shape=(rows, cols), group_size=group, codes=noise[:size], scale=scale, shift=None
    )
