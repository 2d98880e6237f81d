"""The teacher's answers, computed once and kept: its blocks need not run, nor lie in memory, beside the student.

    last hidden states   float16[n, tokens, width]                          2 width bytes a token; whole logits again
                                                                            by one product with the teacher's head
    k likeliest tokens   values float16, index int32[n, tokens, k]          6 k bytes a token

    embeddings           float32[n, dim] of pictures or texts               4 dim bytes each

They are kept in .npy files, mapped rather than read, and made in parts, so that what was stopped goes on. Of processes
that want the same ones, one asks and the others wait.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tercet import fsio
from tercet.modules.module import ProgramModule

__all__ = ["HeadOnly", "stored_embeddings", "stored_hidden", "stored_logits"]

Progress = Callable[[int, int], None]
Answers = dict[str, NDArray[Any]]

PART = 64  # windows a file until all are there
BATCH = 8  # windows the teacher reads at a time
ROWS = 128  # pictures or texts, likewise; their parts are so much larger


class HeadOnly(nn.Module):
    """What is left of a teacher whose hidden states are stored: its head."""

    def __init__(self, teacher: ProgramModule) -> None:
        super().__init__()
        weight, bias = teacher.head()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight [vocab, width] and bias."""
        return self.weight, self.bias


def stored_hidden(
    teacher: ProgramModule,
    windows: NDArray[np.int64],
    folder: Path,
    key: Mapping[str, Any],
    progress: Progress,
    *,
    bfloat16: bool = False,
) -> Answers:
    """{"teacher": what the teacher's head reads, for each window}, from `folder` or computed and put there.

    Args:
        windows: int64[n, tokens].
        key: what tells the teacher from others, such as its file's hash.
        progress: called with (windows done, windows).
        bfloat16: products are computed in it.

    Raises StorageError where the disk refuses them.
    """

    def answer(ids: Tensor) -> Answers:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            hidden = teacher("text", ids).result
        return {"teacher": hidden.to(torch.float16).numpy()}

    return _stored(answer, ["teacher"], windows, folder, {**key, "bfloat16": bfloat16}, progress)


def stored_logits(
    teacher: ProgramModule, windows: NDArray[np.int64], k: int, folder: Path, key: Mapping[str, Any], progress: Progress
) -> Answers:
    """{"values", "index"}: the k likeliest tokens' log-probabilities, and which; otherwise as `stored_hidden`."""

    def answer(ids: Tensor) -> Answers:
        weight, bias = teacher.head()
        hidden = teacher("text", ids).result
        found = [F.linear(row, weight, bias).float().log_softmax(-1).topk(k) for row in hidden]
        return {
            "values": np.stack([best.values.to(torch.float16).numpy() for best in found]),
            "index": np.stack([best.indices.to(torch.int32).numpy() for best in found]),
        }

    return _stored(answer, ["values", "index"], windows, folder, {**key, "k": k}, progress)


def stored_embeddings(
    encode: Callable[[Tensor], Tensor], rows: NDArray[Any], folder: Path, key: Mapping[str, Any], progress: Progress
) -> NDArray[np.float32]:
    """float32[n, dim], what a tower makes of each row, its patches or its ids; otherwise as `stored_hidden`."""

    def answer(part: Tensor) -> Answers:
        return {"embedding": encode(part).float().numpy()}

    found = _stored(answer, ["embedding"], rows, folder, key, progress, ROWS)["embedding"]
    return cast(NDArray[np.float32], found)


@torch.inference_mode()
def _stored(
    answer: Callable[[Tensor], Answers],
    names: list[str],
    windows: NDArray[Any],
    folder: Path,
    key: Mapping[str, Any],
    progress: Progress,
    batch: int = BATCH,
) -> Answers:
    digest = hashlib.sha256(f"{dict(key)!r} {windows.shape}".encode())
    digest.update(np.ascontiguousarray(windows).data)
    step = batch * (PART // BATCH)
    stem = digest.hexdigest()[:32]
    paths = {name: folder / f"{stem}.{name}.npy" for name in names}
    with fsio.one_at_a_time(folder / f"{stem}.lock"):
        if not all(path.exists() for path in paths.values()):
            parts = [
                _part(
                    answer,
                    windows[begin : begin + step],
                    batch,
                    {name: folder / f"{stem}.{name}.{begin}.npy" for name in names},
                    lambda done, begin=begin: progress(begin + done, len(windows)),  # type: ignore[misc]
                )
                for begin in range(0, len(windows), step)
            ]
            for name, path in paths.items():
                fsio.atomic_file(path, _npy([_mapped(part[name]) for part in parts], len(windows)))
            for part in parts:
                for path in part.values():
                    path.unlink(missing_ok=True)
    return {name: _mapped(path) for name, path in paths.items()}


def _part(
    answer: Callable[[Tensor], Answers],
    windows: NDArray[Any],
    batch: int,
    paths: dict[str, Path],
    progress: Callable[[int], None],
) -> dict[str, Path]:
    """The files of these windows."""
    if not all(path.exists() for path in paths.values()):
        found: list[Answers] = []
        for at in range(0, len(windows), batch):
            found.append(answer(torch.from_numpy(np.array(windows[at : at + batch]))))
            progress(min(at + batch, len(windows)))
        for name, path in paths.items():
            fsio.atomic_file(path, _npy([each[name] for each in found], len(windows)))
    return paths


def _mapped(path: Path) -> NDArray[Any]:
    return cast(NDArray[Any], np.load(path, mmap_mode="r", allow_pickle=False))


def _npy(arrays: list[NDArray[Any]], count: int) -> list[Any]:
    """The file of all arrays' rows as buffers, without a copy of them."""
    first = arrays[0]
    header = io.BytesIO()
    facts = {**np.lib.format.header_data_from_array_1_0(first), "shape": (count, *first.shape[1:])}
    np.lib.format.write_array_header_2_0(header, facts)
    return [header.getvalue(), *(array.reshape(-1) for array in arrays)]
