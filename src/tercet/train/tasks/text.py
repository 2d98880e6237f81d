"""Student, teacher and losses as one module: what is trained, wrapped, sharded and saved.

    ids -> student's blocks -> hidden -> [head, chunk by chunk: divergence, ce] + off + hidden + relations -> loss
           teacher's blocks -> hidden -'

The student is any transformers causal model with quantizers on it. Its embedding and head are frozen here: they ship in
int8, and training sees the int8 values. The teacher is the model as it was; its linears may be held in bfloat16 where
products are computed in it anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tercet.quantizers import LrQat, quantized, recomputed
from tercet.recipe import Distil
from tercet.train import features
from tercet.train.head import head_losses
from tercet.train.losses import cross_entropy, divergence, topk_divergence

__all__ = ["Task"]


class Task(nn.Module):
    """Attributes: student, teacher (None where no loss needs one), settings.

    `forward` takes a batch {"ids": int64[windows, tokens]}, and what is stored of the teacher: its hidden states
    "teacher" float16[windows, tokens, width] (then `teacher` is its head only), or, where `settings.top_k` is set,
    "values" float16[windows, tokens, k] and "index" int[windows, tokens, k]. It returns {"loss": ..., and each of its
    parts}, 0-dim.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None, settings: Distil) -> None:
        super().__init__()
        self.student = student
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.settings = settings
        self._heads: dict[int, tuple[int, Tensor]] = {}
        # Dense weights made of low-rank factors are computed again in backward rather than kept.
        self._recomputes = any(isinstance(quantizer, LrQat) for _, quantizer, _ in quantized(student))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ids = batch["ids"]
        own = _Run(self.student, self.settings)
        with recomputed() if self._recomputes else nullcontext():
            hidden = own(ids)
        wanted = batch["teacher"].flatten(0, 1) if "teacher" in batch else None
        other = _Run(self.teacher, self.settings) if self.teacher is not None and wanted is None else None
        if other is not None:
            with torch.no_grad():
                wanted = other(ids).flatten(0, 1)
        loss, parts = hidden.new_zeros((), dtype=torch.float32), dict[str, Tensor]()
        if self.settings.kl or self.settings.ce:
            rows = _Rows(self, ids, batch, wanted)
            loss, parts = head_losses(hidden.flatten(0, 1), self.head(self.student), rows)
        for name, value in self._features(own, other).items():
            loss = loss + getattr(self.settings, name) * value
            parts[name] = value.detach()
        return {"loss": loss, **parts}

    def head(self, model: nn.Module) -> Tensor:
        """The frozen head's weight, in the dtype of products; cast once."""
        weight: Tensor = model.get_output_embeddings().weight  # type: ignore[operator]
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        if dtype == weight.dtype:
            return weight.detach()
        held = self._heads.get(id(weight))
        if held is None or held[0] != weight._version:
            held = weight._version, weight.detach().to(dtype)
            self._heads[id(weight)] = held
        return held[1]

    def _features(self, own: _Run, other: _Run | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if other is None:
            return found
        if self.settings.off:
            found["off"] = features.cosine(own.blocks, other.blocks)
        if self.settings.hidden:
            found["hidden"] = features.relative(own.blocks, other.blocks)
        if self.settings.relations:
            config = self.student.config.get_text_config()  # type: ignore[union-attr, operator]
            size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            found["relations"] = features.relations(own.projections, other.projections, int(size))
        return found


class _Run:
    """One pass of a model, and what the losses need of its inside."""

    def __init__(self, model: Any, settings: Distil) -> None:
        self.model = model
        self.settings = settings
        self.blocks: Sequence[Tensor] = ()
        self.projections: list[Tensor] = []

    def __call__(self, ids: Tensor) -> Tensor:
        wanted = bool(self.settings.off or self.settings.hidden)
        handles = self._watch() if self.settings.relations else []
        try:
            output = self.model.get_decoder()(input_ids=ids, use_cache=False, output_hidden_states=wanted)
        finally:
            for handle in handles:
                handle.remove()
        if wanted:
            after = output.hidden_states[1:]  # of each block; the first are the embeddings
            chosen = range(len(after)) if self.settings.blocks is None else self.settings.blocks
            self.blocks = [after[index] for index in chosen]
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _watch(self) -> list[Any]:
        """Hooks on the projections of the last of the chosen blocks."""
        layers = next(m for m in self.model.get_decoder().modules() if isinstance(m, nn.ModuleList))
        block = layers[-1 if self.settings.blocks is None else self.settings.blocks[-1]]
        return [
            module.register_forward_hook(lambda _m, _i, output: self.projections.append(output))
            for name, module in block.named_modules()
            if name.endswith(("q_proj", "k_proj", "v_proj"))
        ]


class _Rows:
    """`RowLosses` of one batch."""

    def __init__(self, task: Task, ids: Tensor, batch: Mapping[str, Tensor], wanted: Tensor | None) -> None:
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
                teacher = self.wanted[rows].to(self.teacher_head.dtype) @ self.teacher_head.T
            found["kl"] = settings.kl, divergence(settings.divergence, logits, teacher, labels)
        if settings.ce:
            found["ce"] = settings.ce, cross_entropy(logits, labels)
        return found
