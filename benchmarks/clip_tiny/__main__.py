"""Trains the float CLIP that stands in for a checkpoint: Fashion-MNIST, emoji and scenes in one model.

    PYTHONPATH=benchmarks python -m clip_tiny WORK --steps 3000 [--threads 1]     # stop it; run it again: it goes on
    PYTHONPATH=benchmarks python -m clip_tiny WORK --steps 3000 --export FOLDER

The loss is CLIP's, both directions, with every caption that is true of a picture as a positive (equal shares). The
rate: 100 steps of warm-up, constant until 55 % of the steps, a cosine to one hundredth until 80 %, constant from there,
so that the last fifth shows whether the model has settled. A run may be given more steps as long as its rate is still
at the constant. WORK has data.pkl (the pictures at the model's size), tokenizer.json, checkpoint.pt (replaced in one
step), log.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import CLIPModel

from clip_tiny import model as models
from clip_tiny.card import card
from clip_tiny.mixture import Batch, Part, mixed, resized
from clip_tiny.scores import Prepared, image_features, scores, text_features
from clip_tiny.tokens import CONTEXT, train_tokenizer, write_tokenizer
from tercet import fsio
from tercet.data.pictures import Pictures, Split, emoji, fashion_mnist, scenes

SEED = 1
MERGES = 1000
RATE, DECAY, LAST = 2e-3, 0.05, 0.01
WARM, STABLE, SETTLED = 100, 0.55, 0.80  # steps, and shares of them
SHARES = {"fashion-mnist": 56, "emoji": 32, "scenes": 40}
SETS: list[tuple[str, Callable[[Split], Pictures], tuple[Split, ...]]] = [
    ("Fashion-MNIST", fashion_mnist.pictures, ("validation", "test")),
    ("emoji", emoji.pictures, ("validation", "test", "unseen")),
    ("scenes", scenes.pictures, ("validation", "test", "unseen")),
]
SAVE_SECONDS, SCORE_STEPS, TELL_STEPS = 120.0, 200, 20
HIGHEST_SCALE = math.log(100)


def rate(step: int, steps: int) -> float:
    """The learning rate of a step."""
    fall = min(1.0, max(0.0, (step / steps - STABLE) / (SETTLED - STABLE)))
    return RATE * min(1.0, (step + 1) / WARM) * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * fall)))


def prepared(work: Path) -> tuple[list[Part], dict[str, Prepared]]:
    """The training and validation splits at the model's size, made once."""
    kept = work / "data.pkl"
    if not kept.exists():
        fsio.atomic_file(kept, pickle.dumps((training_parts(), validation_splits())))
    made: tuple[list[Part], dict[str, Prepared]] = pickle.loads(kept.read_bytes())
    return made


def validation_splits() -> dict[str, Prepared]:
    return {
        "fashion-mnist": Prepared(fashion_mnist.pictures("validation"), 2000),
        "emoji": Prepared(emoji.pictures("validation")),
        "scenes": Prepared(scenes.pictures("validation", 1000)),
    }


def training_parts() -> list[Part]:
    clothes, drawn, rendered = fashion_mnist.pictures("train"), emoji.pictures("train"), scenes.pictures("train")

    def part(of: Pictures, mirrored: bool, shifted: bool, tinted: bool) -> Part:
        together = bool(of.templates)
        return Part(resized(of), of.captions, of.groups, SHARES[of.name], together, mirrored, shifted, tinted)

    return [part(clothes, True, True, False), part(drawn, False, True, True), part(rendered, False, False, False)]


def loss_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """CLIP's loss over all true pairs; logs nothing, changes nothing."""
    near = image_features(model, batch.pixels) @ text_features(model, batch.ids).T * model.logit_scale.exp()
    true = batch.same.float()
    by_picture = -(near.log_softmax(1) * (true / true.sum(1, keepdim=True))).sum(1).mean()
    by_text = -(near.log_softmax(0) * (true / true.sum(0, keepdim=True))).sum(0).mean()
    return (by_picture + by_text) / 2


class Run:
    """A model in training: everything that goes into a checkpoint."""

    def __init__(self, work: Path, parts: list[Part]) -> None:
        self.work, self.parts, self.step, self.seconds = work, parts, 0, 0.0
        told = sorted({caption for part in parts for captions in set(part.captions) for caption in captions})
        kept = work / "tokenizer.json"  # ties between merges fall differently each time
        if not kept.exists():
            fsio.atomic_file(kept, train_tokenizer(told, MERGES).to_str().encode())
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(kept))
        self.encoded = {caption: self.tokenizer.encode(caption).ids[:CONTEXT] for caption in told}
        self.model = models.make(self.tokenizer.get_vocab_size(), CONTEXT, SEED)
        plain = [p for p in self.model.parameters() if p.ndim < 2]
        weights = [p for p in self.model.parameters() if p.ndim >= 2]
        groups = [{"params": weights, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), fused=True)
        if (work / "checkpoint.pt").exists():
            state = torch.load(work / "checkpoint.pt", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.work / "checkpoint.new")
        fsio.sync_file(self.work / "checkpoint.new")
        (self.work / "checkpoint.new").replace(self.work / "checkpoint.pt")

    def tell(self, **row: Any) -> None:
        row = {"step": self.step, "cpu_s": round(self.seconds, 1), **row}
        line = json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        print(line, flush=True)

    def train_step(self, steps: int) -> float:
        batch = mixed(self.parts, self.encoded, np.random.default_rng([SEED, self.step]))
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step, steps)
        loss = loss_of(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=HIGHEST_SCALE)
        self.step += 1
        return loss.item()

    def train(self, steps: int, validation: dict[str, Prepared]) -> None:
        saved, losses = time.monotonic(), []
        while self.step < steps:
            begun = time.process_time()
            losses.append(self.train_step(steps))
            self.seconds += time.process_time() - begun
            if self.step % TELL_STEPS == 0:
                scale = self.model.logit_scale.exp().item()
                self.tell(steps=steps, lr=rate(self.step, steps), loss=float(np.mean(losses)), scale=scale)
                losses.clear()
            if self.step % SCORE_STEPS == 0 or self.step == steps:
                self.tell(validation={name: self.scored(data) for name, data in validation.items()})
            if time.monotonic() - saved > SAVE_SECONDS or self.step == steps:
                self.save()
                saved = time.monotonic()

    def scored(self, data: Prepared) -> dict[str, float]:
        return {name: round(value, 4) for name, value in scores(self.model, self.tokenizer, data).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, help="write the checkpoint as a transformers folder, with its scores")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.work.mkdir(parents=True, exist_ok=True)
    parts, validation = prepared(asked.work)
    run = Run(asked.work, parts)
    run.train(asked.steps, validation)
    if asked.export:
        export(run, asked.export)


def export(run: Run, folder: Path) -> None:
    """The model in float16 as a transformers folder, with its log and a card of what that very file scores."""
    folder.mkdir(parents=True, exist_ok=True)
    models.write(run.model, folder)
    write_tokenizer(run.tokenizer, folder)
    fsio.atomic_file(folder / "training.jsonl", (run.work / "log.jsonl").read_bytes())
    model, tokenizer = CLIPModel.from_pretrained(folder, dtype=torch.float32), run.tokenizer
    found = {}
    for name, source, splits in SETS:
        for split in splits:
            data = Prepared(source(split))
            found[f"{name}, {split}"] = {"pictures": len(data.pixels), **scores(model, tokenizer, data)}
            print(json.dumps({f"{name}, {split}": found[f"{name}, {split}"]}), flush=True)
    fsio.atomic_file(
        folder / "README.md", card(model, found, run.step, run.seconds, len(fashion_mnist.TEMPLATES)).encode()
    )


if __name__ == "__main__":
    main()
