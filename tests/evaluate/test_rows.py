from dataclasses import replace

import pytest

from tercet.demo.page import page
from tercet.evaluate.rows import Row, markdown, table

SCORES = {"perplexity": 213.74, "kl": 1.9, "top1_agreement": 0.471}
ROW = Row("ternary <b>", "engine", 59.4, 3.51, SCORES, None, None, 61.0, 800.4, 120.2)
WORSE = replace(ROW, name="other", scores={"perplexity": 4.2e6, "top1_agreement": 0.0}, resident_mb=None)


def test_markdown_has_a_line_for_each_row() -> None:
    lines = markdown([ROW, WORSE]).splitlines()
    assert len(lines) == 4
    assert lines[2] == r"| ternary \<b\> | 213.7 | 1.900 | 47.1% | 3.51 | 59.4 | 61.0 | 800.4 | 120.2 | engine |"
    assert lines[3].split("|")[2:4] == [" 4,200,000 ", " - "]
    assert lines[3].split("|")[7] == " - "
    assert {line.count("|") for line in lines} == {11}


def test_scores_of_pictures_are_shares_and_called_as_people_do() -> None:
    scores = {"emoji text_to_image_r1": 0.5, "emoji recall": 0.25, "fashion-mnist top1": 1.0, "x_r2": 0.125}
    headings, (cells,) = table([Row("q", "engine", 1.5, 2.125, scores, ternary_share=0.8, zero_share=0.333)])
    assert headings == (
        "model",
        "emoji text to image R@1",
        "emoji mean R@1",
        "fashion-mnist top-1",
        "x R@2",
        "ternary",
        "zeros",
        "bits/weight",
        "file MB",
        "runs on",
    )
    assert cells == ("q", "50.0%", "25.0%", "100.0%", "12.5%", "80.0%", "33.3%", "2.12", "1.50", "engine")


def test_the_page_is_one_file_that_shows_everything_and_runs_nothing() -> None:
    pytest.importorskip("matplotlib")
    samples = {"ternary <b>": {"prompt": "<script>alert(1)</script>", "text": " a & b"}}
    html = page("Ti<tle", [ROW, replace(WORSE, resident_mb=61.0)], "protocol", samples, {"cpu": "x"})
    assert html.count("<svg") == 1
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html
    assert html.count("213.7") == 1
    assert "4,200,000" in html
    assert "file, MB" in html
    assert "resident memory, MB" in html
