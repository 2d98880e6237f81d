"""Commands that measure: eval, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, progress_bar, typer

__all__ = ["bench", "evaluate"]


def evaluate(
    model: Annotated[str, typer.Argument(metavar="SOURCE|DIR", help="A packed folder, or a float model.")],
    text: Annotated[
        str | None, typer.Option("--text", metavar="FILE", help="The default text's validation split if absent.")
    ] = None,
    context: Annotated[int, typer.Option("--context", min=2, help="Tokens a window.")] = 512,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=2, help="Tokens at most; the whole text if absent.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="SOURCE|DIR", help="The model that KL and top-1 refer to.")
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Perplexity on a text; with --against, KL divergence and top-1 agreement too."""
    from tercet.pipeline import evaluate as run

    with progress_bar() as progress:
        result = run(
            model, text=text, context=context, tokens=tokens, against=against, threads=threads, progress=progress
        )
    emit(result, as_json, _eval_text)


def _eval_text(result: dict[str, Any]) -> str:
    lines = [f"perplexity      {result['perplexity']:.4g}"]
    if result["kl"] is not None:
        lines += [f"KL              {result['kl']:.4g} nats a token", f"top-1 agreement {result['top1_agreement']:.1%}"]
    lines.append(
        f"{result['tokens']} tokens of {result['text']}, by {result['runs_on']}; non-overlapping windows of"
        f" {result['context']}, {'BOS in front of each' if result['prefix'] else 'no BOS'}, first token unscored"
    )
    return "\n".join(lines)


def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A packed folder.")],
    prefill: Annotated[int, typer.Option("--prefill", min=1, help="Tokens of the prompt.")] = 512,
    decode: Annotated[int, typer.Option("--decode", min=1, help="Tokens generated after it.")] = 128,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds counted, after one warm-up.")] = 5,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Prefill and decode speed, resident memory and load time of the engine."""
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
