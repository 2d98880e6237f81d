"""A participant's process: answers one JSON request a line until its input ends.

    python -m speed.worker KIND [LIBRARY FOLDER, or RUNTIME FILE THREADS]

Runs under the peer's own Python as well, so it and what it imports need numpy only. What a library prints goes to
stderr: stdout carries answers.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def participant(kind: str, arguments: list[str]) -> Any:
    if kind == "products":
        from speed.products import Products

        return Products(Path(arguments[0]))
    if kind == "ggml":
        from speed.ggml import Products as Peer

        return Peer(Path(arguments[0]))
    if kind == "tower":
        from speed.tower_runtimes import Tower

        return Tower(*arguments)
    if kind == "engine":
        from speed.engine import Models

        return Models()
    from speed.llama import Models as PeerModels

    return PeerModels(kind)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    found = participant(sys.argv[1], sys.argv[2:])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": getattr(found, request["call"])(**request["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
