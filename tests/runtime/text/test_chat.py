"""Chat templates: rendered as transformers does, and caged whatever they try."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tercet.errors import FormatError
from tercet.runtime import render

MESSAGES = [{"role": "system", "content": " be brief "}, {"role": "user", "content": '<b>\u00fc & "hi"</b>'}]

TEMPLATES = [
    "{% for m in messages %}\n    {{ m.role }}: {{ m.content | trim }}\n{% endfor %}",
    "{%- for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m['content'] }}{% endfor %}",
    "{{ messages | tojson }} {{ messages[1] | tojson(indent=2) }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ bos_token }}",
    "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[1].content.split('&')[0]) }}",
    "{{ dict(a=1) }}{% if add_generation_prompt %}go{% endif %}{{ tools is none }}{{ missing is defined }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_as_transformers(template: str) -> None:
    expected, _ = render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True, bos_token="<s>")
    variables = {
        "messages": MESSAGES,
        "add_generation_prompt": True,
        "bos_token": "<s>",
        "tools": None,
        "documents": None,
    }
    assert render(template, variables) == expected[0]


ATTACKS = {
    "attribute access": "{{ ''.__class__.__mro__ }}",
    "code of a macro": "{{ namespace.__init__.__globals__ }}",
    "writing to the messages": "{{ messages.append(1) }}",
    "underscore in a namespace": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "range": "{{ range(10**9) | list }}",
    "a huge string": "{{ 'a' * 10**11 }}",
    "padding": "{{ 'a' | center(10**11) }}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "huge output": "{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "an include": "{% include '/etc/passwd' %}",
    "syntax": "{% for",
    "its own refusal": "{{ raise_exception('no system role') }}",
}


def test_a_long_error_is_cut_by_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller has no cap of memory."""
    answers: list[bytes] = []
    run = subprocess.run

    def watched(*arguments: Any, **options: Any) -> Any:
        done = run(*arguments, **options)
        answers.append(done.stdout)
        return done

    monkeypatch.setattr(subprocess, "run", watched)
    for size in (10**6, 10**7):
        with pytest.raises(FormatError, match="a ba b"):
            render(f"{{{{ raise_exception('a b' * {size}) }}}}", {"messages": []})
    assert max(map(len, answers)) < 3000


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_end_in_one_line(attack: str) -> None:
    with pytest.raises(FormatError, match="chat template") as caught:
        render(ATTACKS[attack], {"messages": []})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception.__globals__ }}", "{{ '{0.__class__.__init__}'.format(messages) }}", "{{ [].__init__ }}"],
)
def test_what_is_hidden_is_empty(template: str) -> None:
    assert render(template, {"messages": []}) == ""


def test_a_loop_without_end_is_stopped() -> None:
    loop = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    with pytest.raises(FormatError, match=r"chat template: (stopped|not rendered)"):
        render(loop, {}, seconds=1)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x"])
def test_only_plain_values(value: Any) -> None:
    with pytest.raises(FormatError, match="plain JSON"):
        render("x", {"messages": [{"content": value}]})
