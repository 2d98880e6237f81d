"""Source to measured, packed folder: `quantize`; on to a text of one's own: `tune`; the measure of any: `evaluate`."""

from tercet.pipeline.measure import evaluate
from tercet.pipeline.run import Report, quantize
from tercet.pipeline.tune import Tuned, tune

__all__ = ["Report", "Tuned", "evaluate", "quantize", "tune"]
