"""Damaged and hostile model folders, made from a sound one: fields, offsets, shapes, bytes; deterministic by number.

About half of the mutants carry checksums recomputed over what they hold, so that they reach past them.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from tercet.artifact.header import lay_out
from tercet.errors import FormatError
from tercet.packing import FORMATS, check_geometry, stored_shapes

SIZES = [
    0, 1, -1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 2**15, 2**29, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64,
]  # fmt: skip
HOSTILE: list[Any] = [
    *SIZES, 4194305, 211106198978564, 10**400, 0.5, 1e308, -0.0, 1e-320, True, False, None, "", "t2", "F32", "U8",
    "llama", "../../etc/passwd", "x" * 5000,
    "\0", "é\u202e", [], {}, [[]], [0], [1, 2, 3], [2**32, 2**32], [-1, 64], [64.0, 64],
    [4194305, 4194305, 211106198978564], [0, 2**63 - 1], ["a"], {"a": {}}, {"type": "yarn", "factor": 0},
]  # fmt: skip
TEXTS = [
    "NaN",
    "Infinity",
    "-Infinity",
    '"\\ud800"',
    "[" * 100 + "]" * 100,
    "[" * 100000,
    "9" * 5000,
    "01",
    "'a'",
    "nul",
    "",
]


@dataclass
class Mutant:
    """The two files of a folder that Tercet reads as its own, and what was done to them."""

    config: bytes
    weights: bytes
    kind: str
    summed: bool


class Mutator:
    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_bytes())
        self.weights = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(self.weights[:8], "little")
        self.header = json.loads(self.weights[8 : 8 + length])
        self.data = self.weights[8 + length :]
        self.kinds: list[Callable[[random.Random], tuple[Any, bytes]]] = [
            self._config_field, self._config_field, self._model_field, self._header_field, self._header_field,
            self._offsets, self._shape, self._text, self._cut, self._bytes, self._bits, self._data, self._data,
            self._consistent, self._consistent, self._consistent,
        ]  # fmt: skip

    def make(self, number: int) -> Mutant:
        rng = random.Random(f"mutant {number}")
        kind = rng.choice(self.kinds)
        config, weights = kind(rng)
        summed = rng.random() < 0.6 and isinstance(config, dict) and resum(config, weights)
        raw = config if isinstance(config, bytes) else json.dumps(config).encode()
        return Mutant(raw, weights, kind.__name__, summed)

    def _config_field(self, rng: random.Random) -> tuple[Any, bytes]:
        config = copy.deepcopy(self.config)
        change(config, rng)
        return config, self.weights

    def _model_field(self, rng: random.Random) -> tuple[Any, bytes]:
        config = copy.deepcopy(self.config)
        for _ in range(rng.randint(1, 3)):
            config["model"][rng.choice([*config["model"], "rope_scaling", "sliding_window"])] = rng.choice(HOSTILE)
        return config, self.weights

    def _header_field(self, rng: random.Random) -> tuple[Any, bytes]:
        header = copy.deepcopy(self.header)
        change(header, rng)
        return copy.deepcopy(self.config), self._file(json.dumps(header), rng)

    def _offsets(self, rng: random.Random) -> tuple[Any, bytes]:
        """Every way two tensors can share, skip or leave bytes."""
        header = copy.deepcopy(self.header)
        for name in rng.sample(sorted(header), rng.randint(1, 3)):
            move = rng.choice([1, -1, 64, -64, 2**32, 2**63, -(2**63)])
            which = rng.choice([[0], [1], [0, 1]])
            for end in which:
                header[name]["data_offsets"][end] += move
            if rng.random() < 0.3:
                header[name]["data_offsets"] = header[rng.choice(sorted(header))]["data_offsets"]
        return copy.deepcopy(self.config), self._file(json.dumps(header), rng)

    def _shape(self, rng: random.Random) -> tuple[Any, bytes]:
        """A shape changed in both places, so that the two agree with each other but not with the bytes."""
        config, header = copy.deepcopy(self.config), copy.deepcopy(self.header)
        name = rng.choice(sorted(config["tensors"]))
        entry = config["tensors"][name]
        entry["shape"][rng.randrange(2)] = rng.choice(SIZES)
        entry["group_size"] = rng.choice([entry["group_size"], entry["shape"][1], 32, 64, 128])
        try:
            shapes = stored_shapes(entry["format"], tuple(entry["shape"]), entry["group_size"], entry["shift"])
            header[name]["shape"] = list(shapes["codes"][1])
        except (ArithmeticError, FormatError):
            header[name]["shape"] = list(entry["shape"])
        return config, self._file(json.dumps(header), rng)

    def _text(self, rng: random.Random) -> tuple[Any, bytes]:
        """JSON that is none, or means two things."""
        in_config = rng.random() < 0.5
        text = json.dumps(self.config if in_config else self.header)
        spots = [match.start() + 1 for match in re.finditer(r"\{(?=\")", text)]
        spot = rng.choice(spots)
        first = re.match(r'"[^"]*"', text[spot:])
        assert first is not None
        way = rng.randrange(3)
        if way == 0:
            text = f"{text[:spot]}{first[0]}:{rng.choice(['0', '{}', 'null'])},{text[spot:]}"
        elif way == 1:
            name = rng.choice(["a", "__metadata__", "x" * 3000])
            text = f'{text[:spot]}"{name}":{rng.choice(TEXTS)},{text[spot:]}'
        else:
            number = rng.choice(list(re.finditer(r"\b\d+", text)))
            text = text[: number.start()] + rng.choice(TEXTS) + text[number.end() :]
        if in_config:
            return text.encode(), self.weights
        return copy.deepcopy(self.config), self._file(text, rng)

    def _cut(self, rng: random.Random) -> tuple[Any, bytes]:
        if rng.random() < 0.3:
            raw = json.dumps(self.config).encode()
            return raw[: rng.randrange(len(raw))], self.weights
        cut = self.weights[: rng.randrange(len(self.weights))]
        return copy.deepcopy(self.config), rng.choice([cut, self.weights + cut[:100], self.weights + bytes(64)])

    def _bytes(self, rng: random.Random) -> tuple[Any, bytes]:
        raw = bytearray(self.weights)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(rng.choice([9, 2000, len(raw)]))
            piece = rng.randbytes(rng.randint(0, 9))
            raw[at : at + rng.choice([0, len(piece), len(piece)])] = piece
        return copy.deepcopy(self.config), bytes(raw)

    def _bits(self, rng: random.Random) -> tuple[Any, bytes]:
        raw, config = bytearray(self.weights), bytearray(json.dumps(self.config).encode())
        target = rng.choice([raw, raw, config])
        for _ in range(rng.choice([1, 1, 1, 5])):
            target[rng.randrange(len(target))] ^= 1 << rng.randrange(8)
        return (bytes(config) if target is config else copy.deepcopy(self.config)), bytes(raw)

    def _data(self, rng: random.Random) -> tuple[Any, bytes]:
        """Codes that mean nothing, scales that are no numbers."""
        data = bytearray(self.data)
        for name in rng.sample(sorted(self.header), rng.randint(1, 4)):
            start, end = self.header[name]["data_offsets"]
            count = rng.randint(1, min(64, end - start))
            at = rng.randrange(start, end - count + 1)
            data[at : at + count] = rng.choice([rng.randbytes(count), b"\xff" * count, b"\x80" * count, bytes(count)])
        return copy.deepcopy(self.config), self.weights[: -len(data)] + bytes(data)

    def _consistent(self, rng: random.Random) -> tuple[Any, bytes]:
        """A file whose every part fits: other formats, shapes, groups; other bytes; names changed, added or gone."""
        config = copy.deepcopy(self.config)
        arrays = {name: self._array(name) for name in self.header}
        for name in rng.sample(sorted(config["tensors"]), rng.randint(1, 3)):
            for key in (name, f"{name}_scale", f"{name}_shift"):
                arrays.pop(key, None)
            entry = config["tensors"].pop(name)
            if rng.random() < 0.1:
                continue
            shape = (
                entry["shape"]
                if rng.random() < 0.6
                else [rng.choice([1, 16, 40, 65]), rng.choice([1, 32, 37, 64, 128])]
            )
            group, fmt, shift = rng.choice([32, 64, 128, shape[1]]), rng.choice(FORMATS), rng.random() < 0.3
            try:
                check_geometry(fmt, (shape[0], shape[1]), group, shift)
            except FormatError:
                fmt, group, shift = "f32", shape[1], False
            name = name if rng.random() < 0.9 else f"{name}.{rng.choice(['', '../x', 'é', 'weight'])}"
            config["tensors"][name] = {"format": fmt, "shape": shape, "group_size": group, "shift": shift}
            for part, (dtype, stored) in stored_shapes(fmt, (shape[0], shape[1]), group, shift).items():
                suffix = {"codes": "", "scale": "_scale", "shift": "_shift"}[part]
                values = rng.randbytes(int(np.prod(stored)) * dtype.itemsize)
                arrays[name + suffix] = np.frombuffer(values, dtype).reshape(stored)
                if suffix and rng.random() < 0.9:
                    arrays[name + suffix] = np.full(stored, rng.choice([0, 0.1, 1]), dtype)
        head, order = lay_out(arrays)
        return config, head + b"".join(arrays[name].tobytes() for name in order)

    def _array(self, name: str) -> Any:
        entry = self.header[name]
        dtype = {"U8": "u1", "F16": "<f2", "F32": "<f4"}[entry["dtype"]]
        start, end = entry["data_offsets"]
        return np.frombuffer(self.data[start:end], dtype).reshape(entry["shape"])

    def _file(self, header: str, rng: random.Random) -> bytes:
        raw = header.encode("utf-8", "surrogatepass")
        raw += b" " * (-(8 + len(raw)) % 64 if rng.random() < 0.9 else 1)
        return len(raw).to_bytes(8, "little") + raw + self.data


def change(value: Any, rng: random.Random) -> None:
    """One to three fields, anywhere in a JSON value: replaced, removed, renamed, added or swapped."""
    for _ in range(rng.randint(1, 3)):
        spots = list(places(value))
        container, key = rng.choice(spots)
        other, other_key = rng.choice(spots)
        way = rng.randrange(6)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, dict):
            container[rng.choice(["", "a", "__metadata__", "x" * 2000, f"{key}_scale", f"{key} "])] = container.pop(key)
        elif way == 2 and isinstance(container, dict):
            container[rng.choice(["a", "__metadata__", "text_config", "auto_map"])] = rng.choice(HOSTILE)
        elif way == 3:
            container[key] = copy.deepcopy(other[other_key])
        else:
            container[key] = rng.choice(HOSTILE)


def places(value: Any) -> Any:
    """(container, key) of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def resum(config: dict[str, Any], weights: bytes) -> bool:
    """Checksums of whatever tensors the header names; False where there is no reading it."""
    try:
        length = int.from_bytes(weights[:8], "little")
        header = json.loads(weights[8 : 8 + length])
        sums = {}
        for name, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            sums[name] = google_crc32c.value(weights[start:end])
        config["crc32c"] = sums
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return False
    return True
