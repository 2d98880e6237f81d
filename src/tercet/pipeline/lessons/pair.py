"""Image-text models: calibrated on pictures and captions, taught by the original's embeddings, examined by search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tercet.data.captioned import captioned, captions
from tercet.data.pairs import Captioned, PairData, Reader, gather
from tercet.errors import TercetError, TrainError
from tercet.evaluate.exam import Exam, examined, prepare
from tercet.evaluate.originals import original_row, validation
from tercet.modules.module import ProgramModule
from tercet.pipeline.lessons.lesson import Data, Examined, Taught, Validation
from tercet.pipeline.making import Making, Watch
from tercet.recipe import Calibrate, ClipDistil
from tercet.train import PairTask
from tercet.train.processes import Processes
from tercet.train.teacher import stored_embeddings

__all__ = ["PairLesson"]

Floats = NDArray[np.float32]
PROTOCOL = "Shares of all queries, by the engine, the original by torch in float32. MB are 10^6 bytes."


class PairLesson:
    """See `tercet.pipeline.lessons.lesson.Lesson`. Attributes: reader; exams: what models are compared on."""

    def __init__(self, making: Making, data: Data, threads: int | None, before: PairLesson | None = None) -> None:
        self.making, self.data, self.threads = making, data, threads
        self.reader: Reader = before.reader if before else Reader.open(making.source)
        self.exams: list[Exam] = (
            before.exams if before else [prepare(_opened(each, "test"), self.reader) for each in data.eval_pictures]
        )
        self._opened: list[Captioned] = before._opened if before else [_opened(each, "train") for each in data.pictures]
        self._gathered: dict[tuple[int, int], PairData] = before._gathered if before else {}
        if self._reads and not self._opened:
            raise TercetError(
                f"{making.recipe.name} calibrates or trains, and reads pictures and captions; give it some"
            )

    @property
    def _reads(self) -> bool:
        return self.making.recipe.train is not None or self.making.calibrate is not None

    @property
    def _settings(self) -> ClipDistil:
        assert isinstance(self.making.recipe.distil, ClipDistil)  # the plan has refused others
        return self.making.recipe.distil

    @property
    def extent(self) -> tuple[int, int]:
        """Pairs that are read, and the seed that draws them: as many as training reads; for calibration alone, as many
        as it has tokens for, and texts at most."""
        recipe = self.making.recipe
        if recipe.train is not None:
            return recipe.train.steps * recipe.train.batch * recipe.train.accumulation, recipe.train.seed
        assert recipe.calibrate is not None
        shortest = min(part.context for part in self.making.model.parts.values())
        return recipe.calibrate.tokens // shortest, recipe.calibrate.seed

    def pairs(self, watch: Watch) -> PairData:
        """What calibration and training read, opened and prepared when it is first asked for."""
        rows, seed = self.extent
        lone = self.data.captions
        if (rows, seed) not in self._gathered:
            self._gathered[rows, seed] = gather(
                self._opened,
                self.reader,
                rows,
                seed,
                captions=captions(lone) if isinstance(lone, Path) else lone,
                progress=lambda i, n: watch.step("read pictures", i, n),
            )
        return self._gathered[rows, seed]

    def inputs(self, part: str, settings: Calibrate, watch: Watch) -> NDArray[Any]:
        """As many pictures or texts as have `settings.tokens` patches or tokens, from all over: float32 or int64."""
        pairs = self.pairs(watch)
        rows: NDArray[Any] = pairs.patches if part == "image" else pairs.ids
        drawn = np.random.default_rng(settings.seed).permutation(len(rows))[: max(1, settings.tokens // rows.shape[1])]
        found = rows[np.sort(drawn)]
        return found if found.dtype == np.int64 else found.astype(np.float32)

    def digest(self) -> str:
        return self.pairs(Watch()).digest

    def teach(self, cache: Path, watch: Watch) -> Taught:
        """The embeddings of every picture and every text, in float32: it is done once. Where blocks are compared the
        teacher answers live."""
        settings, pairs = self._settings, self.pairs(watch)
        if Processes().sharded:
            raise TrainError("image-text models are not sharded; launch without --use_fsdp")
        if not settings.has_teacher:
            return Taught(None, pairs.arrays(None, None))
        teacher = ProgramModule(self.making.model, self.making.source.tensors()).eval().requires_grad_(False)
        if settings.off:
            return Taught(teacher, pairs.arrays(None, None))
        image, text = (self._embeddings(teacher, part, cache, watch) for part in ("image", "text"))
        return Taught(None, pairs.arrays(image, text))

    def task(self, student: ProgramModule, teacher: nn.Module | None) -> PairTask:
        assert teacher is None or isinstance(teacher, ProgramModule)
        return PairTask(student, teacher, self._settings)

    def control(self, module: ProgramModule) -> tuple[PairTask, Mapping[str, Any]]:
        settings = ClipDistil(kind="clip", task=1, fd=0, activations="a16")
        return PairTask(module, None, settings), self.pairs(Watch()).arrays(None, None)

    def again(self, making: Making) -> PairLesson:
        return PairLesson(making, self.data, self.threads, self)

    def validation(self) -> Validation | None:
        """The exams, in torch."""
        measured = validation(self.exams)

        def of_task(task: nn.Module) -> Mapping[str, float]:
            assert isinstance(task, PairTask)
            return measured(task.student)

        return of_task if self.exams else None

    def examine(self, folders: Mapping[str, Path], watch: Watch) -> Examined:
        watch.step("examine", 0, len(folders))
        rows = [examined(folder, name, self.exams, self.threads) for name, folder in folders.items()]
        watch.step("examine", len(folders), len(folders))
        if not self.exams:
            return Examined(tuple(rows))
        return Examined((original_row(self.making.source, self.exams), *rows), PROTOCOL)

    def record(self) -> dict[str, Any]:
        pairs = self.pairs(Watch()) if self._reads else None
        return {"text": None, "pictures": None if pairs is None else {"name": pairs.name, "sha256": pairs.digest}}

    def provenance(self) -> str:
        if not self._reads:
            return "rounded, without calibration"
        return f"made with pictures and captions of {self.pairs(Watch()).name}"

    def _embeddings(self, teacher: ProgramModule, part: str, cache: Path, watch: Watch) -> Floats:
        pairs = self.pairs(watch)
        rows: NDArray[Any] = pairs.patches if part == "image" else pairs.ids
        return stored_embeddings(
            lambda batch: teacher(part, batch.float() if batch.is_floating_point() else batch).result,
            rows,
            cache,
            {
                "source": dict(self.making.source.origin),
                "part": part,
                "rotated": self.making.source.config.get("tercet"),
            },
            lambda i, n: watch.step(f"ask the teacher ({part})", i, n),
        )


def _opened(given: str | Captioned, split: Any) -> Captioned:
    return captioned(given, split) if isinstance(given, str) else given
