"""`make docs`: docs/cli.md from the commands themselves, tables from raw results, and a check of all links."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import typer
from matplotlib.figure import Figure
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from speed import report as speed
from tercet.cli import app
from tercet.demo.page import plots
from tercet.evaluate.rows import Row, markdown, number
from tercet.recipe import Calibrate, ClipDistil, Distil, Evaluate, Recipe, Reconstruct, Rule, Train, names

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "demo.json"
HOUR = ROOT / "benchmarks" / "results" / "smollm2-hour.json"
QUANTIZERS = ROOT / "benchmarks" / "results" / "quantizers.json"
SETTINGS: dict[type[BaseModel], str] = {
    Recipe: "",
    Rule: "rules",
    Calibrate: "calibrate",
    Reconstruct: "calibrate.reconstruct",
    Distil: "distil",
    ClipDistil: "distil, of an image-text model",
    Train: "train",
    Evaluate: "evaluate",
}  # by where in a recipe they stand
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
            f"    tercet {name} {arguments} {_required(command)}".rstrip(),
            "",
        ]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        parts += ["| option | what | default |", "| --- | --- | --- |"]
        parts += [
            f"| `{' / '.join([', '.join(o.opts), *o.secondary_opts])}` | {o.help or ''} | {_default(o)} |"
            for o in options
            if o.name != "help"
        ]
        parts.append("")
    return "\n".join(parts)


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _required(command: Any) -> str:
    """The options that a command cannot do without."""
    needed = [parameter for parameter in command.params if parameter.param_type_name == "option" and parameter.required]
    return " ".join(f"{parameter.opts[0]} {parameter.metavar or parameter.name.upper()}" for parameter in needed)


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    return "" if value is None or value is False or callable(value) else f"`{value}`"


def recipes_page() -> str:
    """docs/recipes.md: the recipes that ship, and every field of a recipe out of its class's docstring."""
    lines = [
        "# Recipes",
        "",
        "A recipe is a YAML or JSON file: what each matrix becomes, how the model is calibrated and trained, how the",
        "result is measured. Unknown fields are refused, and so are fields that a model's kind does not read.",
        "Written by `make docs`.",
        "",
        "## Recipes that ship",
        "",
        "| `--recipe` | what it does |",
        "| --- | --- |",
        *(f"| `{name}` | {Recipe.load(name).description} |" for name in names()),
        "",
    ]
    for kind, where in SETTINGS.items():
        first, _, rest = inspect.getdoc(kind).partition("Attributes:")  # type: ignore[union-attr]
        told = dict(_attributes(rest))
        lines += [f"## `{where}`" if where else "## A recipe", "", " ".join(first.split()), ""]
        lines += ["| field | default | what |", "| --- | --- | --- |"]
        for name, field in kind.model_fields.items():
            lines.append(f"| `{name}` | {_shown(field)} | {told.get(name, '')} |")
        lines.append("")
    return "\n".join(lines)


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    """(field, what it is) of a docstring's list; several fields may share a line."""
    entries = re.split(r"\n(?=    \w)", "\n" + text.strip("\n"))
    for entry in entries:
        named, found, what = entry.strip().partition(":")
        for name in re.split(r", |; ", named) if found else ():
            yield name.strip(), " ".join(what.split()).replace("|", "\\|")


def _shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "as below" if isinstance(field.default, BaseModel) else f"`{field.default}`" if field.default != "" else ""


def fill_table(readme: str, results: dict[str, Any]) -> str:
    """A page with the table of benchmarks/results/demo.json between its two marks."""
    rows = [Row(**row) for row in results["rows"]]
    about = results["machine"]
    where = f"{about['cpu']}, {about['threads']} threads, {about['isa']}, {results['date']}."
    return TABLE.sub(lambda mark: f"{mark[1]}\n{markdown(rows)}\n{results['protocol']} {where}\n{mark[2]}", readme)


def quantizers_page(results: dict[str, Any]) -> str:
    """docs/quantizers.md: all quantizers in one table, and k-means by iteration."""
    original = results["rows"][0]
    about = results["machine"]
    lines = [
        "# Quantizers compared",
        "",
        "SmolLM2-135M-Instruct, embeddings int8, the largest group that fits (64). Perplexity, KL and top-1 agreement"
        f" with the original on {original['tokens']:,} tokens of the default text's test split, windows of"
        f" {original['context']}; calibration on {results['calibration_tokens']:,} tokens of its train split."
        f" Written by `make docs` from what `{results['command']}` measured; {about['cpu']},"
        f" {about['threads']} threads, {results['date']}.",
        "",
        "| quantizer | perplexity | against original | KL | top-1 | bits/ternary weight | zeros |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in results["rows"]:
        cells = [
            row["name"],
            number(row["perplexity"]),
            f"{number(row['perplexity'] / original['perplexity'])}x",
            number(row["kl"]),
            f"{row['top1_agreement']:.1%}",
            number(row["bits_per_ternary_weight"]),
            "-" if row["zero_share"] is None else f"{row['zero_share']:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    series = ", ".join(f"{value:.4f}" for value in results["kmeans_relative_error"])
    lines += [
        "",
        "`kmeans` by iteration, a scale for each row: the mean of sum (W - m*T)^2 / sum W^2 over the matrices of every",
        f"fifth block (`kmeans_history`; Crulis et al., Figure 2): {series}.",
        "",
        "![relative error of k-means by iteration](kmeans.svg)",
        "",
    ]
    return "\n".join(lines)


def kmeans_plot(errors: list[float], place: Path) -> None:
    with matplotlib.rc_context({"svg.hashsalt": "tercet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(len(errors)), errors, marker="o")
        axes.set(xlabel="iteration", ylabel="relative quantization error", ylim=(0, None))
        axes.grid(True, alpha=0.3)
        figure.savefig(place, format="svg", metadata={"Date": None})


def hour_plot(results: dict[str, Any], place: Path) -> None:
    """The divergence while `smollm2-hour` trains."""
    curve = results["curve"]
    with matplotlib.rc_context({"svg.hashsalt": "tercet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([point["tokens"] / 1000 for point in curve], [point["kl"] for point in curve])
        axes.set(xlabel="thousands of tokens distilled", ylabel="KL(original || model)", ylim=(0, None))
        axes.grid(True, alpha=0.3)
        figure.savefig(place, format="svg", metadata={"Date": None})


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
    (ROOT / "docs" / "recipes.md").write_text(recipes_page(), encoding="utf-8")
    readme = ROOT / "docs" / "results.md"
    if RESULTS.exists():
        measured = json.loads(RESULTS.read_text())
        readme.write_text(fill_table(readme.read_text(encoding="utf-8"), measured), encoding="utf-8")
        (ROOT / "docs" / "smollm2.svg").write_text(plots([Row(**row) for row in measured["rows"]]), encoding="utf-8")
    if QUANTIZERS.exists():
        results = json.loads(QUANTIZERS.read_text())
        (ROOT / "docs" / "quantizers.md").write_text(quantizers_page(results), encoding="utf-8")
        kmeans_plot(results["kmeans_relative_error"], ROOT / "docs" / "kmeans.svg")
    if HOUR.exists():
        hour_plot(json.loads(HOUR.read_text()), ROOT / "docs" / "hour.svg")
    if speed.RESULT.exists():
        speed.write(json.loads(speed.RESULT.read_text(encoding="utf-8")))
    problems = broken_links()
    print("\n".join([f"wrote {place.relative_to(ROOT)}", *problems]))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
