"""Which dtype products are computed in: bfloat16 only where the hardware multiplies it.

An emulated bfloat16 product (AVX2, AVX-512 without BF16) costs more than a float32 one.
"""

from __future__ import annotations

import torch

from tercet.recipe import Precision

__all__ = ["has_bfloat16", "uses_bfloat16"]


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    return precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself: AVX512-BF16 or AMX; Ampere and later."""
    if device.type == "cpu":
        # Underscored, but the only question torch answers about this in all versions from 2.4 on.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
