"""What the codes of a student do while it is trained: zeros, flips, scales.

    zeros   share of codes that are 0
    flips   share of codes that differ from those at the count before
    scale   mean, smallest and largest of all groups

Learned scales can drift until nine weights of ten are zero, and the loss does not show it for long: so the first matrix
whose share of zeros has moved by more than 10 points since the start is named in the log. Codes are compared packed,
two bits each; a checkpoint keeps them, so that a resumed run counts the same flips.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from tercet.quantizers import Levels, quantized

__all__ = ["Statistics"]

log = logging.getLogger("tercet.train")

POINTS = 0.10


class Statistics:
    """Attributes: codes: packed, at the last count, by name; start: share of zeros at the first one, by name."""

    def __init__(self, codes: Mapping[str, Tensor] | None = None, start: Mapping[str, float] | None = None) -> None:
        self.codes = dict(codes or {})
        self.start = dict(start or {})
        self.warned = False

    def count(self, task: nn.Module) -> dict[str, Any]:
        """Counts anew; empty where nothing is quantized. Where the task is sharded, every process has to ask."""
        weights = zeros = flips = 0
        shares: dict[str, float] = {}
        scales: list[Tensor] = []
        for name, levels in _solved(task):
            packed = _packed(levels.codes)
            if name in self.codes:
                flips += _differences(packed, self.codes[name])
            self.codes[name] = packed
            count = levels.codes.numel()
            empty = count - int(torch.count_nonzero(levels.codes))
            weights, zeros = weights + count, zeros + empty
            shares[name] = empty / count
            scales.append(levels.scale.flatten().double().cpu())
        if not weights:
            return {}
        self.start = self.start or shares
        self._warn(shares)
        scale = torch.cat(scales)
        return {
            "zeros": zeros / weights,
            "flips": flips / weights,
            "scale": {"mean": float(scale.mean()), "min": float(scale.min()), "max": float(scale.max())},
        }

    def _warn(self, shares: Mapping[str, float]) -> None:
        worst = max(shares, key=lambda name: abs(shares[name] - self.start[name]))
        before, now = self.start[worst], shares[worst]
        if abs(now - before) > POINTS and not self.warned:
            self.warned = True
            text = (
                "%s: %.0f %% of the codes were zeros at the start, now %.0f %%; a lower scale_lr holds the scales back"
            )
            log.warning(text, worst, 100 * before, 100 * now)


@torch.no_grad()
def _solved(task: nn.Module) -> Iterator[tuple[str, Levels]]:
    """The levels of each quantized weight, while `catq` is soft too. Sharded weights are gathered a block at a time."""
    units = {path: module for path, module in task.named_modules() if hasattr(module, "unshard")} or {"": task}
    for path, unit in units.items():
        if hasattr(unit, "unshard"):
            cast(Any, unit).unshard()
        for inner, quantizer, latent in quantized(unit):
            name = f"{path}.{inner}" if path else inner
            owner = max((other for other in units if not other or name.startswith(f"{other}.")), key=len)
            if owner == path:
                yield name, quantizer.solve(latent)
        if hasattr(unit, "reshard"):
            cast(Any, unit).reshard()


def _packed(codes: Tensor) -> Tensor:
    """uint8[ceil(n / 4)] on the CPU: two bits of each of four codes, in one byte."""
    flat = codes.reshape(-1)
    fours = nn.functional.pad(flat, (0, -len(flat) % 4)).view(torch.int32) & 0x03030303
    return (fours | fours >> 6 | fours >> 12 | fours >> 18).to(torch.uint8).cpu()


def _differences(one: Tensor, other: Tensor) -> int:
    """Codes that differ."""
    bits = one ^ other
    return sum(int(torch.count_nonzero(bits & 3 << place)) for place in (0, 2, 4, 6))
