"""Is a packed folder whole, and does this CPU compute it right?

    checksums and codes      the file is what was written
    integer kernels          every packed matrix, every instruction set of this CPU: bit-equal to numpy
    rotations and clips      likewise, where the model has them
    float kernels            the same matrices with float activations, against the float reference
    logits                   the engine with float activations, against the numpy interpreter

Activations are those the interpreter meets on a short sequence, so that their sizes are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet import interpreter, kernels, reference
from tercet.artifact import Artifact
from tercet.evaluate.quality import quality
from tercet.packing import PackedTensor, pack, unpack
from tercet.program import Op, Program
from tercet.runtime import Engine
from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["Verification", "verify"]

MAX_LOGIT_ERROR = 1e-4  # relative
MAX_KL = 1e-6
ROWS = 3  # tokens a matrix is checked with
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        ok: integer kernels, rotations and clips bit-equal everywhere, and the float path within `MAX_LOGIT_ERROR` and
            `MAX_KL`.
        max_abs_error: worst difference of a logit, engine with float activations against the interpreter.
        relative_error: its ratio to the largest logit.
        kl: KL(interpreter || engine) in nats a token.
        matrices: packed matrices checked; transforms: rotations and clips; checks: both, times instruction sets;
            mismatches: those not bit-equal.
        layer_error: worst relative error of a matrix product with float activations, and worst_layer where.
        isas: instruction sets checked.
    """

    ok: bool
    max_abs_error: float
    relative_error: float
    kl: float
    matrices: int
    transforms: int
    checks: int
    mismatches: int
    layer_error: float
    worst_layer: str
    isas: tuple[str, ...]

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
    engine = Engine.open(artifact, threads=threads, activations="float32", kv="float32")
    loose = {name: _floats(tensor) for name, tensor in artifact.tensors.items()}
    ids = np.random.default_rng(0).integers(0, engine.vocab_size, min(tokens, engine.context))
    inputs, transforms, expected = _run(engine.program, loose, ids)
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
    got = engine.logits(ids)
    difference = float(np.abs(got - expected).max())
    relative = difference / float(np.abs(expected).max())
    kl = quality(lambda _: got, ids[None], lambda _: expected).kl or 0.0
    worst = max(layers, key=lambda name: layers[name])
    ok = mismatches == 0 and relative < MAX_LOGIT_ERROR and abs(kl) < MAX_KL and layers[worst] < MAX_LOGIT_ERROR
    count = len(layers) - 1
    return Verification(
        ok=ok,
        max_abs_error=difference,
        relative_error=relative,
        kl=kl,
        matrices=count,
        transforms=len(transforms),
        checks=(count + len(transforms)) * len(isas),
        mismatches=mismatches,
        layer_error=layers[worst],
        worst_layer=worst,
        isas=isas,
    )


def _floats(tensor: PackedTensor | Floats) -> Floats:
    loose = unpack(tensor) if isinstance(tensor, PackedTensor) else tensor
    return loose.dequantize() if isinstance(loose, TernaryTensor | IntTensor) else loose.astype(np.float32)


def _run(
    program: Program, tensors: dict[str, Floats], ids: NDArray[np.int64]
) -> tuple[dict[str, Floats], list[tuple[Op, Floats, Floats]], Floats]:
    """What the interpreter feeds each matrix (float32[ROWS, in]); each rotation and clip with as many rows of input and
    result; the logits."""
    inputs: dict[str, Floats] = {}
    transforms: list[tuple[Op, Floats, Floats]] = []
    logits = np.empty((0, 0), np.float32)
    for op, arguments, result in interpreter.steps(program, tensors, ids):
        if op.kind == "linear":
            inputs[op.weight] = arguments[0][-ROWS:]
        elif op.kind in ("rotate", "clip"):
            transforms.append((op, arguments[0][-ROWS:], result[-ROWS:]))
        logits = result if op.output == "logits" else logits
    return inputs, transforms, logits


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
