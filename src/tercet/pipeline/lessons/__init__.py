"""What a model learns from, and is examined by: a file for each medium, and nothing else that knows the medium."""

from tercet.pipeline.lessons.choose import lesson_for
from tercet.pipeline.lessons.lesson import Data, Examined, Lesson, Taught

__all__ = ["Data", "Examined", "Lesson", "Taught", "lesson_for"]
