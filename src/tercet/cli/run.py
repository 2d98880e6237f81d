"""Commands that run a packed language model: generate, chat. No torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tercet.cli.common import AsJson, Kv, Threads, emit, typer
from tercet.cli.streams import result_written
from tercet.errors import EngineError

if TYPE_CHECKING:
    from tercet.runtime import Engine, Sampling, Sequence, Tokenizer

__all__ = ["chat", "generate"]

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Packed folder of a language model.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Number of tokens to generate at most.")]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0, max=100, help="Sampling temperature; 0 always takes the likeliest token."),
]
TopK = Annotated[int, typer.Option("--top-k", min=0, help="Sample among this many likeliest tokens; 0 takes all.")]
TopP = Annotated[
    float, typer.Option("--top-p", min=0, max=1, help="Sample among the likeliest tokens of this total probability.")
]
MinP = Annotated[
    float, typer.Option("--min-p", min=0, max=1, help="Drop tokens less likely than this times the best one.")
]
Penalty = Annotated[
    float,
    typer.Option(
        "--repetition-penalty", min=0.01, max=100, help="Penalty on tokens that came before; above 1 repeats less."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed; the same seed gives the same text.")]
Speculate = Annotated[
    bool,
    typer.Option(
        "--speculate/--no-speculate", help="Compute likely tokens ahead where that is faster; the text stays the same."
    ),
]
Stop = Annotated[list[str] | None, typer.Option("--stop", help="Text to stop before, may be given several times.")]


def generate(
    folder: Folder,
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    speculate: Speculate = True,
    kv: Kv = "float16",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Continue a text, printed as it is generated."""
    from tercet.runtime import Engine, Tokenizer

    sampling = _sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens)
    text = sys.stdin.read().removeprefix("\ufeff") if prompt == "-" else prompt
    engine, tokenizer = Engine.open(folder, threads=threads, kv=kv), Tokenizer.open(folder)
    ids = tokenizer.encode(text)
    if not ids:
        raise typer.BadParameter("the prompt is empty; give some text to go on from")
    reply = Reply(engine, tokenizer, ids, sampling, stop or [], speculate)
    _stream(reply, show=not as_json)
    if as_json:
        emit({"text": reply.text, "tokens": reply.tokens, "prompt_tokens": reply.prompt_tokens}, True, str)


def chat(
    folder: Folder,
    system: Annotated[str | None, typer.Option("--system", help="System message at the beginning of the chat.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    speculate: Speculate = True,
    kv: Kv = "float16",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Talk with a model by its own chat template.

    Each line is a message; Ctrl-D ends. With --json, each reply is one object.
    """
    from tercet.runtime import Engine, Tokenizer

    sampling = _sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens)
    engine, tokenizer = Engine.open(folder, threads=threads, kv=kv), Tokenizer.open(folder)
    messages = [{"role": "system", "content": system}] if system else []
    sequence = engine.new_sequence()  # what earlier turns computed is not computed again
    for line in _lines():
        messages.append({"role": "user", "content": line})
        reply = Reply(engine, tokenizer, tokenizer.apply_chat(messages), sampling, stop or [], speculate, sequence)
        _stream(reply, show=not as_json)
        if as_json:
            emit({"text": reply.text, "tokens": reply.tokens, "prompt_tokens": reply.prompt_tokens}, True, str)
        messages.append({"role": "assistant", "content": reply.text})


def _sampling(*settings: Any) -> Sampling:
    from tercet.runtime import Sampling

    try:
        return Sampling(*settings)
    except EngineError as error:
        raise typer.BadParameter(str(error)) from None


class Reply:
    """A generated text: iterate over it once for its pieces; then `text` and `tokens` are whole."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        prompt: list[int],
        sampling: Sampling,
        stop: list[str],
        speculate: bool,
        sequence: Sequence | None = None,
    ) -> None:
        self.text = ""
        self.tokens: list[int] = []
        self.prompt_tokens = len(prompt)
        self._decoder = tokenizer.stream(stop)
        self._ids: Iterator[int] = engine.generate(
            prompt, sampling, tokenizer.eos_ids, sequence=sequence, speculate=speculate
        )

    def __iter__(self) -> Iterator[str]:
        for token in self._ids:
            self.tokens.append(token)
            yield self._grow(self._decoder.push(token))
            if self._decoder.stopped:
                return
        yield self._grow(self._decoder.finish())

    def _grow(self, piece: str) -> str:
        self.text += piece
        return piece


def _stream(reply: Reply, show: bool) -> None:
    """Raises StorageError where stdout is full."""
    for piece in reply:
        if show:
            with result_written():
                sys.stdout.write(piece)
    if show:
        with result_written():
            sys.stdout.write("\n")


def _lines() -> Iterator[str]:
    """The user's messages; the prompt sign goes to stderr, so that stdout is the model's words alone."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line: Any = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip().removeprefix("\ufeff")
