"""Is a packed folder whole, and does this CPU compute it right?

    checksums and codes      every file of the folder is what was written
    integer kernels          every packed matrix, every instruction set of this CPU: bit-equal to numpy
    rotations and clips      likewise, where the model has them
    float kernels            the same matrices with float activations, against the float reference
    logits, or embeddings    the engine with float activations, against the numpy interpreter

Activations are those the interpreter meets on a short sequence (of both towers: a picture and a text), so that their
sizes are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet import families, kernels
from tercet.artifact import Artifact
from tercet.evaluate.text import quality
from tercet.packing import PackedTensor, pack, reference, unpack
from tercet.program import Op, Program, interpreter
from tercet.program.patches import patches
from tercet.runtime import Engine
from tercet.runtime.pictures.encoder import Encoder
from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["Verification", "verify"]

MAX_ERROR = 1e-4  # relative, of a product, a logit or an embedding
MAX_KL = 1e-6
ROWS = 3  # tokens a matrix is checked with
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        ok: integer kernels, rotations and clips bit-equal everywhere, and the float path within
            `MAX_ERROR` and `MAX_KL`.
        compared: "logits", of a language model, or "embeddings".
        max_abs_error: worst difference of one of them, engine with float activations against the interpreter.
        relative_error: its ratio to the largest one.
        kl: KL(interpreter || engine) in nats a token; None of embeddings.
        matrices: packed matrices checked; transforms: rotations and clips; checks: both, times instruction sets;
            mismatches: those not bit-equal.
        layer_error: worst relative error of a matrix product with float activations, and worst_layer where.
        isas: instruction sets checked.
        sealed: whether the folder has checksums of all its files, which then are right; else of its tensors alone.
    """

    ok: bool
    compared: str
    max_abs_error: float
    relative_error: float
    kl: float | None
    matrices: int
    transforms: int
    checks: int
    mismatches: int
    layer_error: float
    worst_layer: str
    isas: tuple[str, ...]
    sealed: bool

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def verify(
    folder: str | Path,
    *,
    tokens: int = 32,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Verification:
    """Checks a packed folder on this CPU; `tokens` is the length of the sequence it is run on.

    Raises FormatError where the file is damaged.
    """
    artifact = Artifact.open(Path(folder), check=True)
    loose = _Loose(artifact.tensors)
    towers = families.model(artifact.config["model"]).kind == "pair"
    passes = _towers(artifact, tokens, threads) if towers else _decoder(artifact, tokens, threads)
    inputs: dict[str, Floats] = {}
    transforms: list[tuple[Op, Floats, Floats]] = []
    outputs = [(_run(each, loose, inputs, transforms), each.computed()) for each in passes]
    isas = tuple(kernels.backends())
    mismatches = sum(_check_transform(*transform, isas) for transform in transforms)
    layers = {"": 0.0}
    for done, (name, x) in enumerate(inputs.items(), start=1):
        tensor = artifact.tensors[name]
        if isinstance(tensor, PackedTensor):
            wrong, error = _check_matrix(tensor, loose[name], x, isas)
            mismatches += wrong
            layers[name] = error
        if progress is not None:
            progress("check matrices", done, len(inputs))
    absolute = float(np.max([np.abs(got - expected).max() for expected, got in outputs]))
    relative = float(np.max([np.abs(got - expected).max() / np.abs(expected).max() for expected, got in outputs]))
    kl = None if towers else _divergence(*outputs[0])
    worst = max(layers, key=lambda name: layers[name])
    same = relative < MAX_ERROR and layers[worst] < MAX_ERROR and abs(kl or 0.0) < MAX_KL
    count = len(layers) - 1
    return Verification(
        ok=mismatches == 0 and same,
        compared="embeddings" if towers else "logits",
        max_abs_error=absolute,
        relative_error=relative,
        kl=kl,
        matrices=count,
        transforms=len(transforms),
        checks=(count + len(transforms)) * len(isas),
        mismatches=mismatches,
        layer_error=layers[worst],
        worst_layer=worst,
        isas=isas,
        sealed=artifact.sealed,
    )


@dataclass(frozen=True)
class _Pass:
    """One sequence: the program, what it reads, and what the engine makes of it with float activations."""

    program: Program
    rows: NDArray[np.generic]
    computed: Callable[[], Floats]


class _Loose(Mapping[str, Floats]):
    """Packed matrices as float32, each unpacked when it is asked for: all at once would be many times the file."""

    def __init__(self, tensors: Mapping[str, PackedTensor | Floats]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Floats:
        return _floats(self._tensors[name])

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _decoder(artifact: Artifact, tokens: int, threads: int | None) -> list[_Pass]:
    engine = Engine.open(artifact, threads=threads, activations="float32", kv="float32")
    ids = np.random.default_rng(0).integers(0, engine.vocab_size, min(tokens, engine.context))
    return [_Pass(engine.program, ids, lambda: engine.logits(ids))]


def _towers(artifact: Artifact, tokens: int, threads: int | None) -> list[_Pass]:
    encoder = Encoder.open(artifact, threads=threads, activations="float32")
    rng, towers = np.random.default_rng(0), encoder.towers
    pixels = rng.normal(size=(1, 3, *encoder.image_size)).astype(np.float32)
    vocabulary = towers.text.weights[towers.text.ops[0].weight].shape[0]
    ids = rng.integers(0, vocabulary, (1, min(tokens, encoder.context)))
    return [
        _Pass(towers.image, patches(pixels, towers.pixels.patch)[0], lambda: encoder.encode_pixels(pixels)),
        _Pass(towers.text, ids[0], lambda: encoder.encode_ids(ids)),
    ]


def _divergence(expected: Floats, got: Floats) -> float:
    ids = np.zeros((1, len(got)), np.int64)  # which tokens they are does not matter to the divergence
    return quality(lambda _: got, ids, lambda _: expected).kl or 0.0


def _floats(tensor: PackedTensor | Floats) -> Floats:
    loose = unpack(tensor) if isinstance(tensor, PackedTensor) else tensor
    return loose.dequantize() if isinstance(loose, TernaryTensor | IntTensor) else loose.astype(np.float32)


def _run(
    of: _Pass, tensors: Mapping[str, Floats], inputs: dict[str, Floats], transforms: list[tuple[Op, Floats, Floats]]
) -> Floats:
    """The interpreter's result, the last operation's. Adds what it feeds each matrix (float32[ROWS, in]) to `inputs`,
    and each rotation and clip with as many rows of input and result to `transforms`."""
    result = np.empty((0, 0), np.float32)
    for op, arguments, result in interpreter.steps(of.program, tensors, of.rows):
        if op.kind == "linear":
            inputs[op.weight] = arguments[0][-ROWS:]
        elif op.kind in ("rotate", "clip"):
            transforms.append((op, arguments[0][-ROWS:], result[-ROWS:]))
    return result


def _check_transform(op: Op, x: Floats, expected: Floats, isas: tuple[str, ...]) -> int:
    """Instruction sets whose rotation or clip is not the interpreter's."""
    found = (
        kernels.rotate(x, op.dim, isa=isa) if op.kind == "rotate" else kernels.clip(x, op.limit, isa=isa)
        for isa in isas
    )
    return sum(not np.array_equal(y, expected) for y in found)


def _check_matrix(packed: PackedTensor, weight: Floats, x: Floats, isas: tuple[str, ...]) -> tuple[int, float]:
    """Instruction sets whose integer product is not numpy's, and the worst relative error of the float product."""
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    size = float(np.abs(exact).max()) or 1.0
    loose = unpack(packed)
    wrong, worst = 0, 0.0
    for isa in isas:
        converted = packed.format in ("t5", "t19") and not kernels.reads(packed.format, isa)
        read = pack(loose, "t2") if converted else packed  # as the engine does
        if not isinstance(loose, np.ndarray):
            wrong += not np.array_equal(kernels.matmul(read, x, isa=isa), reference.linear(loose, x))
        floats = kernels.matmul(read, x, isa=isa, activations="float32")
        worst = max(worst, float(np.abs(floats - exact).max()) / size)
    return wrong, worst
