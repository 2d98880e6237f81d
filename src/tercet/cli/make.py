"""Commands that make models: quantize, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, progress_bar, render, typer

__all__ = ["demo", "quantize"]


def quantize(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="smollm2, a folder, a .gguf file or a hub id.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The packed folder to write.")],
    recipe: Annotated[str, typer.Option("--recipe", metavar="FILE|NAME", help="How to quantize.")] = "w1.58",
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="FILE|default|generated", help="Calibration text; the recipe's if absent."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Calibration tokens; the recipe's if absent.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The recipe's if absent.")] = None,
    eval_text: Annotated[
        str | None, typer.Option("--eval-text", metavar="FILE|default|generated", help="Text of the comparison.")
    ] = None,
    eval_tokens: Annotated[int | None, typer.Option("--eval-tokens", min=0, help="0: no comparison.")] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Quantize a pretrained model, pack it, and compare it with the original."""
    from tercet.cli.live import watch
    from tercet.pipeline import quantize as run

    with progress_bar() as progress, watch() as watching:
        report = run(
            source,
            out,
            recipe,
            text=text,
            tokens=tokens,
            seed=seed,
            eval_text=eval_text,
            eval_tokens=eval_tokens,
            threads=threads,
            progress=progress,
            watch=watching,
        )
    emit(report.as_dict(), as_json, _report_text)


def _report_text(result: dict[str, Any]) -> str:
    from tercet.evaluate.rows import Row, table

    lines = [f"wrote {result['folder']}: {result['file_mb']:.1f} MB, {result['seconds']:.0f} s"]
    lines.append(f"calibrated on {result['text']}" if result["text"] else "rounded, without calibration")
    if not result["rows"]:
        return "\n".join(lines)
    rows = [Row(**row) for row in result["rows"]]
    return render(*table(rows)) + "\n".join([*lines, result["protocol"]])


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where models and report go.")] = Path("demo"),
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make SmolLM2-135M ternary and compare it with the original: table, sample text, HTML report."""
    from tercet.demo import demo as run

    with progress_bar() as progress:
        result = run(out, threads=threads, progress=progress)
    emit(result, as_json, _demo_text)


def _demo_text(result: dict[str, Any]) -> str:
    from tercet.evaluate.rows import Row, table

    parts = [render(*table(Row(**row) for row in result["rows"])) + result["protocol"], ""]
    for name, sample in result["samples"].items():
        parts += [f"{name}: {sample['prompt']}", f"  {sample['text'].strip()}", ""]
    parts += [f"{name}: made in {seconds:.0f} s" for name, seconds in result["seconds_to_make"].items()]
    parts.append(f"report: {result['report']}   {result['seconds']:.0f} s in all")
    return "\n".join(parts)
