"""Chat templates: a stranger's jinja program, rendered under caps in a process of its own (`template_worker`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tercet.errors import FormatError

__all__ = ["render"]

CHARACTERS = 4_000_000  # of output
MEMORY_BYTES = 1 << 30  # of address space
SECONDS = 5  # of CPU time; four times as many by the clock, for a busy machine
WORKER = Path(__file__).with_name("template_worker.py")


def render(template: str, variables: Mapping[str, Any], *, seconds: int = SECONDS) -> str:
    """The text of a template, as transformers renders it.

    Args:
        variables: JSON-like: messages, add_generation_prompt, bos_token ...
        seconds: CPU time it may take.

    Raises FormatError where the template is wrong, refuses these messages (`raise_exception`) or exceeds a cap.
    """
    job = {
        "template": template,
        "variables": dict(variables),
        "path": [entry for entry in sys.path if entry],
        "characters": CHARACTERS,
        "memory_bytes": MEMORY_BYTES,
        "seconds": seconds,
    }
    # -I: the folder of the worker, which is this package, must not shadow what jinja imports.
    command = [sys.executable, "-I", str(WORKER)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=4 * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FormatError(f"chat template: not rendered within {4 * seconds} s; use a plain prompt") from None
    except (TypeError, ValueError) as error:
        raise FormatError(f"chat template: messages are not plain JSON values: {error}") from None
    if done.returncode != 0:
        raise FormatError(f"chat template: stopped after {seconds} s of CPU time or {MEMORY_BYTES >> 20} MB of memory")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise FormatError("chat template: " + " ".join(str(answer["error"]).split())[:300])
    text: str = answer["text"]
    return text
