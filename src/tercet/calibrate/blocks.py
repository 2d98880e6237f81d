"""The walk through the model: block by block, stage by stage, float model and quantized prefix side by side.

Two streams of activations go through each block: one with the original weights, one where everything before is
already quantized. A stage (`tercet.program.blocks`) stops both at linears that share an input, sums their statistics
chunk by chunk, solves, and goes on with the quantized weights. With `reconstruct` a solved block is trained before the
walk goes on (`tercet.calibrate.reconstruct`). Only a block's weights, its statistics and the buffers
still to be read are in memory. Nothing is drawn at random: the same windows, settings and threads give the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.calibrate.cache import BlockCache
from tercet.calibrate.final_norm import fit_gains, fit_sureness
from tercet.calibrate.keep import Quantized, dequantized, refuse_not_finite, rounded
from tercet.calibrate.reconstruct import Piece, forward, reconstruct
from tercet.calibrate.solve import solve
from tercet.calibrate.statistics import Statistics
from tercet.calibrate.tables import fitted_tables
from tercet.modules.ops import Buffers, counted, run
from tercet.program import Op, Program
from tercet.program.blocks import Stage, block_ops, live, residuals, stages
from tercet.program.hadamard import rotated
from tercet.quantizers import Levels, QuantizerConfig
from tercet.recipe import Calibrate, Planned

__all__ = ["Solved", "Walk", "calibrate"]

CHUNK_TOKENS = 2048
UNSEEN = 5  # of so many chunks the last is set aside for what must not be fitted on tokens already fitted
SPARSE = 4  # of its tokens one in so many is enough


def calibrate(
    program: Program,
    tensors: Mapping[str, NDArray[np.float32]],
    plan: Mapping[str, Planned],
    windows: NDArray[np.int64] | NDArray[np.float32],
    settings: Calibrate,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    spent: Callable[[float], None] | None = None,
) -> dict[str, Quantized]:
    """Every planned matrix, those with a quantizer calibrated on `windows`, and a decoder's last norm, fitted.

    Args:
        program: of the model, a decoder or a tower.
        tensors: float32 arrays by full name; each block's are read when it is its turn.
        plan: from `Recipe.plan`.
        windows: int64[n, context], the calibration tokens; float32[n, patches, columns] of an image tower.
        settings: of the recipe.
        cache: folder where finished blocks are kept; a second call with the same arguments takes them from there.
        progress: called with (blocks done, blocks) after each block.
        spent: called with the CPU-seconds (of all threads of this process) of each part of the work; for a block from
            the cache with those it took when it was made.

    Raises QuantizeError where weights do not fit their quantizer.
    """
    tables = fitted_tables(program, tensors, plan, windows)
    walk = Walk(program, plan, settings, torch.from_numpy(windows))
    walk.tables = tables
    kept = BlockCache(cache, plan, windows, settings) if cache else None
    blocks = block_ops(program)
    solved: dict[str, Quantized] = {}
    for index, ops in enumerate(blocks):
        begin = time.process_time()
        names = [name for op in ops for name in (op.weight, op.bias) if name]
        weights = {name: np.array(tensors[name], np.float32) for name in names}
        refuse_not_finite(weights)
        known, seconds = None, 0.0
        if kept:
            kept.enter(ops, weights, [tables[name].codes for name in names if name in tables])
            known, seconds = kept.load() or (None, 0.0)
        found = walk.block(ops, weights, known or {})
        if settings.reconstruct:
            found |= walk.reconstruct(ops, weights, found, known)
        if known is None:
            seconds = time.process_time() - begin
            if kept:
                kept.save({name: found[name] for name in found if name not in plan or plan[name].quantizer}, seconds)
        solved.update(found)
        if spent:
            spent(seconds)
        if progress:
            progress(index + 1, len(blocks))
    begin = time.process_time()
    rest = [name for name in program.weights if name in plan and name not in solved]
    solved.update({name: tables.get(name) or rounded(tensors[name], plan[name], name) for name in rest})
    walk.forget()
    head = program.ops[-1]
    if head.output == "logits":
        rows, block = dequantized(solved[head.weight]), program.rotations.get(head.weight)
        norm = program.last_norm
        solved[norm.weight] = walk.last_norm(
            norm, tensors[norm.weight], rotated(rows, block).astype(np.float32) if block else rows
        )
    if spent:
        spent(time.process_time() - begin)
    return solved


class Solved(Protocol):
    """What solving makes of a matrix."""

    def dequantize(self) -> Tensor:
        """float32[out, in], what the quantized model goes on with."""

    def to_tensor(self) -> Quantized:
        """What is kept of it."""


@dataclass(frozen=True, eq=False)
class _Trained:
    """A block that may be trained: its original weights, what they have become, and the stream in front of it."""

    ops: Sequence[Op]
    original: Mapping[str, Tensor]
    solved: Mapping[str, Quantized]
    entries: list[Buffers]


class Walk:
    """Both streams, as far as they have come: for each chunk of windows, the buffers of the two models."""

    def __init__(
        self,
        program: Program,
        plan: Mapping[str, Planned],
        settings: Calibrate,
        windows: Tensor,
    ) -> None:
        self.program = program
        self.plan = plan
        self.settings = settings
        self.tables: Mapping[str, Quantized] = {}  # embedding and head, where they are fitted beforehand
        self.ahead = program.ops  # not run yet
        chunks = torch.split(windows, max(1, CHUNK_TOKENS // windows.shape[1]))
        source = program.ops[0].inputs[0]
        self.streams: list[tuple[Buffers, Buffers]] = [({source: rows}, {source: rows}) for rows in chunks]
        self.counted = [counted(program, rows) for rows in chunks]
        self.seen = len(chunks) - len(chunks) // UNSEEN  # the last ones choose, what the others' statistics offer
        self.entries: list[Buffers] = []  # of the quantized stream, in front of the block that `block` was in
        self.behind: _Trained | None = None  # the block before, where two are trained together

    @torch.no_grad()
    def block(
        self, ops: Sequence[Op], weights: Mapping[str, NDArray[np.float32]], known: Mapping[str, Quantized]
    ) -> dict[str, Quantized]:
        """Solve a block's matrices, or take them from `known`, and lead both streams through it."""
        original = {name: torch.from_numpy(weight) for name, weight in weights.items()}
        quantized = dict(original)
        solved: dict[str, Quantized] = {name: known[name] for name in weights if name in known}
        if self.settings.reconstruct:
            self.entries = [dict(ternary) for _, ternary in self.streams]
        linears = {op.weight for op in ops if op.kind == "linear"}
        for name in weights:
            if name in self.plan and name not in solved and (not self.plan[name].quantizer or name not in linears):
                solved[name] = self.tables.get(name) or rounded(weights[name], self.plan[name], name)
        quantized.update({name: torch.from_numpy(dequantized(tensor)) for name, tensor in solved.items()})
        for stage in stages(ops):
            statistics = self._advance(stage, original, quantized, [] if known else self._unsolved(stage))
            if not statistics:
                continue
            for name, levels in self._solve(stage, *statistics).items():
                solved[name] = levels.to_tensor()
                quantized[name] = levels.dequantize()
        return solved

    @torch.no_grad()
    def reconstruct(
        self,
        ops: Sequence[Op],
        weights: Mapping[str, NDArray[np.float32]],
        found: Mapping[str, Quantized],
        known: Mapping[str, Quantized] | None,
    ) -> dict[str, Quantized]:
        """Train the block that `block` found, with the one before it where two are trained; lead the stream through.

        Args:
            known: what training gave an earlier run; then nothing is trained.
        """
        settings = self.settings.reconstruct
        assert settings is not None
        own = _Trained(ops, {name: torch.from_numpy(weight) for name, weight in weights.items()}, found, self.entries)
        trained = [own] if self.behind is None else [self.behind, own]
        pieces = [Piece(each.ops, each.original, {**each.solved, **(known or {})}) for each in trained]
        # Only the windows that statistics are made of: the others are to stay unseen.
        if known is None:
            pairs = zip(trained[0].entries[: self.seen], self.streams, strict=False)
            entries, targets = zip(*((entry, floats[ops[-1].output]) for entry, (floats, _) in pairs), strict=True)
            reconstruct(self.program, pieces, entries, targets, ops[-1].output, settings)
        solved = {name: tensor for piece in pieces for name, tensor in piece.solved().items()}
        needed = live(self.ahead)
        for (_, ternary), entry in zip(self.streams, trained[0].entries, strict=True):
            after = forward(self.program, pieces, entry)
            ternary.clear()
            ternary.update({name: after[name] for name in needed})
        if settings.blocks == 2:
            self.behind = _Trained(ops, own.original, {**found, **solved}, self._between(trained, pieces))
        return solved

    def _between(self, trained: Sequence[_Trained], pieces: Sequence[Piece]) -> list[Buffers]:
        """The stream in front of the last of the pieces, as the pieces before it are now."""
        if len(pieces) == 1:
            return trained[0].entries
        return [forward(self.program, pieces[:-1], entry) for entry in trained[0].entries]

    def forget(self) -> None:
        """Drop what only the blocks needed."""
        self.entries, self.behind = [], None

    @torch.no_grad()
    def last_norm(self, op: Op, weight: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weight of the norm before the head, fitted to the dequantized `head`."""
        plain = {op.weight: torch.full(weight.shape, 1 - op.offset), op.bias: torch.zeros(weight.shape)}
        for streams in self.streams:
            for buffers in streams:
                run(self.program, op, buffers, plain)
        pairs = [(ternary[op.output], floats[op.output]) for floats, ternary in self.streams]
        before, rows = torch.from_numpy(weight + np.float32(op.offset)), torch.from_numpy(head)
        gains = fit_gains(pairs[: self.seen], before, rows)
        if self.seen < len(pairs):
            unseen = [
                torch.cat([x.flatten(0, 1)[::SPARSE] for x in each]) for each in zip(*pairs[self.seen :], strict=True)
            ]
            gains *= fit_sureness(unseen[0] * gains, unseen[1] * before, rows)
        return gains.numpy() - np.float32(op.offset)

    def _unsolved(self, stage: Stage) -> list[Op]:
        return [op for op in stage.linears if self.plan[op.weight].quantizer is not None]

    def _advance(self, stage: Stage, original: Buffers, quantized: Buffers, wanted: Sequence[Op]) -> list[Statistics]:
        """Run both streams up to the stage's linears; sum what solving the `wanted` ones needs, of the unseen chunks
        apart."""
        self.ahead = self.ahead[len(stage.before) :]
        needed = live(self.ahead)
        joined = {op.weight: residuals(op, self.ahead[stage.linears.index(op) :]) for op in wanted}
        settings, statistics = self.settings, list[Statistics]()
        if wanted:
            weights = {op.weight: original[op.weight] for op in wanted}
            statistics = [
                Statistics(weights, inputs=settings.correction, residual=settings.residual)
                for _ in range(2 if self.seen < len(self.streams) else 1)
            ]
        for index, (floats, ternary) in enumerate(self.streams):
            for buffers, weights in ((floats, original), (ternary, quantized)):
                for op in stage.before:
                    run(self.program, op, buffers, weights)
                for name in set(buffers) - needed:
                    del buffers[name]
            if statistics:
                source, these = wanted[0].inputs[0], self.counted[index]
                apart = {
                    weight: torch.stack([floats[name] - ternary[name] for name in names]).sum(0)[these]
                    for weight, names in joined.items()
                    if names
                }
                sums = statistics[index >= self.seen]
                sums.add(ternary[source][these], floats[source][these], apart)
        return statistics

    def _solve(self, stage: Stage, statistics: Statistics, unseen: Statistics | None = None) -> Mapping[str, Solved]:
        """Levels of the stage's matrices; those with the same quantizer are solved as one, row under row."""
        settings = self.settings
        together: dict[QuantizerConfig, list[str]] = {}
        for op in self._unsolved(stage):
            config = self.plan[op.weight].quantizer
            assert config is not None
            together.setdefault(config, []).append(op.weight)
        found: dict[str, Levels] = {}
        for config, names in together.items():
            wanted = [statistics.chosen(name, unseen) if unseen else statistics.corrected(name) for name in names]
            levels = solve(
                torch.cat(wanted), statistics.hessian, config, damping=settings.damping, sweeps=settings.sweeps
            )
            ends = list(accumulate((len(weight) for weight in wanted), initial=0))
            found.update({name: levels.rows(slice(*rows)) for name, rows in zip(names, pairwise(ends), strict=True)})
        return found
