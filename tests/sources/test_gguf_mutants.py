"""Files changed where it hurts: only our own errors come out, and never more memory than the file is worth."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import pytest

import gguf_files
from tercet.errors import FormatError, ModelError
from tercet.sources.gguf.convert import plan
from tercet.sources.gguf.reader import GGUFFile

INTERESTING = [0, 1, 2, 3, 7, 8, 9, 31, 33, 64, 255, 4096, 4097, 1 << 16, (1 << 29) - 1, 1 << 29, 1 << 31, 1 << 32]
INTERESTING += [(1 << 32) - 1, 1 << 40, 1 << 61, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 32]


def convert(path: Path) -> str:
    """All that conversion does but writing; says how far it came. Any error but ours goes through."""
    try:
        gguf = GGUFFile(path)
    except FormatError:
        return "refused by the reader"
    with gguf:
        try:
            for _ in plan(gguf).weights():
                pass
        except (FormatError, ModelError):
            return "refused by the converter"
    return "converted"


def mutate(raw: gguf_files.Raw, rng: random.Random) -> bytes:
    data = bytearray(raw.data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        what = rng.randrange(8)
        _, at, fmt = rng.choice(raw.fields)
        if what <= 3:
            size = struct.calcsize(fmt)
            old = int.from_bytes(data[at : at + size], "little")
            new = rng.choice([*INTERESTING, old + 1, old - 1, old ^ (1 << rng.randrange(8 * size)), old * 2])
            data[at : at + size] = (new & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif what == 4 and len(data) > 1:
            data = data[: rng.randrange(len(data))]
        elif what == 5:
            place = rng.randrange(len(data) + 1)
            data[place:place] = rng.randbytes(rng.choice((1, 4, 8, 32)))
        elif what == 6:
            a, b = rng.choice(raw.fields)[1], rng.choice(raw.fields)[1]
            data[at : at + 8] = data[min(a, b) : min(a, b) + 8]
        else:
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        if not data:
            break
    return bytes(data)


def relayout(rng: random.Random) -> bytes:
    """A file whose layout is right and whose content is not: these reach the converter."""
    pairs, tensors = dict(gguf_files.SMALL), dict(gguf_files.SMALL_TENSORS)
    for _ in range(rng.choice((1, 1, 2))):
        key, name = rng.choice(list(pairs)), rng.choice(list(tensors))
        what = rng.randrange(6)
        if what == 0 and len(pairs) > 2:
            del pairs[key]
        elif what == 1 and len(tensors) > 2:
            del tensors[name]
        elif what == 2:
            tensors[name] = ([32 * rng.randrange(1, 4) for _ in range(rng.randrange(1, 4))], tensors[name][1])
        elif what == 3:
            tensors[rng.choice((name + "x", "blk.1.attn_q.weight", "rope_freqs.weight", "output.weight"))] = ([32], 0)
        elif what == 4:
            pairs[key] = rng.choice(
                [0, 1, 5, 1 << 29, -1.0, float("nan"), float("inf"), "", "a", True, ["a"], [1], [-1]]
            )
        elif isinstance(pairs[key], list):
            pairs[key] = [rng.choice(pairs[key]) for _ in range(rng.randrange(1, 12))]
    return bytes(gguf_files.small(pairs, tensors).data)


def run(count: int, seed: int, folder: Path) -> dict[str, int]:
    rng, raw = random.Random(seed), gguf_files.small()
    path = folder / "mutant.gguf"
    outcomes: dict[str, int] = {}
    for _ in range(count):
        path.write_bytes(relayout(rng) if rng.random() < 0.3 else mutate(raw, rng))
        outcome = convert(path)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_the_file_that_is_mutated_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf_files.small().data)
    assert convert(path) == "converted"


def test_ten_thousand_mutants_raise_only_our_errors(tmp_path: Path) -> None:
    outcomes = run(10_000, 1, tmp_path)
    # Mutants must reach every stage, or the test shows less than it says.
    assert min(outcomes.values()) > 1_000
    assert len(outcomes) == 3


@pytest.mark.slow
def test_a_hundred_thousand_mutants(tmp_path: Path) -> None:
    assert sum(run(100_000, 2, tmp_path).values()) == 100_000


def test_memory_stays_bounded(tmp_path: Path) -> None:
    run(1, 0, tmp_path)  # imports of the decoder do not count
    tracemalloc.start()
    try:
        run(500, 3, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data, path = bytes(gguf_files.small().data), tmp_path / "whole.gguf"
    path.write_bytes(data)
    with GGUFFile(path) as gguf:
        starts = [info.start for info in gguf.tensors.values()]
        last = max(info.start + info.nbytes for info in gguf.tensors.values())
    edges = {place + step for place in [*starts, last] for step in (-1, 0, 1) if place + step < last}
    for length in sorted({*range(min(starts)), *edges}):
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            GGUFFile(path)
