"""Commands that tell what there is: in a file, among recipes and models, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, emit, render, typer

__all__ = ["info", "inspect", "models", "recipes"]


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="Packed folder, .safetensors file or .gguf file to look into.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show each tensor's format, bits, zeros and error, and the true bits a weight."""
    from tercet.evaluate.contents import contents

    emit(contents(path).as_dict(), as_json, _contents_text)


def _contents_text(result: dict[str, Any]) -> str:
    headings = ("tensor", "shape", "format", "group", "bits", "zeros", "error")
    rows = [
        (
            tensor["name"],
            "x".join(map(str, tensor["shape"])),
            tensor["format"],
            str(tensor["group_size"] or "-"),
            f"{tensor['bits']:.3f}",
            _share(tensor["zero_share"]),
            "-" if tensor["error"] is None else f"{tensor['error']:.3f}",
        )
        for tensor in result["tensors"]
    ]
    bits = result["bits_per_ternary_weight"]
    totals = [
        f"ternary weights: {_share(result['ternary_share'])} of all"
        + ("" if bits is None else f", {bits:.3f} bits each, {_share(result['zero_share'])} of them zero"),
        f"all weights: {result['bits_per_weight']:.3f} bits each",
        f"file: {result['file_mb']:.1f} MB",
    ]
    if result["transforms"]:
        totals.append("linears: " + ", ".join(f"{key} {value}" for key, value in result["transforms"].items()))
    return render(headings, rows) + "\n".join(totals)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def recipes(as_json: AsJson = False) -> None:
    """List the recipes that come with Tercet, for --recipe."""
    from tercet.recipe import Recipe, names

    emit({"recipes": {name: Recipe.load(name).description for name in names()}}, as_json, _recipes_text)


def _recipes_text(result: dict[str, Any]) -> str:
    return render(("recipe", "what it does"), list(result["recipes"].items()), left=2)


def models(as_json: AsJson = False) -> None:
    """List the models that are supported, by the model_type that their config.json names."""
    from tercet.families import FAMILIES

    emit({"models": {name: family.title for name, family in FAMILIES.items()}}, as_json, _models_text)


def _models_text(result: dict[str, Any]) -> str:
    return render(("model_type", "models"), list(result["models"].items()), left=2)


def info(as_json: AsJson = False) -> None:
    """Show what this machine offers: instruction sets, threads, versions."""
    from tercet.evaluate.machine import machine

    emit(machine(), as_json, lambda result: "\n".join(f"{key:14} {_plain(value)}" for key, value in result.items()))


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
