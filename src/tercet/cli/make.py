"""Commands that make models: quantize, tune, demo."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, needs, render, typer
from tercet.cli.live import progress_bar, watch

if TYPE_CHECKING:
    from tercet.recipe import Recipe

__all__ = ["demo", "quantize", "tune"]


class Demo(str, Enum):
    """What `demo` shows."""

    smollm2 = "smollm2"
    clip = "clip"


def quantize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Pretrained model: smollm2, clip-tiny, a folder, a .gguf file or a hub id."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Packed folder to write; a dry run needs none."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option("--recipe", metavar="FILE|NAME", help="Recipe: a file, or a name that `tercet recipes` lists."),
    ] = "w1.58",
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="FILE|default|generated", help="Text to calibrate on; default: the recipe's."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Number of calibration tokens; default: the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Random seed; default: the recipe's.")] = None,
    eval_text: Annotated[
        str | None,
        typer.Option("--eval-text", metavar="FILE|default|generated", help="Text to compare with the original on."),
    ] = None,
    eval_tokens: Annotated[
        int | None, typer.Option("--eval-tokens", min=0, help="Number of tokens to compare on; 0 skips the comparison.")
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--pictures",
            metavar="NAME|PATH",
            help="Pictures for CLIP and SigLIP to learn from, may be given several times: fashion-mnist, emoji, scenes,"
            " a folder of class folders or of pictures, or a .csv or .jsonl of image and caption.",
        ),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option("--captions", metavar="FILE", help="File of captions without pictures, one a line.")
    ] = None,
    eval_pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-pictures",
            metavar="NAME|PATH",
            help="Pictures to compare with the original on, may be given several times.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what it would take: size, memory and time."),
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Quantize a pretrained model, pack it, and compare it with the original."""
    if out is None and not dry_run:
        raise typer.BadParameter("missing; name the folder to write", param_hint="'-o' / '--out'")
    needs("torch", "transformers")
    from tercet.pipeline import Data, Watch
    from tercet.pipeline import quantize as run
    from tercet.recipe import Recipe

    chosen = Recipe.load(recipe).changed(tokens=tokens, seed=seed, eval_tokens=eval_tokens or None)
    if dry_run or out is None:
        _dry_run(source, chosen, eval_tokens != 0, threads, as_json)
        return
    data = Data(text, eval_text, tuple(pictures or ()), captions or (), tuple(eval_pictures or ()), eval_tokens != 0)
    with progress_bar() as progress, watch() as watching:
        made = run(source, out, chosen, data, threads=threads, watch=Watch(progress, watching))
    emit(made.as_dict(), as_json, _report_text)


def _dry_run(source: str, recipe: Recipe, compared: bool, threads: int | None, as_json: bool) -> None:
    from tercet import sources
    from tercet.pipeline.forecast import forecast
    from tercet.pipeline.making import making

    found = forecast(making(sources.resolve(source), recipe), compared=compared, threads=threads)
    emit(found.as_dict(), as_json, _forecast_text)


def _forecast_text(result: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"supported  {result['family']}, {result['weights'] / 1e6:,.1f} million weights",
            f"plan       {result['plan']}",
            f"folder     {result['folder_mb']:,.1f} MB",
            f"memory     about {result['memory_mb'] / 1000:,.1f} GB",
            f"time       roughly {max(1, round(result['minutes'])):,} min, the comparison not counted",
        ]
    )


def _report_text(result: dict[str, Any]) -> str:
    from tercet.evaluate.rows import Row, table

    lines = [f"wrote {result['folder']}: {result['file_mb']:.2f} MB, {result['seconds']:.0f} s", result["plan"]]
    lines.append(result["read"])
    if not result["rows"]:
        return "\n".join(lines)
    rows = [Row(**row) for row in result["rows"]]
    return render(*table(rows)) + "\n".join([*lines, result["protocol"]])


def tune(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The pretrained model that DIR was made of.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Packed folder to fine-tune; it is left as it is.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Packed folder to write.")],
    text: Annotated[Path, typer.Option("--text", metavar="FILE", help="Text file (UTF-8) to learn.")],
    rank: Annotated[int, typer.Option("--rank", min=1, help="Rank of each adapter.")] = 16,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of 512 tokens.")] = 100,
    lr: Annotated[float, typer.Option("--lr", min=0, help="Learning rate of the adapters.")] = 2e-3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of the training.")] = 0,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a packed model on a text; adapters are merged, so it stays ternary."""
    needs("torch", "transformers")
    from tercet.pipeline import Watch
    from tercet.pipeline.tuning import SETTINGS, Tuning
    from tercet.pipeline.tuning import tune as run

    train = SETTINGS.model_copy(update={"steps": steps, "lr": lr, "seed": seed})
    with progress_bar() as progress, watch() as watching:
        tuned = run(source, folder, out, text, Tuning(rank, train, threads), Watch(progress, watching))
    emit(tuned.as_dict(), as_json, _tuned_text)


def _tuned_text(result: dict[str, Any]) -> str:
    rows = [(f"{result['text']}, held out", f"{result['before']:.2f}", f"{result['after']:.2f}")]
    if result["general_before"] is not None:
        rows.append(("default text", f"{result['general_before']:.2f}", f"{result['general_after']:.2f}"))
    end = f"wrote {result['folder']}: {result['flips']:.2%} of the codes changed, {result['seconds']:.0f} s"
    return render(("perplexity", "before", "after"), rows) + end


def demo(
    what: Annotated[
        Demo, typer.Argument(metavar="[smollm2|clip]", help="Demo to run: smollm2, a language model, or clip.")
    ] = Demo.smollm2,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for models and report; default: demo or demo-clip."),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make SmolLM2-135M or a small CLIP ternary, and compare it with the original."""
    needs("torch", "transformers")
    if what is Demo.clip:
        from tercet.demo.clip import demo_clip

        with progress_bar() as progress:
            result = demo_clip(out or Path("demo-clip"), threads=threads, progress=progress)
        emit(result, as_json, _demo_clip_text)
        return
    from tercet.demo.text import demo as run

    with progress_bar() as progress:
        result = run(out or Path("demo"), threads=threads, progress=progress)
    emit(result, as_json, _demo_text)


def _demo_clip_text(result: dict[str, Any]) -> str:
    from tercet.evaluate.rows import Row, table

    parts = [f"{name}: made in {seconds:.0f} s" for name, seconds in result["seconds_to_make"].items()]
    parts.append(f"search: {result['search']}   {result['seconds']:.0f} s in all")
    return render(*table([Row(**row) for row in result["rows"]])) + "\n".join(parts)


def _demo_text(result: dict[str, Any]) -> str:
    from tercet.evaluate.rows import Row, table

    parts = [render(*table(Row(**row) for row in result["rows"])) + result["protocol"], ""]
    for name, sample in result["samples"].items():
        parts += [f"{name}: {sample['prompt']}", f"  {sample['text'].strip()}", ""]
    parts += [f"{name}: made in {seconds:.0f} s" for name, seconds in result["seconds_to_make"].items()]
    parts.append(f"reachable by training: {result['reachable']['description']}\n  {result['reachable']['command']}")
    parts.append(f"report: {result['report']}   {result['seconds']:.0f} s in all")
    return "\n".join(parts)
