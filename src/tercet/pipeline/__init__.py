"""From a source to a measured, packed folder: `quantize`; and the measure of any model: `evaluate`."""

from tercet.pipeline.measure import evaluate
from tercet.pipeline.run import Report, quantize

__all__ = ["Report", "evaluate", "quantize"]
