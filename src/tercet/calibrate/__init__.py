"""Closed-form calibration: a pretrained model's matrices to ternary levels that its activations barely notice.

`calibrate` walks the model once; `rounded` is the same without data. No gradients, no training.
"""

from tercet.calibrate.blocks import calibrate
from tercet.calibrate.keep import Quantized, dequantized, rounded

__all__ = ["Quantized", "calibrate", "dequantized", "rounded"]
