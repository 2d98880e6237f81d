"""Ten thousand damaged and hostile folders: refused with our error, or sound; no crash, no hang, no memory.

A folder that opens is verified; one that verifies must unpack; and whatever opens, verified or not, is given to the
engine, which may refuse it, or compute anything, but in one piece.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import folders
from mutants import Mutant, Mutator
from tercet.artifact import Artifact, read_header
from tercet.errors import FormatError, TercetError
from tercet.packing import PackedTensor, unpack
from tercet.runtime import Engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folders.save(tmp_path / "model")
    return tmp_path / "model"


def put(folder: Path, mutant: Mutant) -> None:
    (folder / "config.json").write_bytes(mutant.config)
    (folder / "model.safetensors").write_bytes(mutant.weights)


def judge(folder: Path) -> str:
    """How far a folder gets; raises whatever is not our error."""
    opened: list[Artifact] = []
    if refusal(lambda: opened.append(Artifact.open(folder)), FormatError):
        return "refused"
    found = refusal(lambda: check(opened[0]), FormatError)
    assert not found or "damaged" in found or "invalid" in found
    verdict = "found by verify" if found else "verified"
    if refusal(lambda: Engine.open(opened[0], threads=1).logits([1, 2, 3]), TercetError):
        return f"{verdict}, refused by the engine"
    return f"{verdict}, computed"


def refusal(action: Callable[[], object], kind: type[TercetError]) -> str:
    try:
        action()
    except kind as error:
        message = str(error)
    else:
        return ""
    assert 0 < len(message) < 2000
    assert "\n" not in message
    return message


def check(artifact: Artifact) -> None:
    artifact.verify()
    for tensor in artifact.tensors.values():
        if isinstance(tensor, PackedTensor):
            assert unpack(tensor).shape == tensor.shape


def sweep(folder: Path, numbers: range) -> Counter[str]:
    mutator, verdicts, summed = Mutator(folder), Counter[str](), 0
    assert judge(folder) == "verified, computed"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        mutant = mutator.make(number)
        summed += mutant.summed
        put(folder, mutant)
        start = time.process_time()
        try:
            verdict = judge(folder)
        except Exception as error:
            raise AssertionError(f"mutant {number} ({mutant.kind}): {error!r}") from error
        assert time.process_time() - start < 2, f"mutant {number} ({mutant.kind}) takes too long"
        verdicts[verdict] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10, f"{grown} kB more"
    assert summed >= 0.3 * len(numbers)
    print(dict(verdicts))
    return verdicts


def test_ten_thousand_mutants(folder: Path) -> None:
    verdicts = sweep(folder, range(10_000))
    # Every way out is taken, or the mutants test less than they say.
    for verdict in ("refused", "found by verify, refused by the engine", "found by verify, computed",
                    "verified, refused by the engine", "verified, computed"):  # fmt: skip
        assert verdicts[verdict] >= 50, verdicts


@pytest.mark.slow
def test_a_hundred_thousand_mutants(folder: Path) -> None:
    sweep(folder, range(10_000, 110_000))


def test_every_truncation_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw, entries = path.read_bytes(), read_header(path).values()
    header_end = min(entry.start for entry in entries)
    edges = {edge + step for entry in entries for edge in (entry.start, entry.end) for step in (-1, 0, 1)}
    for size in sorted({*range(header_end + 1), *edges}, reverse=True):
        if size < len(raw):
            with path.open("r+b") as file:
                file.truncate(size)
            with pytest.raises(FormatError):
                Artifact.open(folder)
    path.write_bytes(raw + b"\0")
    with pytest.raises(FormatError, match="bytes were added"):
        Artifact.open(folder)


def test_every_flipped_bit_is_detected(folder: Path) -> None:
    """Each byte of the header, and every 61st of the data; the bit goes round."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    header_end = min(entry.start for entry in read_header(path).values())
    for turn, at in enumerate([*range(header_end), *range(header_end, len(raw), 61)]):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([raw[at] ^ 1 << (turn + at) % 8]))
        with pytest.raises(FormatError):
            Artifact.open(folder, check=True)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(raw[at : at + 1])
    Artifact.open(folder, check=True)
