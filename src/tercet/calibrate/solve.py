"""One set of rows that share an input: from weights and Hessian to ternary levels, in closed form.

    start (the quantizer's own scales) -> error feedback -> refit -> sweeps x (coordinate descent -> refit)

Errors are against W', weighted by the damped Hessian of the quantized inputs.
"""

from __future__ import annotations

from torch import Tensor

from tercet.calibrate.descent import sweep
from tercet.calibrate.feedback import error_feedback
from tercet.calibrate.refit import refit
from tercet.calibrate.statistics import damped
from tercet.quantizers import Levels, QuantizerConfig

__all__ = ["solve"]


def solve(weight: Tensor, hessian: Tensor, config: QuantizerConfig, *, damping: float, sweeps: int) -> Levels:
    """Ternary (or binary) levels of float32[out, in] for the inputs' float32[in, in] Hessian.

    Raises QuantizeError as `Quantizer.solve` does.
    """
    quantizer = config.build()
    binary = quantizer.binary
    hessian = damped(hessian, damping)
    start = quantizer.solve(quantizer.start(weight))
    codes = error_feedback(weight, hessian, start, binary=binary)
    levels = refit(weight, hessian, Levels(codes, start.scale, start.shift), binary=binary)
    for _ in range(sweeps):
        codes = sweep(weight, hessian, levels, binary=binary)
        levels = refit(weight, hessian, Levels(codes, levels.scale, levels.shift), binary=binary)
    return levels
