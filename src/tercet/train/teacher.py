"""The teacher's answers, computed once: the log-probabilities of its k likeliest tokens at each position.

    values float16[n, tokens, k], index int32[n, tokens, k]      6 k bytes a token

They are kept in two .npy files, mapped rather than read. What is computed again at each step costs a fifth of it, and
gives whole logits; this pays from the second epoch on, and where the teacher does not fit beside the student.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tercet import fsio

__all__ = ["stored_logits"]


def stored_logits(
    teacher: nn.Module,
    windows: NDArray[np.int64],
    k: int,
    folder: Path,
    key: Mapping[str, Any],
    progress: Callable[[int, int], None],
) -> dict[str, NDArray[Any]]:
    """{"values", "index"} for each window, from `folder` or computed and put there.

    Args:
        windows: int64[n, tokens].
        key: what tells the teacher from others, such as its file's hash.
        progress: called with (windows done, windows).

    Raises StorageError where the disk refuses them.
    """
    digest = hashlib.sha256(f"{dict(key)!r} {k} {windows.shape}".encode() + np.ascontiguousarray(windows).tobytes())
    paths = {name: folder / f"{digest.hexdigest()[:32]}.{name}.npy" for name in ("values", "index")}
    if not all(path.exists() for path in paths.values()):
        made = _compute(teacher, windows, k, progress)
        for name, path in paths.items():
            fsio.atomic_file(path, _npy(made[name]))
    return {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in paths.items()}


@torch.inference_mode()
def _compute(
    teacher: Any, windows: NDArray[np.int64], k: int, progress: Callable[[int, int], None]
) -> dict[str, NDArray[Any]]:
    shape = (*windows.shape, k)
    values, index = np.empty(shape, np.float16), np.empty(shape, np.int32)
    for at, ids in enumerate(windows):
        logits = teacher(input_ids=torch.from_numpy(np.array(ids))[None], use_cache=False).logits[0].float()
        best = logits.log_softmax(-1).topk(k)
        values[at], index[at] = best.values.numpy(), best.indices.numpy()
        progress(at + 1, len(windows))
    return {"values": values, "index": index}


def _npy(array: NDArray[Any]) -> list[Any]:
    """The file as buffers, without a copy of the array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, np.lib.format.header_data_from_array_1_0(array))
    return [header.getvalue(), array.reshape(-1)]
