"""Writes the golden vectors beside this file and prints their section of docs/format.md.

    PYTHONPATH=tests python tests/golden/make.py

They come from `slow_reference` alone, never from the package. Run it only when the format itself changes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import slow_reference as slow

HERE = Path(__file__).parent


def ternary(rows: int, cols: int) -> list[list[int]]:
    return [[(5 * r + 3 * c + r * c + c * c // 7) % 3 - 1 for c in range(cols)] for r in range(rows)]


def binary(rows: int, cols: int) -> list[list[int]]:
    return [[2 * ((3 * r + c + c * c // 5) % 2) - 1 for c in range(cols)] for r in range(rows)]


def integers(rows: int, cols: int, high: int, low: int) -> list[list[int]]:
    codes = [[(37 * r + 29 * c + r * c * c) % (high - low + 1) + low for c in range(cols)] for r in range(rows)]
    codes[0][:2] = [high, low]
    return codes


def scales(rows: int, groups: int) -> list[list[float]]:
    return [[(3 + r + 2 * g) / 64 for g in range(groups)] for r in range(rows)]


def shifts(rows: int, groups: int) -> list[list[float]]:
    return [[((r + g) % 3 - 1) / 128 for g in range(groups)] for r in range(rows)]


def activations(cols: int) -> list[float]:
    return [slow.f32((((c * c + 3 * c) % 23) - 11) / 10) for c in range(cols)]


def hexed(pattern: str, values: list[list[int]] | list[list[float]]) -> str:
    return b"".join(struct.pack(f"<{len(row)}{pattern}", *row) for row in values).hex()


def matrix(fmt: str, codes: list[list[int]], group: int, shifted: bool = False) -> dict[str, object]:
    rows, cols = len(codes), len(codes[0])
    scale = scales(rows, cols // group)
    shift = shifts(rows, cols // group) if shifted else None
    return {
        "kind": "matrix", "format": fmt, "shape": [rows, cols], "group_size": group,
        "in": {
            "codes_i8": hexed("b", codes),
            "scale_f16": hexed("e", scale),
            "shift_f16": hexed("e", shift) if shift else None,
        },
        "out": {
            "weight": slow.pack_codes(fmt, codes, group).hex(),
            "weight_scale": slow.pack_scales(fmt, scale).hex(),
            "weight_shift": slow.pack_scales(fmt, shift).hex() if shift else None,
        },
    }  # fmt: skip


def quantized(x: list[float], group: int) -> dict[str, object]:
    codes, scale, sums = slow.quantize(x, group)
    return {
        "kind": "activations", "cols": len(x), "group_size": group,
        "in": {"x_f32": hexed("f", [x])},
        "out": {"codes_i8": hexed("b", [codes]), "scale_f32": hexed("f", [scale]), "sum_i32": hexed("i", [sums])},
    }  # fmt: skip


def rotation(x: list[float], block: int) -> dict[str, object]:
    return {
        "kind": "rotation", "cols": len(x), "block": block,
        "in": {"x_f32": hexed("f", [x])},
        "out": {"y_f32": hexed("f", [slow.rotate(x, block)])},
    }  # fmt: skip


def product(fmt: str, codes: list[list[int]], group: int, shifted: bool, biased: bool) -> dict[str, object]:
    vector = matrix(fmt, codes, group, shifted)
    rows, cols = len(codes), len(codes[0])
    x, groups = activations(cols), cols // group
    bias = [slow.f32(r / 10 - 0.05) for r in range(rows)] if biased else None
    y = slow.linear(codes, scales(rows, groups), shifts(rows, groups) if shifted else None, bias, x, group)
    inputs = dict(vector["in"], x_f32=hexed("f", [x]), bias_f32=hexed("f", [bias]) if bias else None)  # type: ignore[call-overload]
    return dict(vector, kind="linear", **{"in": inputs, "out": {"y_f32": hexed("f", [y])}})


def vectors() -> dict[str, dict[str, object]]:
    x = [*activations(64), *[0.0] * 16, *[2.0**-122] * 16, *[2.0**-120] * 16, *[-(2.0**-121)] * 16]
    x[3], x[5] = 127.0, 2.5  # the first group's amax makes inv exactly 1: 2.5 rounds to even
    return {
        "t2-row-tails": matrix("t2", ternary(17, 21), 21),
        "t2-g32-shift": matrix("t2", ternary(2, 64), 32, shifted=True),
        "t19-row": matrix("t19", ternary(3, 24), 24),
        "t5-g32": matrix("t5", ternary(2, 64), 32),
        "b1-row-tails": matrix("b1", binary(3, 39), 39),
        "q8-row": matrix("q8", integers(3, 6, 127, -127), 6),
        "q4-row": matrix("q4", integers(3, 13, 7, -8), 13),
        "activations-g32": quantized(x, 32),
        "linear-t2-g32-shift-bias": product("t2", ternary(3, 64), 32, shifted=True, biased=True),
        "linear-q8-row": product("q8", integers(3, 37, 127, -127), 37, shifted=False, biased=False),
        "rotate-b32": rotation(activations(96), 32),
        "rotate-b96": rotation(activations(96), 96),
    }


def lines(value: str) -> list[str]:
    """Hex of a tile a line: 64 bytes."""
    return [value[start : start + 128] for start in range(0, len(value), 128)]


def page(vectors: dict[str, dict[str, object]]) -> str:
    out = []
    for name, vector in vectors.items():
        size = vector.get("shape") or [vector["cols"]]
        part = f"block {vector['block']}" if "block" in vector else f"group {vector['group_size']}"
        what = f"{vector.get('format', 'x')} {size}, {part}"
        out += [f"**{name}**: {what}", "```"]
        for arrow, side in (("in ", vector["in"]), ("out", vector["out"])):
            for key, value in side.items():  # type: ignore[attr-defined]
                if value is not None:
                    first, *rest = lines(value)
                    out += [f"{arrow} {key:<12} {first}", *[" " * 17 + line for line in rest]]
        out += ["```", ""]
    return "\n".join(out)


if __name__ == "__main__":
    made = vectors()
    for name, vector in made.items():
        (HERE / f"{name}.json").write_text(json.dumps({"name": name, **vector}, indent=1) + "\n")
    print(page(made))
