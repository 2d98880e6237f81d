"""Runs `tercet` in this process, stdout and stderr apart."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from tercet.cli import app

__all__ = ["result_of", "tercet"]


def tercet(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def result_of(*arguments: object, stdin: str | None = None) -> dict[str, Any]:
    """The JSON object that the command prints; nothing else may be on stdout."""
    result = tercet(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)
