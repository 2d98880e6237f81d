"""What the command tells of itself: groups, sentences, suggestions, lists."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from command import result_of, tercet
from tercet import __version__
from tercet.cli import GROUPS, app
from tercet.families import FAMILIES
from tercet.recipe import Recipe, names

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_commands_come_in_groups() -> None:
    shown = tercet("--help").stdout
    places = [shown.index(f" {title} ") for title in GROUPS]
    assert places == sorted(places)
    for group, commands in GROUPS.items():
        for name in commands:
            assert COMMANDS[name].rich_help_panel == group
    assert set(COMMANDS) == {name for commands in GROUPS.values() for name in commands}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_is_a_sentence_that_stands_alone(name: str) -> None:
    for parameter in COMMANDS[name].params:
        said = parameter.help
        assert said, parameter.name
        assert said.endswith("."), said
        assert said[0].isupper(), said
        assert not said.startswith(("Of ", "The recipe's")), said
        assert len(said.split()) > 2, said


def test_a_near_miss_suggests_the_right_command() -> None:
    for wrong, right in {"quantise": "quantize", "evaluate": "eval", "serch": "search"}.items():
        refused = tercet(wrong)
        assert refused.exit_code == 2
        assert f"Did you mean '{right}'" in refused.stderr


def test_version() -> None:
    shown = tercet("--version")
    assert (shown.exit_code, shown.stdout) == (0, f"tercet {__version__}\n")


def test_recipes_and_models_are_listed() -> None:
    assert result_of("recipes")["recipes"] == {name: Recipe.load(name).description for name in names()}
    assert all(name in tercet("recipes").stdout for name in names())
    assert list(result_of("models")["models"]) == list(FAMILIES)
    assert all(name in tercet("models").stdout for name in FAMILIES)
