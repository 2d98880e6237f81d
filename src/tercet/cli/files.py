"""Commands about files and this machine: inspect, verify, info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, render, typer

__all__ = ["info", "inspect", "verify"]


def inspect(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A packed folder, a .safetensors or a .gguf file.")],
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


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A packed folder.")],
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Length of the sequence compared at the logits.")] = 32,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Check the checksums, and this CPU's kernels against a float reference, layer by layer and at the logits."""
    from tercet.cli.common import progress_bar
    from tercet.evaluate.verify import verify as run

    with progress_bar() as progress:
        result = run(folder, tokens=tokens, threads=threads, progress=progress)
    emit(result.as_dict(), as_json, _verify_text)
    if not result.ok:
        raise typer.Exit(1)


def _verify_text(result: dict[str, Any]) -> str:
    every = "of every file" if result["sealed"] else "of the weights; the other files have none, pack again to get them"
    lines = [
        f"checksums: ok, {every}",
        f"codes: ok, {result['matrices']} packed matrices"
        + (f", {result['transforms']} rotations and clips" if result["transforms"] else ""),
        f"instruction sets checked: {', '.join(result['isas'])}",
        f"exact kernels against the numpy reference: {result['mismatches']} of {result['checks']} differ",
        f"float kernels against the float reference: worst relative error {result['layer_error']:.1e}"
        f" ({result['worst_layer']})",
        f"{result['compared']}, float activations: max abs error {result['max_abs_error']:.1e},"
        f" relative {result['relative_error']:.1e}" + ("" if result["kl"] is None else f", KL {result['kl']:.1e}"),
        "ok" if result["ok"] else "NOT ok: do not trust this build on this CPU",
    ]
    return "\n".join(lines)


def info(as_json: AsJson = False) -> None:
    """Show what this machine offers: instruction sets, threads, versions."""
    from tercet.evaluate.machine import machine

    emit(machine(), as_json, lambda result: "\n".join(f"{key:14} {_plain(value)}" for key, value in result.items()))


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
