"""Fine-tuning of a packed model on a person's own text: adapters inside the quantizers, merged, packed again.

    folder -> student with the folder's codes and scales -> adapters and scales trained -> merged -> folder

Training sees the ternary weights that ship, so merging and packing lose nothing (`tercet.train.lora`). Of the text,
each tenth window is not trained on: on those the folders before and after are compared, by the engine, and on the
default text's validation part too, where there is one: what was forgotten.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import artifact, data, sources
from tercet.artifact import RECIPE, Artifact, ModelFolder
from tercet.calibrate import Quantized, dequantized
from tercet.data import spread, windows
from tercet.data.mixture import cut, evenly
from tercet.data.texts import Text, choose
from tercet.errors import TercetError
from tercet.evaluate import quality
from tercet.evaluate.models import open_model
from tercet.evaluate.originals import ModuleLogits, set_threads
from tercet.packing import PackedTensor, pack, unpack
from tercet.pipeline.card import title
from tercet.pipeline.folder import checked_target
from tercet.pipeline.making import Watch
from tercet.pipeline.rotation import rotated_source
from tercet.pipeline.student import build_student, vectors
from tercet.quantizers import LearnedConfig, freeze
from tercet.recipe import Planned, Train
from tercet.shown import in_markdown
from tercet.sources.cache import cache_dir
from tercet.tensor import TernaryTensor
from tercet.train import fine_tune

__all__ = ["Tuned", "Tuning", "tune"]

HELD_OUT = 10  # each so many-th window is kept for the comparison
TERNARY = ("t2", "t19", "t5", "b1")
MEASURED = 4096  # tokens of each text that perplexity is measured on
SETTINGS = Train(steps=100, batch=2, context=256, lr=2e-3, scale_lr=5e-4, norm_lr=0, checkpoint_every=50)


@dataclass(frozen=True)
class Tuning:
    """How a model is fine-tuned.

    Attributes:
        rank: of each matrix's change.
        train: windows, steps, rates.
        threads: of torch and of the engine.
    """

    rank: int = 16
    train: Train = SETTINGS
    threads: int | None = None


@dataclass(frozen=True)
class Tuned:
    """What `tune` did; perplexities are of the packed folders, by the engine.

    Attributes:
        before, after: on the held-out windows of the new text.
        trained: the student's own, before it was packed.
        general_before, general_after: on the default text (validation); None without one.
        flips: share of the codes that changed.
    """

    folder: Path
    text: str
    tokens: int
    seconds: float
    before: float
    after: float
    trained: float
    general_before: float | None
    general_after: float | None
    flips: float

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def tune(
    source: str | sources.Source,
    folder: str | Path,
    out: str | Path,
    text: str | Path,
    tuning: Tuning | None = None,
    watch: Watch | None = None,
) -> Tuned:
    """Fine-tunes a packed folder on a text file.

    Args:
        source: the model the folder was made of.
        folder: what `quantize` wrote; left as it is.
        out: the folder to write.

    Raises TercetError: another model's folder, a text too short, or what `tercet.train.train` refuses.
    """
    begin, how, watch = time.monotonic(), tuning or Tuning(), watch or Watch()
    set_threads(how.threads)
    packed, origin = _opened(source, folder, Path(out))
    chosen = choose(text, "train", origin)
    engine = open_model(packed.folder, threads=how.threads)
    context = min(how.train.context, engine.context)
    learnt, kept = _split(windows(engine.encode(chosen.content), context, prefix=engine.prefix()))
    general = _general(engine, context)
    before, general_before = _measured(engine.logits, kept, general)
    start = {name: _unpacked(tensor) for name, tensor in packed.tensors.items()}
    student = build_student(origin.model, origin.tensors(), _plan(packed.tensors), start, "a8")
    run = cache_dir() / "training" / _name(packed, learnt, how)
    fine_tune(student, learnt, how.train, run, rank=how.rank, progress=watch.training(how.train.steps))
    made: dict[str, Quantized] = {**start, **vectors(student), **freeze(student)}
    _save(packed, origin, chosen, made, Path(out))
    engine = open_model(Path(out), threads=how.threads)
    trained, _ = _measured(ModuleLogits(student), kept, None)
    after, general_after = _measured(engine.logits, kept, general)
    return Tuned(
        folder=Path(out),
        text=chosen.name,
        tokens=how.train.steps * how.train.batch * how.train.accumulation * context,
        seconds=time.monotonic() - begin,
        before=before,
        after=after,
        trained=trained,
        general_before=general_before,
        general_after=general_after,
        flips=_flips(start, made),
    )


def _opened(source: str | sources.Source, folder: str | Path, out: Path) -> tuple[Artifact, sources.Source]:
    """The folder and what it was made of; refuses what cannot be tuned, and where nothing may be written."""
    origin = source if isinstance(source, sources.Source) else sources.resolve(source)
    packed = Artifact.open(folder, check=True)
    origin.model.expect("text")
    _check(packed, origin)
    if checked_target(out).resolve() == packed.folder.resolve():
        raise TercetError(f"{out} is the folder to tune, which is left as it is; choose another one to write")
    words = packed.config["model"].get("tercet", {})
    if not words.get("rotate"):
        return packed, origin
    return packed, rotated_source(origin, "folded" if words.get("stream") else True, table=bool(words.get("table")))


def _check(packed: Artifact, origin: sources.Source) -> None:
    if packed.config["source"] != origin.origin:
        raise TercetError(f"{packed.folder} was not made of {origin.name} as it is now; name the source it was made of")
    if "clip" in packed.config["model"].get("tercet", {}):
        raise TercetError(f"{packed.folder}: adapters do not train models with clipped outputs; quantize without")
    if not any(plan.quantizer for plan in _plan(packed.tensors).values()):
        raise TercetError(f"{packed.folder} has no ternary or binary matrix to tune; quantize it with another recipe")


def _split(cut: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows to train on, and those kept."""
    kept = np.arange(len(cut)) % HELD_OUT == HELD_OUT - 1
    if not kept.any():
        raise TercetError(f"the text fills {len(cut)} windows; give at least {HELD_OUT}, or a shorter context")
    return cut[~kept], cut[kept]


def _general(engine: Any, context: int) -> NDArray[np.int64] | None:
    if data.default_texts("validation") is None:
        return None
    return evenly(cut(choose("default", "validation"), engine.encode, context, engine.prefix()), MEASURED)


def _measured(
    logits: Callable[..., NDArray[np.float32]], kept: NDArray[np.int64], general: NDArray[np.int64] | None
) -> tuple[float, float | None]:
    """Perplexity on the held-out windows, and on the default text where there is one."""
    new = quality(logits, spread(kept, MEASURED)).perplexity
    return new, None if general is None else quality(logits, spread(general, MEASURED)).perplexity


def _unpacked(tensor: PackedTensor | NDArray[np.float32]) -> Quantized:
    return unpack(tensor) if isinstance(tensor, PackedTensor) else tensor


def _plan(tensors: Mapping[str, PackedTensor | NDArray[np.float32]]) -> dict[str, Planned]:
    """Every ternary matrix by the quantizer that leaves its codes and scales as they are; the rest kept."""
    plan = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, PackedTensor):
            quantizer = _quantizer(tensor) if tensor.format in TERNARY else None
            plan[name] = Planned(quantizer, None if quantizer else "float32", tensor.group_size, tensor.format)
    return plan


def _quantizer(tensor: PackedTensor) -> LearnedConfig:
    group = "row" if tensor.group_size == tensor.shape[1] else tensor.group_size
    fields = {"group_size": group, "shift": tensor.shift is not None, "binary": tensor.format == "b1"}
    return LearnedConfig.model_validate(fields)


def _name(packed: Artifact, learnt: NDArray[np.int64], how: Tuning) -> str:
    fields = [packed.config["crc32c"], how.rank, how.train.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(learnt).tobytes())
    return digest.hexdigest()[:32]


def _save(packed: Artifact, origin: sources.Source, text: Text, made: Mapping[str, Quantized], out: Path) -> None:
    config, recipe = packed.config, ModelFolder(packed.folder).json(RECIPE)
    stored: dict[str, PackedTensor | NDArray[np.float32]] = {}
    for name, tensor in packed.tensors.items():
        new = made[name]
        stored[name] = pack(new, tensor.format) if isinstance(tensor, PackedTensor) else dequantized(new)
    about = f"# {in_markdown(title(origin))}, quantized and fine-tuned by Tercet\n\n"
    about += f"Adapters trained on {in_markdown(text.name)}, and merged.\n"
    artifact.save(
        out,
        model=config["model"],
        tensors=stored,
        tokenizer_files=origin.tokenizer_files(),
        recipe=recipe,
        card=about,
        generation=origin.generation(),
        source=origin.origin,
        calibration={**config["calibration"], "tuned": text.origin},
    )


def _flips(start: Mapping[str, Quantized], made: Mapping[str, Quantized]) -> float:
    changed = total = 0
    for name, old in start.items():
        new = made[name]
        if isinstance(old, TernaryTensor) and isinstance(new, TernaryTensor):
            changed, total = changed + int((old.codes != new.codes).sum()), total + old.codes.size
    return changed / total
