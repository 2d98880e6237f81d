"""Student, teacher and losses of an image-text model as one module, trained by the same loop as any `Task`.

    pictures -> student's image tower -> Is -.            It from the disk, or a live teacher where blocks are compared
    texts    -> student's text tower  -> Ts -+-> losses -'

Unpaired pictures and texts join their tower's batch and are learnt by their distance to the teacher alone: a picture
needs no caption for that, and a text no picture. Logit scale and bias stay the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tercet.modules.module import Passed, ProgramModule
from tercet.recipe import ClipDistil
from tercet.train import clip_losses as losses
from tercet.train.features import cosine

__all__ = ["PairTask"]

Pair = tuple[Passed, Passed]  # of the image tower and of the text tower
TEACHER = ("image_teacher", "text_teacher")


class PairTask(nn.Module):
    """Attributes: student, teacher (None where its embeddings are stored), settings.

    `forward` takes a batch of pairs

        "patches" float[n, patches, columns], "ids" int64[n, length], "groups" int64[n]

    and of the teacher, where it is stored, "image_teacher", "text_teacher" float[n, dim]. Unpaired rows are called
    "more_patches", "more_image_teacher", "more_ids", "more_text_teacher"; there may be any number of them. It returns
    {"loss": ..., and each of its parts}, 0-dim.
    """

    def __init__(self, student: ProgramModule, teacher: ProgramModule | None, settings: ClipDistil) -> None:
        super().__init__()
        self.student = student
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.settings = settings

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A caption is right for each picture that has it.
        same = torch.unique(batch["ids"], dim=0, return_inverse=True)[1]
        right = (batch["groups"][:, None] == batch["groups"]) | (same[:, None] == same)
        patches, ids = _joined(batch, "patches").float(), _joined(batch, "ids")
        own = self._encoded(self.student, patches, ids)
        other = None
        if self.teacher is not None:
            with torch.no_grad():
                other = self._encoded(self.teacher, patches, ids)
        parts = self._parts(own, other, batch, right)
        loss = torch.stack([getattr(self.settings, name) * value for name, value in parts.items()]).sum()
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def _parts(self, own: Pair, other: Pair | None, batch: Mapping[str, Tensor], right: Tensor) -> dict[str, Tensor]:
        pairs, settings, parts = len(batch["ids"]), self.settings, dict[str, Tensor]()
        both = [losses.normalised(each.result) for each in own]
        (image, text), scale, bias = (rows[:pairs] for rows in both), self.student.scale, self.student.bias
        if settings.task and bias is not None:
            parts["task"] = losses.sigmoid(image, text, scale, bias, right)
        elif settings.task:
            parts["task"] = losses.contrastive(image, text, scale, right)
        if not settings.has_teacher:
            return parts
        made = [each.result for each in other] if other else [_joined(batch, name) for name in TEACHER]
        wanted = [losses.normalised(rows) for rows in made]
        image_t, text_t = (rows[:pairs] for rows in wanted)
        if settings.fd:
            parts["fd"] = losses.distance(both[0], wanted[0]) + losses.distance(both[1], wanted[1])
        if settings.icl:
            parts["icl"] = losses.interactive(image, text, image_t, text_t, scale, right)
        if settings.ckd:
            parts["ckd"] = losses.relational(image, text, image_t, text_t, scale)
        if settings.off:
            assert other is not None
            towers = [cosine(one.blocks, two.blocks) for one, two in zip(own, other, strict=True)]
            parts["off"] = torch.stack(towers).mean()
        return parts

    def _encoded(self, model: ProgramModule, patches: Tensor, ids: Tensor) -> Pair:
        blocks = bool(self.settings.off)
        return model("image", patches, blocks=blocks), model("text", ids, blocks=blocks)


def _joined(batch: Mapping[str, Tensor], name: str) -> Tensor:
    """Rows of pairs, then unpaired ones."""
    more = batch.get(f"more_{name}")
    return batch[name] if more is None else torch.cat([batch[name], more])
