"""Commands that run a packed language model: generate, chat. No torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
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
TEMPERATURE = typer.Option(
    "--temperature", min=0, max=100, help="Sampling temperature; 0 always takes the likeliest token."
)
TOP_K = typer.Option("--top-k", min=0, help="Sample among this many likeliest tokens; 0 takes all.")
TOP_P = typer.Option("--top-p", min=0, max=1, help="Sample among the likeliest tokens of this total probability.")
MIN_P = typer.Option("--min-p", min=0, max=1, help="Drop tokens less likely than this times the best one.")
PENALTY = typer.Option(
    "--repetition-penalty", min=0.01, max=100, help="Penalty on tokens that came before; above 1 repeats less."
)
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed; the same seed gives the same text.")]
Speculate = Annotated[
    bool,
    typer.Option(
        "--speculate/--no-speculate", help="Compute likely tokens ahead where that is faster; the text stays the same."
    ),
]
TemplateArg = Annotated[
    list[str] | None,
    typer.Option(
        "--template-arg", metavar="NAME=VALUE", help="Argument for the chat template, may be given several times."
    ),
]
Stop = Annotated[list[str] | None, typer.Option("--stop", help="Text to stop before, may be given several times.")]


def generate(
    folder: Folder,
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    max_tokens: MaxTokens = 128,
    temperature: Annotated[float, TEMPERATURE] = 0.0,
    top_k: Annotated[int, TOP_K] = 0,
    top_p: Annotated[float, TOP_P] = 1.0,
    min_p: Annotated[float, MIN_P] = 0.0,
    repetition_penalty: Annotated[float, PENALTY] = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    speculate: Speculate = True,
    kv: Kv = "float16",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Continue a text, printed as it is generated."""
    from tercet.runtime import Engine, Sampling, Tokenizer

    sampling = _checked(
        lambda: Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens),
    )
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
    temperature: Annotated[float | None, TEMPERATURE] = None,
    top_k: Annotated[int | None, TOP_K] = None,
    top_p: Annotated[float | None, TOP_P] = None,
    min_p: Annotated[float | None, MIN_P] = None,
    repetition_penalty: Annotated[float | None, PENALTY] = None,
    seed: Seed = 0,
    stop: Stop = None,
    template_arg: TemplateArg = None,
    speculate: Speculate = True,
    kv: Kv = "float16",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Talk with a model by its own chat template.

    Each line is a message; Ctrl-D ends. Sampling is what the model's makers recommend (generation_config.json) where no
    option says otherwise, and greedy where they say nothing. With --json, each reply is one object.
    """
    from tercet.runtime import Engine, Sampling, Tokenizer

    arguments = _arguments(template_arg or [])
    chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    chosen |= {"repetition_penalty": repetition_penalty, "seed": seed, "max_tokens": max_tokens}
    sampling = _checked(lambda: Sampling.of(folder, **chosen))
    engine, tokenizer = Engine.open(folder, threads=threads, kv=kv), Tokenizer.open(folder)
    messages = [{"role": "system", "content": system}] if system else []
    sequence = engine.new_sequence()  # what earlier turns computed is not computed again
    for line in _lines():
        messages.append({"role": "user", "content": line})
        prompt = tokenizer.apply_chat(messages, arguments=arguments)
        reply = Reply(engine, tokenizer, prompt, sampling, stop or [], speculate, sequence)
        _stream(reply, show=not as_json)
        if as_json:
            emit({"text": reply.text, "tokens": reply.tokens, "prompt_tokens": reply.prompt_tokens}, True, str)
        messages.append({"role": "assistant", "content": reply.text})


def _checked(make: Callable[[], Sampling]) -> Sampling:
    try:
        return make()
    except EngineError as error:
        raise typer.BadParameter(str(error)) from None


def _arguments(given: list[str]) -> dict[str, Any]:
    """What --template-arg says: JSON where it is JSON, else text."""
    arguments: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"--template-arg {item[:80]!r}: give a name and a value, as enable_thinking=false")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments


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
