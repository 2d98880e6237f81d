"""Block-wise reconstruction: what closed forms leave, trained away one or two blocks at a time.

    min  mean over tokens of |B(x_q; latents, scales, norms) - y_f|^2 / |y_f|^2

x_q is the input behind everything quantized before it, y_f what the float model has behind the block: it
mends the errors it inherits, too. Each token counts alike, though a few are huge. The windows are those of
calibration, gone through `epochs` times; no head, no loss over the vocabulary, memory of one or two blocks. (BRECQ,
arXiv:2102.05426, and OmniQuant, arXiv:2308.13137, do the same with other things trained. A second block behind the
first one slides over the model as in CBQ, arXiv:2312.07950.)

Levels are trained by `tercet.quantizers.learned`, whatever rule chose them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tercet.calibrate.keep import Quantized, dequantized
from tercet.modules.ops import Buffers, run
from tercet.modules.precision import uses_bfloat16
from tercet.program import Op, Program
from tercet.quantizers import Learned, Levels
from tercet.recipe import Reconstruct
from tercet.tensor import TernaryTensor

__all__ = ["Piece", "forward", "reconstruct"]

WARMUP = 0.1  # of the steps


class Piece:
    """A block with its levels and norms as parameters.

    Args:
        ops: of the block.
        original: float32 weights as pretrained, by name: where latent weights begin.
        solved: what the block's matrices have become, by name; ternary ones are trained.
    """

    def __init__(self, ops: Sequence[Op], original: Mapping[str, Tensor], solved: Mapping[str, Quantized]) -> None:
        self.ops = ops
        self.fixed: Buffers = {}
        self.vectors: dict[str, nn.Parameter] = {}
        self.latents: dict[str, nn.Parameter] = {}
        self.quantizers: dict[str, Learned] = {}
        for name, weight in original.items():
            tensor = solved.get(name)
            if isinstance(tensor, TernaryTensor):
                levels = Levels.from_tensor(tensor)
                binary = not bool((levels.codes == 0).any())
                group = weight.shape[1] // levels.scale.shape[1]
                quantizer = Learned(group if levels.scale.shape[1] > 1 else "row", tensor.shift is not None, binary)
                self.latents[name] = nn.Parameter(quantizer.start(weight, levels))
                self.quantizers[name] = quantizer
                continue
            values = weight.clone() if tensor is None else torch.from_numpy(dequantized(tensor))
            if weight.ndim == 1:
                self.vectors[name] = nn.Parameter(values)
            else:
                self.fixed[name] = values

    def weights(self) -> Buffers:
        made: Buffers = {**self.fixed, **self.vectors}
        return made | {name: self.quantizers[name](latent) for name, latent in self.latents.items()}

    def solved(self) -> dict[str, Quantized]:
        """Ternary tensors and norms as they are now."""
        found: dict[str, Quantized] = {name: self.quantizers[name].freeze(w) for name, w in self.latents.items()}
        return found | {name: vector.detach().numpy().copy() for name, vector in self.vectors.items()}

    def groups(self, settings: Reconstruct) -> list[dict[str, object]]:
        scales = [p for quantizer in self.quantizers.values() for p in quantizer.parameters()]
        return [
            {"params": list(self.latents.values()), "lr": settings.lr},
            {"params": scales, "lr": settings.scale_lr},
            {"params": list(self.vectors.values()), "lr": settings.scale_lr},
        ]


def forward(program: Program, pieces: Sequence[Piece], entry: Buffers) -> Buffers:
    """The buffers behind the pieces' blocks, from those in front of them."""
    buffers = dict(entry)
    for piece in pieces:
        weights = piece.weights()
        for op in piece.ops:
            run(program, op, buffers, weights)
    return buffers


def reconstruct(
    program: Program,
    pieces: Sequence[Piece],
    entries: Sequence[Buffers],
    targets: Sequence[Tensor],
    output: str,
    settings: Reconstruct,
) -> tuple[float, float]:
    """Train the pieces; the mean relative error of the first and of the last epoch.

    Args:
        entries: buffers in front of the first piece's block, for each chunk of windows.
        targets: float32[windows, tokens, width], the float model's stream behind the last piece's block.
        output: the name of that buffer.
    """
    groups = [group for piece in pieces for group in piece.groups(settings)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = np.random.default_rng(settings.seed)
    steps, step, errors = settings.epochs * len(entries), 0, []
    for _ in range(settings.epochs):
        total = 0.0
        for index in generator.permutation(len(entries)):
            share = min(1.0, (step + 1) / (WARMUP * steps)) * (1 + math.cos(math.pi * step / steps)) / 2
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            total += _step(program, pieces, entries[index], targets[index], output, optimizer, settings)
            step += 1
        errors.append(total / len(entries))
    return errors[0], errors[-1]


def _step(
    program: Program,
    pieces: Sequence[Piece],
    entry: Buffers,
    target: Tensor,
    output: str,
    optimizer: torch.optim.Optimizer,
    settings: Reconstruct,
) -> float:
    bfloat16 = uses_bfloat16(settings.precision, target.device)
    with torch.enable_grad(), torch.autocast(target.device.type, torch.bfloat16, enabled=bfloat16):
        found = forward(program, pieces, entry)[output].float()
    with torch.enable_grad():
        apart = (found - target).square().sum(-1) / target.square().sum(-1).clamp_min(1e-12)
        loss = apart.mean()
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return float(loss.detach())
