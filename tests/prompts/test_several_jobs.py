"""Prompts that would be several jobs, and cost as many times as much."""

from __future__ import annotations

from typing import Any

import pytest
from prompt_parts import EM, EN, URL, compiled, refused

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import compile_prompt

DASHES = ["--", EM, EN, EM * 2, "---", f"{EM}-", *(2 * sign for sign in "\uff0d\u2212\ufe63\u2010\u2011"), "\ufe58"]


@pytest.mark.parametrize(
    "prompt",
    [
        *(f"a cat {dash}{name} 4" for dash in DASHES for name in ("repeat", "r", "R")),
        "a cat--r 4",
        "a cat --r4",
        "a cat --r=4",
        "a cat -- r 4",
        "a cat --re\u200bpeat 4",
        "a cat\n--repeat\n4",
        f"a cat{EM}repeat 4",
        f"{URL}--repeat 4 a cat",
        "a {red, blue} cat",
        "{a,} cat",
        "{a, {b}",
        "{a{b}, c}",
        "{a {b, c}}",
        "} {a, b}",
        r"\{ {a, b}",
        r"\\{a, b}",
        r"{a, b\} c}",
        "a {--ar 1:1, --ar 2:1} cat",
        "a \uff5bred\uff0cblue\uff5d cat",
        "a {red\u3001blue} cat",
        "a {red,\u200b blue} cat",
        "a \ufe5bred\ufe50blue\ufe5c cat",
        "a cat \uff0d\uff0d\uff52 4",
    ],
)
def test_a_prompt_that_multiplies_its_cost_needs_leave(prompt: str) -> None:
    said = refused(prompt)
    assert said.startswith("`prompt` must be one job; ")
    assert "allow_multiple=true" in said
    allowed = compile_prompt(prompt, allow_multiple=True)
    assert any("each is charged" in warning for warning in allowed.warnings)


def test_each_job_of_a_prompt_for_several_is_checked() -> None:
    def problems(prompt: str) -> tuple[str, ...]:
        with pytest.raises(InvalidRequest) as caught:
            compile_prompt(prompt, allow_multiple=True)
        return caught.value.problems

    good = "a {cat, dog {--ar 1:1, --ar 2:1}} --v {7, 8.1} --s {1, 2}"
    assert compile_prompt(good, allow_multiple=True).text == good
    assert "--ar" in "".join(problems("a cat --ar {1:1, 99:1}"))
    assert problems(f"a cat --v {{7, 8.1}} --oref {URL}") == (
        "`--oref` in the prompt cannot be used with V8.1: only V7 has it.",
    )
    assert problems("a {--ar 1:1, --tile} cat --ar 1:1")[0].startswith("`--ar` in the prompt is given more than once")
    assert problems(r"a cat --ar \{1:1, 2:1\}")[0].startswith("`--ar` in the prompt must be")
    assert compile_prompt("{" + ",".join("a" * 40) + "}", allow_multiple=True)
    for many in ("{" + "a," * 4000 + "}", "{a,b}" * 6, "{a,b}" * 1600):
        assert problems(many)[-1].startswith("`prompt` must be at most 40 jobs; ")


@pytest.mark.parametrize(
    "prompt",
    [
        r"a \{red, blue\} cat",
        r"a {red\, blue} cat",
        r"a {red, blue\} cat",
        "a {red} cat, {blue}",
        "a, b {c}",
        "{a, b",
        "a, b}",
        "cats--rarely 4",
        f"a road {EM} repeat pattern",
    ],
)
def test_a_prompt_for_one_job_needs_no_leave(prompt: str) -> None:
    assert compile_prompt(prompt) == compiled(prompt)


@pytest.mark.parametrize(
    "options", [{"no": ("{a", "b}")}, {"no": ("a}",)}, {"image_urls": ("https://x/{a", "https://x/b")}]
)
def test_a_permutation_cannot_be_put_together_from_options(options: dict[str, Any]) -> None:
    prompt = "a, b}" if "image_urls" in options else "a {b, c"
    assert refused(prompt, **options).startswith("`prompt` must be one job; a `{a, b}` group starts several")
