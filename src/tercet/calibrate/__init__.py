"""Closed-form calibration: a pretrained model's matrices to ternary levels that its activations barely notice.

`calibrate` walks the model once; `rounded` is the same without data; `billm_dense` is another method, for comparison.
No gradients, no training.
"""

from tercet.calibrate.billm import Dense, billm_dense
from tercet.calibrate.blocks import calibrate
from tercet.calibrate.keep import Quantized, dequantized, rounded

__all__ = ["Dense", "Quantized", "billm_dense", "calibrate", "dequantized", "rounded"]
