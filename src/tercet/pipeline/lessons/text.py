"""Language models: calibrated on windows of a text, taught by the original's logits, examined by perplexity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tercet import data as texts
from tercet.data.mixture import cut, drawn, evenly
from tercet.data.texts import Text, choose, refuse_unreadable
from tercet.evaluate import quality
from tercet.evaluate.originals import ModuleLogits
from tercet.modules.module import ProgramModule
from tercet.modules.precision import uses_bfloat16
from tercet.pipeline.against_original import Rounds, compare_with_original, protocol
from tercet.pipeline.lessons.lesson import Data, Examined, Taught, Validation
from tercet.pipeline.making import Making, Watch
from tercet.recipe import Calibrate, Distil, Train
from tercet.runtime import Tokenizer
from tercet.train import TextTask
from tercet.train.teacher import HeadOnly, stored_hidden, stored_logits

__all__ = ["EVALUATION_SEED", "TextLesson"]

EVALUATION_SEED = 1 << 32  # of generated text, far from any calibration seed a person would choose
VALIDATION = 4096  # tokens that perplexity is measured on while training
GENERATED = 1 << 18  # tokens the model writes where there is no text and no number is given


class TextLesson:
    """See `tercet.pipeline.lessons.lesson.Lesson`."""

    def __init__(self, making: Making, data: Data, threads: int | None, before: TextLesson | None = None) -> None:
        self.making, self.data, self.threads = making, data, threads
        self._texts: dict[tuple[str, int, int], Text] = before._texts if before else {}
        self._learnt: NDArray[np.int64] | None = None
        recipe = making.recipe
        refuse_unreadable(
            None if making.calibrate is None else data.text or making.calibrate.text,
            None if recipe.distil is None else self._settings.text,
            data.eval_text or recipe.evaluate.text if data.examine else None,
        )

    @property
    def _settings(self) -> Distil:
        assert isinstance(self.making.recipe.distil, Distil)  # the plan has refused others
        return self.making.recipe.distil

    @property
    def _how(self) -> Train:
        assert self.making.recipe.train is not None
        return self.making.recipe.train

    def inputs(self, part: str, settings: Calibrate, watch: Watch) -> NDArray[Any]:  # noqa: ARG002 - there is one part
        """int64[n, context] of the training split."""
        # From all over the text: a few whole articles would say less about the model's inputs than parts of many.
        return drawn(self._windows(self._calibrated_on(settings), settings.window), settings.tokens, settings.seed)

    @property
    def extent(self) -> tuple[int, ...]:
        return ()

    def learnt(self) -> NDArray[np.int64]:
        """int64[n, context]: what training reads, and no more: a stored teacher answers to nothing else."""
        if self._learnt is None:
            how = self._how
            cuts = self._windows(self._distilled_on(), how.context)
            width = next(iter(cuts.values())).shape[1]
            read = how.steps * how.batch * how.accumulation * width
            self._learnt = drawn(cuts, min(read, self._settings.tokens or read), how.seed)
        return self._learnt

    def digest(self) -> str:
        learnt = self.learnt()
        return hashlib.sha256(f"{learnt.shape}".encode() + np.ascontiguousarray(learnt).tobytes()).hexdigest()

    def teach(self, cache: Path, watch: Watch) -> Taught:
        settings, learnt = self._settings, self.learnt()
        if not settings.has_teacher:
            return Taught(None, {"ids": learnt})
        teacher = ProgramModule(self.making.model, self.making.source.tensors()).eval().requires_grad_(False)
        bfloat16 = uses_bfloat16(self._how.precision, torch.device("cpu"))
        if bfloat16:
            _halve(teacher)
        key = {"source": self.making.source.origin, "rotated": self.making.source.config.get("tercet")}

        def progress(done: int, total: int) -> None:
            watch.step("ask the teacher", done, total)

        if settings.top_k:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                answers = stored_logits(teacher, learnt, settings.top_k, cache, key, progress)
            return Taught(None, {"ids": learnt, **answers})
        if settings.teacher == "stored":
            answers = stored_hidden(teacher, learnt, cache, key, progress, bfloat16=bfloat16)
            return Taught(HeadOnly(teacher), {"ids": learnt, **answers})
        return Taught(teacher, {"ids": learnt})

    def task(self, student: ProgramModule, teacher: nn.Module | None) -> TextTask:
        assert teacher is None or isinstance(teacher, ProgramModule | HeadOnly)
        return TextTask(student, teacher, self._settings)

    def control(self, module: ProgramModule) -> tuple[TextTask, Mapping[str, Any]]:
        return TextTask(module, None, Distil(kl=0, ce=1, activations="a16")), {"ids": self.learnt()}

    def again(self, making: Making) -> TextLesson:
        return TextLesson(making, self.data, self.threads, self)

    def validation(self) -> Validation | None:
        """The perplexity on the validation split of the default text, all kinds alike, in the products that training
        computes with: a curve to choose by, three times as quick as float32."""
        if texts.default_texts("validation") is None:
            return None
        how = self._how
        chosen = evenly(self._windows(choose("default", "validation"), how.context), VALIDATION)

        def measured(task: nn.Module) -> dict[str, float]:
            assert isinstance(task, TextTask)
            device = next(task.student.parameters()).device
            with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(how.precision, device)):
                return {"perplexity": quality(ModuleLogits(task.student), chosen).perplexity}

        return measured

    def examine(self, folders: Mapping[str, Path], watch: Watch) -> Examined:
        settings, source = self.making.recipe.evaluate, self.making.source
        text = choose(self.data.eval_text or settings.text, "test", source, settings.tokens, EVALUATION_SEED)
        rows = compare_with_original(source, folders, text, settings, watch.step, Rounds(threads=self.threads))
        return Examined(rows, protocol(text, settings))

    def record(self) -> dict[str, Any]:
        settings = self.making.calibrate
        record = {"text": None if settings is None else self._calibrated_on(settings).origin}
        return record if self.making.recipe.distil is None else {**record, "distilled": self._distilled_on().origin}

    def provenance(self) -> str:
        settings = self.making.calibrate
        made = "rounded, without calibration" if settings is None else f"calibrated on {self._calibrated_on(settings)}"
        return made if self.making.recipe.distil is None else f"{made}, then distilled on {self._distilled_on()}"

    def _calibrated_on(self, settings: Calibrate) -> Text:
        return self._text(self.data.text or settings.text, settings.tokens, settings.seed)

    def _distilled_on(self) -> Text:
        return self._text(self._settings.text, self._settings.tokens or GENERATED, self._how.seed)

    def _text(self, wanted: str | Path, tokens: int, seed: int) -> Text:
        """Of the training split, read or written once for all lessons that came from one."""
        key = str(wanted), tokens, seed
        if key not in self._texts:
            self._texts[key] = choose(wanted, "train", self.making.source, tokens, seed)
        return self._texts[key]

    def _windows(self, text: Text, context: int) -> dict[str, NDArray[np.int64]]:
        tokenizer = Tokenizer.open(self.making.source.folder)

        def encode(content: str) -> list[int]:
            return tokenizer.encode(content, around=False)

        return cut(text, encode, min(context, self.making.model.text.context), tokenizer.prefix())


def _halve(teacher: ProgramModule) -> None:
    """Its linears in bfloat16: products are computed in it, so each step would cast them."""
    for name in teacher.description.linears:
        parameter = teacher.get_parameter(name)
        parameter.data = parameter.data.bfloat16()
