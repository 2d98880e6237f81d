"""A 4-bit embedding and head, fitted to what the float model makes of calibration's text.

The head reads the last norm's rows: their second moments weigh its errors. A tied table is looked up too, where every
column counts alike:

    D = H / mean(diag H) + share * 1,   H = sum h h^T of the head's inputs
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.calibrate.integers import fitted_integers
from tercet.calibrate.keep import refuse_not_finite
from tercet.errors import QuantizeError
from tercet.modules.ops import Buffers, run
from tercet.program import Program
from tercet.program.blocks import live
from tercet.recipe import Planned
from tercet.tensor import IntTensor

__all__ = ["fitted_tables"]

TOKENS = 8192  # a head's inputs have some hundred to some thousand columns
LOOKED_UP, READ = 0.3, 0.03  # shares; on SmolLM2-135M .1 to .3 differ by less than the noise
CHUNK = 2048


@torch.no_grad()
def fitted_tables(
    program: Program,
    tensors: Mapping[str, NDArray[np.float32]],
    plan: Mapping[str, Planned],
    windows: NDArray[np.int64] | NDArray[np.float32],
) -> dict[str, IntTensor]:
    """The embedding and the head of a language model, those of them that are planned as int4.

    Args:
        windows: int64[n, context] of calibration; some thousand tokens are read.

    Raises QuantizeError where values do not fit.
    """
    first, head = program.ops[0], program.ops[-1]
    wanted = [name for name in dict.fromkeys((first.weight, head.weight)) if name in plan and plan[name].keep == "int4"]
    if head.output != "logits" or not wanted:
        return {}
    made = {}
    moments = _moments(program, tensors, torch.from_numpy(windows)) if head.weight in wanted else None
    for name in wanted:
        share = LOOKED_UP if name == first.weight else READ
        hessian = None if name != head.weight or moments is None else moments + share * torch.eye(len(moments))
        made[name] = _fitted(name, tensors[name], plan[name].group_size, hessian)
    return made


def _fitted(name: str, tensor: NDArray[np.float32], group: int, hessian: Tensor | None) -> IntTensor:
    weight = np.array(tensor, np.float32)
    refuse_not_finite({name: weight})
    try:
        return fitted_integers(weight, group, hessian)
    except QuantizeError as error:
        raise QuantizeError(f"{name}: {error}") from None


def _moments(program: Program, tensors: Mapping[str, NDArray[np.float32]], windows: Tensor) -> Tensor:
    """H / mean(diag H), float32[width, width]; one operation at a time, for all of the text."""
    count = max(1, TOKENS // windows.shape[1])
    chunks = windows[:count].split(max(1, CHUNK // windows.shape[1]))  # type: ignore[no-untyped-call]
    streams: list[Buffers] = [{program.reads: rows} for rows in chunks]
    *ops, head = program.ops
    for index, op in enumerate(ops):
        read = {name: np.array(tensors[name], np.float32) for name in (op.weight, op.bias) if name}
        refuse_not_finite(read)
        weights = {name: torch.from_numpy(tensor) for name, tensor in read.items()}
        needed = live([*ops[index + 1 :], head])
        for buffers in streams:
            run(program, op, buffers, weights)
            for name in set(buffers) - needed:
                del buffers[name]
    rows = torch.cat([buffers[head.inputs[0]].flatten(0, -2) for buffers in streams])
    moments = rows.T @ rows
    if not moments.isfinite().all():
        raise QuantizeError("the original's own results are not finite on this text; mend the model first")
    return moments / moments.diagonal().mean().clamp_min(1e-12)
