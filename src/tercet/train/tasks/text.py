"""Student, teacher and losses as one module: what is trained, wrapped, sharded and saved.

    ids -> student's blocks -> hidden -> [head, chunk by chunk: divergence, ce] + off + hidden + relations -> loss
           teacher's blocks -> hidden -'

The student is a language model with quantizers on it. Its embedding and head are frozen here: they ship in int8, and
training sees the int8 values. The teacher is the model as it was; its linears may be held in bfloat16 where
products are computed in it anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from tercet.modules.module import Passed, ProgramModule
from tercet.program import Program
from tercet.quantizers import LrQat, quantized, recomputed
from tercet.recipe import Distil
from tercet.train import features
from tercet.train.head import Head, head_losses
from tercet.train.losses import cross_entropy, divergence, topk_divergence
from tercet.train.teacher import HeadOnly

__all__ = ["TextTask"]


class TextTask(nn.Module):
    """Attributes: student, teacher (None where no loss needs one), settings.

    `forward` takes a batch {"ids": int64[windows, tokens]}, and what is stored of the teacher: its hidden states
    "teacher" float16[windows, tokens, width] (then `teacher` is its head only), or, where `settings.top_k` is set,
    "values" float16[windows, tokens, k] and "index" int[windows, tokens, k]. It returns {"loss": ..., and each of its
    parts}, 0-dim.
    """

    def __init__(self, student: ProgramModule, teacher: ProgramModule | HeadOnly | None, settings: Distil) -> None:
        super().__init__()
        self.student = student
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.settings = settings
        self._inside = _Inside(student.description.text, settings)
        self._heads: dict[
            int, tuple[Tensor, int, Tensor]
        ] = {}  # of each model: a weight, its version, what it was cast to
        # Dense weights made of low-rank factors are computed again in backward rather than kept.
        self._recomputes = any(isinstance(quantizer, LrQat) for _, quantizer, _ in quantized(student))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ids = batch["ids"]
        with recomputed() if self._recomputes else nullcontext():
            own = self._inside.passed(self.student, ids)
        wanted, other = batch["teacher"].flatten(0, 1) if "teacher" in batch else None, None
        if isinstance(self.teacher, ProgramModule) and wanted is None:
            with torch.no_grad():
                other = self._inside.passed(self.teacher, ids)
            wanted = other.result.flatten(0, 1)
        loss, parts = own.result.new_zeros((), dtype=torch.float32), dict[str, Tensor]()
        if self.settings.kl or self.settings.ce:
            rows = _Rows(self, ids, batch, wanted)
            loss, parts = head_losses(own.result.flatten(0, 1), self.head(self.student), rows)
        if other is not None:
            for name, value in self._inside.losses(own, other).items():
                loss = loss + getattr(self.settings, name) * value
                parts[name] = value.detach()
        return {"loss": loss, **parts}

    def head(self, model: ProgramModule | HeadOnly) -> Head:
        """The frozen head's weight, in the dtype of products, cast once; and its bias."""
        weight, bias = model.head()
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        if dtype == weight.dtype:
            return Head(weight.detach(), bias)
        held = self._heads.get(id(model))
        if held is None or held[0] is not weight or held[1] != weight._version:
            held = weight, weight._version, weight.detach().to(dtype)
            self._heads[id(model)] = held
        return Head(held[2], bias)


class _Inside:
    """What the losses look at inside a model: blocks' outputs, and queries, keys and values of the last of them."""

    def __init__(self, program: Program, settings: Distil) -> None:
        self.settings = settings
        self.blocks = bool(settings.off or settings.hidden)
        self.chosen = range(len(program.blocks)) if settings.blocks is None else settings.blocks
        names = program.blocks[self.chosen[-1]] if settings.relations else ()
        self.taps = tuple(name for name in names if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")))
        self.head_dim = next(op.head_dim for op in program.ops if op.kind == "attention")

    def passed(self, model: ProgramModule, ids: Tensor) -> Passed:
        made: Passed = model("text", ids, blocks=self.blocks, taps=self.taps)
        return made

    def _chosen(self, passed: Passed) -> list[Tensor]:
        """[tokens, width] behind each chosen block, and for the last one behind the final norm, as in transformers."""
        if not self.blocks:
            return []
        behind = [*passed.blocks[:-1], passed.result.flatten(0, -2)]
        return [behind[index] for index in self.chosen]

    def losses(self, own: Passed, other: Passed) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        one, two = (self._chosen(passed) for passed in (own, other))
        if self.settings.off:
            found["off"] = features.cosine(one, two)
        if self.settings.hidden:
            found["hidden"] = features.relative(one, two)
        if self.settings.relations:
            s, t = ([passed.taps[name] for name in self.taps] for passed in (own, other))
            found["relations"] = features.relations(s, t, self.head_dim)
        return found


class _Rows:
    """`RowLosses` of one batch."""

    def __init__(self, task: TextTask, ids: Tensor, batch: Mapping[str, Tensor], wanted: Tensor | None) -> None:
        self.settings = task.settings
        self.wanted = wanted
        self.teacher_head = None if task.teacher is None else task.head(task.teacher)
        self.labels = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -100)], 1).flatten()
        self.stored = None
        if self.settings.top_k:
            self.stored = batch["values"].flatten(0, 1), batch["index"].flatten(0, 1)

    def __call__(self, logits: Tensor, rows: slice) -> dict[str, tuple[float, Tensor]]:
        found: dict[str, tuple[float, Tensor]] = {}
        settings, labels = self.settings, self.labels[rows]
        if self.stored is not None:
            found["kl"] = settings.kl, topk_divergence(logits, self.stored[0][rows], self.stored[1][rows].long())
        elif settings.kl and self.wanted is not None and self.teacher_head is not None:
            with torch.no_grad():
                teacher = self.teacher_head(self.wanted[rows])
            found["kl"] = settings.kl, divergence(settings.divergence, logits, teacher, labels)
        if settings.ce:
            found["ce"] = settings.ce, cross_entropy(logits, labels)
        return found
