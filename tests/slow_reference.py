"""docs/format.md once more, one element at a time and on purpose slow: what the golden vectors are made from.

Nothing here is shared with the package: plain Python integers, `Fraction` for the one rounding of an fma. Matrices are
lists of rows; scales are lists of float16 values given as float.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction

ROWS = 16
COLUMNS = {"t2": 16, "t19": 19, "b1": 32, "q8": 4, "q4": 8}


def _lane(fmt: str, tile: list[int]) -> int:
    """The 32-bit lane of one row of one tile; `tile` has COLUMNS[fmt] codes."""
    lane = 0
    for column, code in enumerate(tile):
        if fmt == "t2":
            byte, slot = column % 4, column // 4
            lane |= (code + 1) << (8 * byte + 2 * slot)
        elif fmt == "b1":
            byte, slot = column % 4, column // 4
            lane |= (1 if code == 1 else 0) << (8 * byte + slot)
        elif fmt == "q8":
            lane |= (code & 255) << (8 * column)
        elif fmt == "q4":
            byte, slot = column % 4, column // 4
            lane |= (code + 8) << (8 * byte + 4 * slot)
        elif fmt == "t19":
            if column == 18:
                lane |= (code + 1) << 30
            else:
                lane += ((code + 1) * 3 ** (column % 3)) << (5 * (column // 3))
    return lane


def pack_codes(fmt: str, codes: list[list[int]], group: int) -> bytes:
    """The bytes of `X.weight`."""
    rows, cols = len(codes), len(codes[0])
    out = bytearray()
    if fmt == "t5":
        for row in codes:
            for start in range(0, cols, 5):
                digits = [row[c] + 1 if c < cols else 1 for c in range(start, start + 5)]
                out.append(sum(digit * 3**i for i, digit in enumerate(digits)))
        return bytes(out)
    width = COLUMNS[fmt]
    blank = -1 if fmt == "b1" else 0  # a padding bit of b1 is 0
    for first_row in range(0, rows, ROWS):
        for group_start in range(0, cols, group):
            group_end = min(group_start + group, cols)
            for start in range(group_start, group_end, width):
                for r in range(first_row, first_row + ROWS):
                    tile = [codes[r][c] if r < rows and c < group_end else blank for c in range(start, start + width)]
                    out += struct.pack("<I", _lane(fmt, tile))
    return bytes(out)


def pack_scales(fmt: str, scales: list[list[float]]) -> bytes:
    """The bytes of `X.weight_scale` or `X.weight_shift`."""
    rows, groups = len(scales), len(scales[0])
    out = bytearray()
    if fmt == "t5":
        for row in scales:
            out += struct.pack(f"<{groups}e", *row)
        return bytes(out)
    for first_row in range(0, rows, ROWS):
        for g in range(groups):
            for r in range(first_row, first_row + ROWS):
                out += struct.pack("<e", scales[r][g] if r < rows else 0.0)
    return bytes(out)


def f32(value: Fraction | float) -> float:
    """The float32 nearest to an exact value, ties to even."""
    exact = Fraction(value)
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = math.frexp(float(size))[1]  # size is about 2**exponent
    while size >= Fraction(2) ** exponent:
        exponent += 1
    while size < Fraction(2) ** (exponent - 1):
        exponent -= 1
    unit = Fraction(2) ** max(exponent - 24, -149)
    nearest = round(size / unit) * unit  # Fraction's round is half to even
    return math.copysign(float(nearest), exact)


def quantize(x: list[float], group: int) -> tuple[list[int], list[float], list[int]]:
    """Activations of one token: int8 codes, a scale and a sum a group."""
    codes: list[int] = []
    scales: list[float] = []
    sums: list[int] = []
    for start in range(0, len(x), group):
        part = x[start : start + group]
        amax = max(abs(value) for value in part)
        inverse = f32(Fraction(127) / Fraction(amax)) if amax else math.inf
        if inverse >= 2.0**128:  # infinite in float32
            quantized, scale = [0] * len(part), 0.0
        else:
            quantized = [round(Fraction(f32(Fraction(value) * Fraction(inverse)))) for value in part]
            scale = f32(Fraction(amax) / 127)
        codes += quantized
        scales.append(scale)
        sums.append(sum(quantized))
    return codes, scales, sums


def rotate(x: list[float], block: int) -> list[float]:
    """One token's H x; of a block that is no power of two, Paley's matrix is of order 12."""
    y = list(x)
    m = 1 if block & (block - 1) == 0 else 12
    half, run = 1, block // m
    while half < run:
        for i in range(len(y)):
            if i // half % 2 == 0:
                a, b = Fraction(y[i]), Fraction(y[i + half])
                y[i], y[i + half] = f32(a + b), f32(a - b)
        half *= 2
    if m > 1:
        y = [_signed([y[i - i % block + k * run + i % run] for k in range(m)], i % block // run) for i in range(len(y))]
    factor = Fraction(f32(1 / math.sqrt(block)))
    return [f32(Fraction(value) * factor) for value in y]


def _signed(values: list[float], row: int) -> float:
    """Values added from the first to the last, with the signs of a row of the matrix of order 12."""
    squares = {0, 1, 3, 4, 5, 9}  # modulo 11
    total = values[0]
    for column in range(1, 12):
        minus = row > 0 and (row + column - 2) % 11 in squares
        total = f32(Fraction(total) + (-Fraction(values[column]) if minus else Fraction(values[column])))
    return total


def linear(
    codes: list[list[int]],
    scales: list[list[float]],
    shifts: list[list[float]] | None,
    bias: list[float] | None,
    x: list[float],
    group: int,
) -> list[float]:
    """y of one token, float32, as every kernel must give it."""
    quantized, x_scales, x_sums = quantize(x, group)
    y = []
    for r, row in enumerate(codes):
        acc = 0.0
        for g, start in enumerate(range(0, len(row), group)):
            dot = sum(t * q for t, q in zip(row[start : start + group], quantized[start : start + group], strict=True))
            factor = f32(Fraction(x_scales[g]) * Fraction(scales[r][g]))
            acc = f32(Fraction(factor) * Fraction(f32(dot)) + Fraction(acc))
            if shifts is not None:
                factor = f32(Fraction(x_scales[g]) * Fraction(shifts[r][g]))
                acc = f32(Fraction(factor) * Fraction(f32(x_sums[g])) + Fraction(acc))
        if bias is not None:
            acc = f32(Fraction(acc) + Fraction(bias[r]))
        y.append(acc)
    return y
