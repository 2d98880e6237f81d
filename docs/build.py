"""`make docs`: docs/cli.md from the commands themselves, README's table from raw results, and a check of all links."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import typer

from tercet.cli import app
from tercet.evaluate.rows import Row, markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "demo.json"
TABLE = re.compile(r"(<!-- table:.*?-->).*?(<!-- end -->)", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def reference() -> str:
    group: Any = typer.main.get_command(app)
    parts = ["# Commands", "", "Written by `make docs`; exit codes are 0 done, 1 error, 2 usage, 130 interrupted.", ""]
    for name, command in group.commands.items():
        arguments = " ".join(parameter.metavar or parameter.name.upper() for parameter in _arguments(command))
        parts += [
            f"## tercet {name}",
            "",
            (command.help or "").strip(),
            "",
            f"    tercet {name} {arguments}".rstrip(),
            "",
        ]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        parts += ["| option | what | default |", "| --- | --- | --- |"]
        parts += [f"| `{', '.join(o.opts)}` | {o.help or ''} | {_default(o)} |" for o in options if o.name != "help"]
        parts.append("")
    return "\n".join(parts)


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    return "" if value is None or value is False or callable(value) else f"`{value}`"


def fill_table(readme: str, results: dict[str, Any]) -> str:
    """README with the table of benchmarks/results/demo.json between its two marks."""
    rows = [Row(**row) for row in results["rows"]]
    about = results["machine"]
    where = f"{about['cpu']}, {about['threads']} threads, {about['isa']}; {results['seconds'] / 60:.1f} minutes in all."
    return TABLE.sub(lambda mark: f"{mark[1]}\n{markdown(rows)}\n{results['protocol']} {where}\n{mark[2]}", readme)


def broken_links() -> list[str]:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    found = []
    for page in pages:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                found.append(f"{page.relative_to(ROOT)}: no such file: {target}")
    return found


def main() -> None:
    place = ROOT / "docs" / "cli.md"
    place.write_text(reference(), encoding="utf-8")
    readme = ROOT / "README.md"
    if RESULTS.exists():
        readme.write_text(
            fill_table(readme.read_text(encoding="utf-8"), json.loads(RESULTS.read_text())), encoding="utf-8"
        )
    problems = broken_links()
    print("\n".join([f"wrote {place.relative_to(ROOT)}", *problems]))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
