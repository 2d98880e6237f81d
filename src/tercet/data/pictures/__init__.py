"""Pictures with words to train and measure CLIP-like models on, none of it shipped: packages are fetched on first use.

`fashion_mnist.pictures(split)` photographs of clothes in ten classes, `emoji.pictures(split)` drawings with names,
`scenes.pictures(split)` rendered shapes whose captions are exactly true. Importing this imports no torch, no Pillow.
"""

from tercet.data.pictures.base import Pictures, Split

__all__ = ["Pictures", "Split"]
