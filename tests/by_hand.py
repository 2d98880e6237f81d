"""The pipeline's stages called one after the other, as `tercet.pipeline.quantize` does: what training ended with."""

from __future__ import annotations

from tercet.modules.module import ProgramModule
from tercet.pipeline.distil import Distilled, distil
from tercet.pipeline.lessons import Lesson
from tercet.pipeline.making import Making, Watch
from tercet.pipeline.start import begin
from tercet.pipeline.student import build_student
from tercet.recipe import Activations
from tercet.sources.cache import cache_dir

__all__ = ["distilled", "student"]


def distilled(made: Making, lesson: Lesson) -> Distilled:
    """Calibrated or rounded, then trained; a run that `quantize` left in the cache is not made again."""
    start = begin(made, lesson, Watch())
    return distil(made, lesson, start.tensors, cache_dir() / "training", Watch())


def student(made: Making, result: Distilled, activations: Activations = "a8") -> ProgramModule:
    """The student after training, in torch."""
    return build_student(made.student, made.source.tensors(), made.plan, result.tensors, activations).eval()
