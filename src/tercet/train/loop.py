"""The training loop: a task, windows of tokens and settings in; a trained task, checkpoints and a journal out.

    for each step:  rates and quantizers' schedule
                    accumulation x (forward, backward)        averaged over processes
                    guard, clip, optimizer                    nothing that is not finite goes further
                    quantizers' after_step
                    count codes, evaluate, journal            now and then
                    checkpoint                                every so often, at the end, and on Ctrl-C

The run is a function of its inputs: the windows of a step follow from its number, all other state is in the checkpoint.
Killed at any moment and started again with the same call, it ends with the same bits, as long as versions, threads and
instruction set are the same; `tercet.train.identity` refuses to go on where they are not.

Nothing is printed: records go to the caller's `progress`, remarks to the log. One task is trained here, whatever its
model, losses and quantizers are; block-wise stages are other tasks in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tercet.errors import TrainError
from tercet.modules.module import ProgramModule
from tercet.modules.precision import uses_bfloat16
from tercet.quantizers import quantized
from tercet.recipe.settings import Train
from tercet.train.checkpoint import Checkpoint, Checkpoints
from tercet.train.clock import Clock
from tercet.train.data import Batches
from tercet.train.identity import check, identity
from tercet.train.interrupt import Interrupt
from tercet.train.journal import Journal
from tercet.train.parameters import optimizer_of, set_rates, trained
from tercet.train.processes import Processes, whole
from tercet.train.random_state import pack_state, restore_state
from tercet.train.state import all_finite, optimizer_tensors, restore_optimizer, restore_weights, weight_tensors
from tercet.train.statistics import Statistics

__all__ = ["Evaluation", "Record", "Result", "train"]

Resume = bool | Literal["anyway"]

Record = Callable[[Mapping[str, Any]], None]
"""Called with each record of the journal."""

Evaluation = Callable[[nn.Module], Mapping[str, float]]
"""The task, in eval mode and without gradients -> numbers by name."""

COUNTS = 20  # of codes, over the whole run: one takes longer than the quantizers of a forward pass
APART = 10  # steps at least between two of them: one costs about as much as a step


@dataclass(frozen=True)
class Result:
    """What `train` did.

    Attributes:
        folder: with journal.jsonl and checkpoints/.
        step: done in all; resumed: of them before this call.
        record: the journal's last line.
        sharded: the task has only this process's part of what was trained; `load_weights` gives a whole task all of it.
    """

    folder: Path
    step: int
    resumed: int
    record: Mapping[str, Any]
    sharded: bool


def train(
    task: nn.Module,
    windows: NDArray[np.int64] | Mapping[str, NDArray[Any]],
    settings: Train,
    folder: str | Path,
    *,
    identified: Mapping[str, Any] | None = None,
    evaluate: Evaluation | None = None,
    progress: Record | None = None,
    resume: Resume = True,
) -> Result:
    """Trains those parameters of a task that require gradients, in place; leaves it in eval mode. Seeds torch.

    Args:
        task: forward(batch) -> {"loss": 0-dim, and what else the journal is to have}, means over the batch's windows.
        windows: int64[n, context]; or arrays of n rows by name, "ids" among them. Batches have the same names.
        folder: of this run; made if need be.
        identified: what else decides the result, plain JSON; a checkpoint with another is refused.
        evaluate: called before the first and after the last step and as `settings.evaluate_every` says, on every
            process; where the task is sharded, it has to call the task itself.
        progress: on the first process.
        resume: go on from the newest checkpoint, if there is one; "anyway": also where settings, data, modules or
            versions are not those it was made with; False: remove what is there and begin.

    Raises, in one line each, TrainError: a loss, gradient or weight that is not finite (no checkpoint has it), nothing
    to train, a checkpoint of another run; StorageError: no space; FormatError: all checkpoints damaged. After Ctrl-C
    it saves, then raises KeyboardInterrupt.
    """
    arrays = windows if isinstance(windows, Mapping) else {"ids": windows}
    processes = Processes()
    batches = Batches(arrays, settings, processes.index, processes.count)
    made_of = identity(task, arrays, settings, processes, identified)
    run = _Run(task, batches, settings, Path(folder), processes, made_of, evaluate, progress)
    with run.interrupt:
        try:
            resumed = run.begin(resume)
            while run.step < settings.steps:
                run.advance()
        finally:
            run.close()
    return Result(run.folder, run.step, resumed, run.record, processes.sharded)


class _Run:
    """One call of `train`. Attributes: step: so many are done; record: the journal's last line."""

    def __init__(
        self,
        task: nn.Module,
        batches: Batches,
        settings: Train,
        folder: Path,
        processes: Processes,
        made_of: Mapping[str, Any],
        evaluate: Evaluation | None,
        progress: Record | None,
    ) -> None:
        self.task, self.batches, self.settings, self.folder = task, batches, settings, folder
        self.processes, self.made_of = processes, made_of
        self.evaluate, self.progress = evaluate, progress
        self.step = 0
        self.record: Mapping[str, Any] = {}
        self.bfloat16 = uses_bfloat16(settings.precision, processes.device)
        if settings.gradient_checkpointing:
            _recompute(task)
        self.model = processes.wrap(task)
        self.optimizer = optimizer_of(task, settings)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.interrupt, self.statistics, self.clock = Interrupt(), Statistics(), Clock()
        self.journal: Journal | None = None

    def begin(self, resume: Resume) -> int:
        """Goes back to the newest checkpoint, or measures the start; returns the step."""
        torch.manual_seed(self.settings.seed + self.processes.index)
        found = self.processes.first_does(lambda: self._found(resume))
        if found is not None:
            self._restore(Checkpoint(self.checkpoints.folder / found[0], *found[1:]))
        self.processes.first_does(lambda: self._open_journal(None if found is None else self.step))
        self._modes()
        self._schedule()
        if found is None:
            self.statistics.count(self.task)
            evaluation = self._evaluation()
            if evaluation:
                self._write({"step": 0, "evaluation": evaluation})
        return self.step

    def advance(self) -> None:
        """One step."""
        rates = set_rates(self.optimizer, self.step, self.settings)
        losses, stop = self._passes()
        gradient = self._checked_gradient(losses)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        with torch.no_grad():
            for _, quantizer, latent in quantized(self.task):
                quantizer.after_step(latent)
        self._schedule()
        record = {
            "step": self.step,
            "epoch": self.batches.epoch(self.step),
            "tokens": self.step * self.batches.tokens_a_step,
            "loss": losses.pop("loss"),
            "parts": losses,
            "rates": rates,
            "gradient": gradient,
        }
        if self._due(max(APART, self.settings.steps // COUNTS)):
            record |= self.statistics.count(self.task)
        evaluation = self._evaluation() if self._due(self.settings.evaluate_every) else {}
        if evaluation:
            record["evaluation"] = evaluation
        self._write(record)
        if stop or self._due_to_save():
            self._save()
        if stop and self.step < self.settings.steps:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.task.eval()
        if self.journal is not None:
            self.journal.close()

    def _passes(self) -> tuple[dict[str, float], bool]:
        """Forward and backward of all passes: the mean of each loss, and whether a process was asked to stop."""
        count, sums = self.settings.accumulation, dict[str, float]()
        device = self.processes.device
        for index, batch in enumerate(self.batches(self.step)):
            with nullcontext() if index + 1 == count else self.processes.unsynced(self.model):
                with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
                    losses = self.model({name: value.to(device) for name, value in batch.items()})
                (losses["loss"] / count).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / count
        *means, stop = self.processes.mean([*sums.values(), float(self.interrupt.asked)])
        return dict(zip(sums, means, strict=True)), stop > 0

    def _checked_gradient(self, losses: Mapping[str, float]) -> float:
        """Clips; the norm before that."""
        gradients = torch.nn.utils.clip_grad_norm_(trained(self.task).values(), self.settings.clip)
        norm = float(whole(gradients))
        wrong = [f"{name} {value}" for name, value in {**losses, "gradient": norm}.items() if not math.isfinite(value)]
        if wrong:
            what = ", ".join(wrong)
            raise TrainError(f"step {self.step + 1}: {what}; no checkpoint has it: lower the rates, or mend the data")
        return norm

    def _due(self, every: int | None) -> bool:
        return self.step == self.settings.steps or (every is not None and self.step % every == 0)

    def _due_to_save(self) -> bool:
        """What is sharded is whole again only in a checkpoint."""
        every = self.settings.checkpoint_every
        return self._due(every) if every is not None or self.processes.sharded else False

    def _schedule(self) -> None:
        for _, quantizer, _ in quantized(self.task):
            quantizer.schedule(self.step / self.settings.steps)

    def _modes(self) -> None:
        """Parts without anything to train, such as a teacher, stay in eval mode."""
        self.task.train()
        for child in self.task.children():
            child.train(any(parameter.requires_grad for parameter in child.parameters()))

    def _evaluation(self) -> dict[str, float | None]:
        if self.evaluate is None:
            return {}
        with self.clock.paused(), torch.no_grad():
            self.task.eval()
            found = self.evaluate(self.task)
            self._modes()
        return {name: float(value) if math.isfinite(value) else None for name, value in found.items()}

    def _write(self, record: dict[str, Any]) -> None:
        self.clock.lap()
        (cpu,) = self.processes.mean([self.clock.cpu_seconds])
        times = {"seconds": round(self.clock.seconds, 3), "cpu_seconds": round(cpu * self.processes.count, 3)}
        self.record = {**record, **times}
        self.processes.first_does(self._tell)

    def _tell(self) -> None:
        if self.journal is not None:
            self.journal.write(self.record)
        if self.progress is not None:
            self.progress(self.record)

    def _save(self) -> None:
        weights, moments = weight_tensors(self.task), optimizer_tensors(self.task, self.optimizer)
        (finite,) = self.processes.mean([float(all_finite([*weights.values(), *moments.values()]))])
        if finite < 1:
            raise TrainError(f"step {self.step}: weights are not finite, and not saved; lower the rates")
        facts = {
            "made_of": self.made_of,
            "record": self.record,
            "zeros": self.statistics.start,
            "random": [data.decode() for data in self.processes.gather(pack_state(self.processes.device))],
        }
        files = {"weights": weights, "optimizer": moments, "codes": self.statistics.codes}
        self.processes.first_does(self._sync)
        self.checkpoints.save(self.step, facts, files, self.processes)

    def _sync(self) -> None:
        if self.journal is not None:
            self.journal.sync()

    def _open_journal(self, step: int | None) -> None:
        self.journal = Journal(self.folder / "journal.jsonl", step, self.made_of)

    def _found(self, resume: Resume) -> tuple[str, int, Mapping[str, Any]] | None:
        """Name, step and facts of the checkpoint to go on from."""
        self.checkpoints.clean()
        if not resume:
            self.checkpoints.clear()
        checkpoint = self.checkpoints.newest()
        if checkpoint is None:
            return None
        if resume != "anyway":
            check(checkpoint.facts["made_of"], self.made_of, str(self.folder))
        return checkpoint.path.name, checkpoint.step, checkpoint.facts

    def _restore(self, checkpoint: Checkpoint) -> None:
        restore_weights(self.task, checkpoint.tensors("weights"))
        restore_optimizer(self.task, self.optimizer, checkpoint.tensors("optimizer"))
        self.step, self.record = checkpoint.step, checkpoint.facts["record"]
        self.statistics = Statistics(dict(checkpoint.tensors("codes")), checkpoint.facts["zeros"])
        cpu = self.record["cpu_seconds"] if self.processes.first else 0.0
        self.clock = Clock(self.record["seconds"], cpu)
        states = checkpoint.facts["random"]
        restore_state(states[self.processes.index % len(states)].encode(), self.processes.device)


def _recompute(task: nn.Module) -> None:
    """Gradient checkpointing in the models that are trained."""
    for module in task.children():
        if isinstance(module, ProgramModule):
            module.recomputes = any(p.requires_grad for p in module.parameters())
