"""The model card that lies beside the checkpoint: what it is, what it scores, whose pictures it has seen."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import CLIPModel

__all__ = ["card"]

CARD = """# clip-tiny

A CLIP of {parameters:,} parameters (32 x 32 pixels, patches of 8; transformers' `CLIPModel`, float16), trained from
nothing on three small sets of pictures with words. It stands in for a pretrained checkpoint where none can be
downloaded: to try quantization, evaluation and search on. It knows clothes, emoji and coloured shapes, and nothing
else.

| pictures | how many | zero-shot top-1 | image to text R@1 / R@5 | text to image R@1 / R@5 |
|---|---|---|---|---|
{rows}

Zero-shot: ten classes, the mean of {templates} templates. Retrieval: among all pictures of the split, and one caption
of each name, its first; `tercet eval` asks with every caption, and reports other figures (docs/clip.md).
Validation, test: emoji whose names were seen with another artist's drawing; scenes made of pairs of colour and shape
that were seen. Unseen: an artist (Noto) of whom nothing was seen; scenes with a pair that was never seen.

Made by `PYTHONPATH=benchmarks python -m clip_tiny WORK --steps {steps} --export FOLDER` in {minutes:.0f} minutes of one
core; `training.jsonl` is the log of that run, with scores on validation pictures.

## Whose pictures

None of them are in this folder or in the package.

- Fashion-MNIST, (c) 2017 Zalando SE, MIT (Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017).
- Twemoji, (c) Twitter, Inc. and other contributors, CC-BY 4.0, by way of npm emoji-datasource-twitter 16.0.0 (MIT),
  whose names of emoji were used.
- Fluent Emoji, (c) Microsoft Corporation, MIT, by way of npm @lobehub/fluent-emoji-3d 1.1.0 (MIT).
- Measured on, not trained on: Noto Emoji, (c) Google, Apache-2.0, by way of npm emoji-datasource-google 16.0.0.
- The scenes are rendered by Tercet.
"""


def card(model: CLIPModel, found: Mapping[str, Mapping[str, float]], steps: int, seconds: float, templates: int) -> str:
    """The card's text; `found` as `scores` gives it, by the name of set and split, with the number of pictures."""
    rows = []
    for name, row in found.items():
        if "top1" in row:
            cells = [f"{100 * row['top1']:.1f} %", "", ""]
        else:
            both = [f"{100 * row[f'{way}_r1']:.1f} % / {100 * row[f'{way}_r5']:.1f} %" for way in ("i2t", "t2i")]
            cells = ["", *both]
        rows.append("| " + " | ".join([name, f"{row['pictures']:,}", *cells]) + " |")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return CARD.format(
        parameters=parameters, rows="\n".join(rows), templates=templates, steps=steps, minutes=seconds / 60
    )
