from dataclasses import replace

import pytest

from tercet.demo.page import page
from tercet.evaluate.rows import Row, markdown

ROW = Row("ternary <b>", 213.74, 1.9, 0.471, 59.4, 61.0, 800.4, 120.2, 3.51, "engine")


def test_markdown_has_a_line_for_each_row() -> None:
    lines = markdown([ROW, replace(ROW, name="other", resident_mb=None, kl=None, perplexity=4.2e6)]).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| ternary <b> | 213.7 | 1.900 | 47.1% | 3.51 | 59.4 | 61.0 | 800.4 | 120.2 | engine |"
    assert lines[3].split("|")[2:4] == [" 4,200,000 ", " - "]
    assert {line.count("|") for line in lines} == {11}


def test_the_page_is_one_file_that_shows_everything_and_runs_nothing() -> None:
    pytest.importorskip("matplotlib")
    samples = {"ternary <b>": {"prompt": "<script>alert(1)</script>", "text": " a & b"}}
    html = page("Ti<tle", [ROW, replace(ROW, name="other", perplexity=4.2e6)], "protocol", samples, {"cpu": "x"})
    assert html.count("<svg") == 1
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html
    assert html.count("213.7") == 1
    assert "4,200,000" in html
    assert "file, MB" in html
    assert "resident memory, MB" in html
