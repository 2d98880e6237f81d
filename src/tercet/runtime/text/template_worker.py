"""The process that renders one chat template: started by `tercet.runtime.text.chat`, never imported.

A template comes with a model, so it is a stranger's program. Jinja's sandbox keeps it from Python's objects but not
from loops without end or "a" * 10**10; a process of its own can be limited in memory and time, whatever it does.
It renders as transformers does: the same blanks around blocks, loop controls, filters and globals.

One JSON object on stdin, one on stdout: {"text": ...} or {"error": ...}.
"""

import json
import resource
import sys
from typing import Any

MOST_OF_AN_ERROR = 2000  # characters: a template can raise a text as long as it may write, and the reader has no cap


def main() -> None:
    job = json.load(sys.stdin)
    sys.path.extend(job["path"])
    from jinja2.exceptions import TemplateError

    _limit(resource.RLIMIT_AS, job["memory_bytes"])
    _limit(resource.RLIMIT_CPU, job["seconds"])
    try:
        answer = {"text": _render(job)}
    except MemoryError:
        answer = {"error": "it needs too much memory"}
    except TemplateError as error:
        answer = {"error": str(error.message or type(error).__name__)}
    except Exception as error:  # a template can raise what it likes
        answer = {"error": f"{type(error).__name__}: {error}"}
    if "error" in answer:
        answer["error"] = answer["error"][:MOST_OF_AN_ERROR]
    json.dump(answer, sys.stdout)


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, hard))


def _render(job: dict[str, Any]) -> str:
    pieces: list[str] = []
    size = 0
    for piece in _environment().from_string(job["template"]).generate(**job["variables"]):
        size += len(piece)
        if size > job["characters"]:
            raise ValueError(f"it writes more than {job['characters']} characters")
        pieces.append(piece)
    return "".join(pieces)


def _environment() -> Any:
    import datetime

    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """{% generation %} marks the assistant's words for training; the text is its body."""

        tags = {"generation"}  # noqa: RUF012 (jinja declares it so)

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class PublicNamespace(Namespace):
        def __setitem__(self, name: str, value: Any) -> None:
            if str(name).startswith("_"):
                raise SecurityError("names of a namespace must not start with an underscore")
            super().__setitem__(name, value)

    def tojson(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **layout)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now, namespace=PublicNamespace)
    return environment


if __name__ == "__main__":
    main()
