"""How good, how large and how fast a model is: measured the same way for floats and for packed weights.

Perplexity is of non-overlapping windows; no BOS unless the tokenizer adds one; a window's first token is unscored.
"""

from tercet.evaluate.measure import evaluate, evaluate_pictures
from tercet.evaluate.text import Logits, Quality, compare, quality

__all__ = ["Logits", "Quality", "compare", "evaluate", "evaluate_pictures", "quality"]
