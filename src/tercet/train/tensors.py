"""Torch tensors to and from safetensors files, one at a time.

A checkpoint may be larger than memory, and sharded tensors are gathered from all processes: so a file's header is
written from shapes alone, and each tensor is made whole only when its turn comes. The reader checks nothing that the
checkpoint's checksums have not checked already.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from tercet import fsio

__all__ = ["checksum", "pieces", "read"]

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def pieces(tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor]) -> Iterator[NDArray[np.uint8]]:
    """The bytes of a safetensors file, by name, a tensor a piece; `whole` gives what is to be stored of each."""
    header, position = {}, 0
    ordered = dict(sorted(tensors.items()))
    for name, tensor in ordered.items():
        end = position + math.prod(tensor.shape) * tensor.element_size()
        offsets = [position, end]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8)
    for tensor in ordered.values():
        stored = whole(tensor).detach().cpu().contiguous()
        yield stored.reshape(-1).view(torch.uint8).numpy()


def read(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a file, by name."""
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            yield name, file.get_tensor(name)


def checksum(path: Path) -> str:
    """CRC-32C of a file, hexadecimal. Raises OSError."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(fsio.CHUNK):
            crc = google_crc32c.extend(crc, chunk)
    return f"{crc:08x}"
