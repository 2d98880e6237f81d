"""Commands that measure: eval, bench, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, render, typer
from tercet.cli.live import progress_bar
from tercet.errors import TercetError

__all__ = ["bench", "evaluate", "verify"]


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="SOURCE|DIR", help="Model to measure: a packed folder, or a pretrained model.")
    ],
    text: Annotated[
        str | None,
        typer.Option(
            "--text", metavar="FILE", help="Text to measure on; default: all kinds of the default text (validation)."
        ),
    ] = None,
    context: Annotated[int, typer.Option("--context", min=2, help="Number of tokens in a window.")] = 512,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=2, help="Number of tokens to read at most; default: all of a file.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", "--original", metavar="SOURCE|DIR", help="Model to compare with."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", metavar="NAME|PATH", help="Pictures with classes or captions, may be given several times."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Number of pictures to read of each dataset, evenly from its classes."),
    ] = None,
    linear: Annotated[
        bool, typer.Option("--linear-probe", help="Fit a linear probe too, on train/ beside test/.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the results as bars into a PNG.")
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure perplexity on a text, or an image-text model on --dataset.

    With --against, KL divergence and top-1 agreement too, or the difference and its interval.
    """
    if dataset:
        from tercet.evaluate.measure import evaluate_pictures

        if text is not None or tokens is not None:
            raise typer.BadParameter("--text and --tokens are for language models, --dataset for models of pictures")
        with progress_bar() as progress:
            result = evaluate_pictures(
                model,
                dataset,
                original=against,
                limit=limit,
                linear=linear,
                plot=plot,
                threads=threads,
                progress=progress,
            )
        emit(result, as_json, _datasets_text)
        if result["plot_failed"]:
            raise TercetError(result["plot_failed"])
        return
    from tercet.evaluate.measure import evaluate as run

    with progress_bar() as progress:
        result = run(
            model, text=text, context=context, tokens=tokens, against=against, threads=threads, progress=progress
        )
    emit(result, as_json, _eval_text)


def _eval_text(result: dict[str, Any]) -> str:
    end = (
        f"{result['text']}, by {result['runs_on']}; non-overlapping windows of {result['context']},"
        f" {'BOS in front of each' if result['prefix'] else 'no BOS'}, first token unscored"
    )
    if "kinds" in result:
        return _kinds_table(result["kinds"]) + end
    lines = [f"perplexity      {result['perplexity']:.4g}"]
    if result["kl"] is not None:
        lines += [f"KL              {result['kl']:.4g} nats a token", f"top-1 agreement {result['top1_agreement']:.1%}"]
    return "\n".join([*lines, f"{result['tokens']} tokens of {end}"])


def _kinds_table(kinds: dict[str, dict[str, Any]]) -> str:
    compared = all("ratio" in found for found in kinds.values())
    columns = ("kind", "perplexity", "tokens", *(("times", "KL", "top-1") if compared else ()))
    lines = [
        (
            kind,
            f"{found['perplexity']:.4g}",
            f"{found['tokens']:,}",
            *((f"{found['ratio']:.2f}x", f"{found['kl']:.3f}", f"{found['top1_agreement']:.1%}") if compared else ()),
        )
        for kind, found in kinds.items()
    ]
    if compared:
        times = {kind: found["ratio"] for kind, found in kinds.items()}
        worst = max(times, key=times.__getitem__)
        lines.append(("mean", "", "", f"{sum(times.values()) / len(times):.2f}x", "", ""))
        lines.append((f"worst: {worst}", "", "", f"{times[worst]:.2f}x", "", ""))
    return render(columns, lines)


def _datasets_text(result: dict[str, Any]) -> str:
    from tercet.evaluate.picture_rows import table

    lines = ["* the metric that papers give of the dataset; intervals by paired bootstrap"]
    for dataset in result["datasets"]:
        line = f"{dataset['name']}: {dataset['pictures']:,} pictures"
        if dataset["refused"]:
            first = dataset["refusals"][0]
            line += f", {dataset['refused']} refused; the first: {first['picture']}: {first['reason']}"
        if dataset["learned"] is not None:
            line += f"; the probe learned from {dataset['learned']:,}"
            line += f", {dataset['unlearned']:,} refused" if dataset["unlearned"] else ""
        lines.append(line)
    if len(result["datasets"]) > 1:
        means = ", ".join(f"{name} {value:.1%}" for name, value in result["mean"].items())
        lines.append(f"mean of the marked metrics over {len(result['datasets'])} datasets: {means}")
    if result["plot"] is not None:
        lines.append(f"wrote {result['plot']}")
    return render(*table(result["datasets"])) + "\n".join(lines)


def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Packed folder to time.")],
    prefill: Annotated[int, typer.Option("--prefill", min=1, help="Number of tokens in the prompt.")] = 512,
    decode: Annotated[
        int, typer.Option("--decode", min=1, help="Number of tokens to generate after the prompt.")
    ] = 128,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Number of rounds to count, after one warm-up.")] = 5,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure prefill and decode speed, resident memory and load time of the engine."""
    from tercet.evaluate.bench import bench as run
    from tercet.evaluate.machine import machine

    with progress_bar() as progress:
        result = run(folder, prefill=prefill, decode=decode, rounds=rounds, threads=threads, progress=progress)
    emit({**result, "machine": machine()}, as_json, _bench_text)


def _bench_text(result: dict[str, Any]) -> str:
    lines = [
        f"{name:8} {result[f'{name}_tokens_per_s']:9.1f} tokens/s   quartiles"
        f" {result[f'{name}_quartiles'][0]:.1f} - {result[f'{name}_quartiles'][1]:.1f}   ({result[name]} tokens)"
        for name in ("prefill", "decode")
    ]
    return "\n".join(
        [
            *lines,
            f"resident {result['resident_mb']:9.1f} MB         and {result['kv_mb']:.1f} MB of KV cache"
            f" at context {result['context']}",
            f"load     {result['load_s'] * 1000:9.1f} ms",
            f"{result['threads']} threads, {result['isa']}, {result['machine']['cpu']}, {result['rounds']} rounds",
        ]
    )


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Packed folder to check.")],
    tokens: Annotated[
        int, typer.Option("--tokens", min=2, help="Number of tokens in the sequence that logits are compared on.")
    ] = 32,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Check the checksums, and this CPU's kernels against a float reference, layer by layer and at the logits."""
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
