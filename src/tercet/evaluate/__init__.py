"""How good, how large and how fast a model is: measured the same way for floats and for packed weights.

Perplexity is of non-overlapping windows; no BOS unless the tokenizer adds one; a window's first token is unscored.
"""

from tercet.evaluate.text import Logits, Quality, compare, quality

__all__ = ["Logits", "Quality", "compare", "quality"]
