"""What holds for every prompt and all options, over many examples."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prompt_parts import EM, FLAGS, flags_in, is_given, outcome, plain_words, possible_options, refused

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import MAX_PROBLEMS, Compiled, Options, compile_prompt


@given(plain_words, possible_options())
def test_possible_options_compile_to_pictures_then_words_then_each_flag_once_in_order(
    prompt: str, options: Options
) -> None:
    words = " ".join(prompt.split())
    text = compile_prompt(prompt, options).text
    head = " ".join((*options.image_urls, words))
    assert text == head or text.startswith(head + " --")
    assert "  " not in text
    assert text == text.strip()
    wanted = [
        f"--{options.speed if name == 'speed' else FLAGS[name][0]}"
        for name in FLAGS
        if is_given(getattr(options, name))
    ]
    assert flags_in(text) == wanted


@given(plain_words, possible_options())
@example("a mug", Options(image_urls=("http://a/",), image_weight=1.1754943508222875e-38))
def test_a_compiled_prompt_compiles_to_itself_and_takes_none_of_its_options_again(
    prompt: str, options: Options
) -> None:
    text = compile_prompt(prompt, options).text
    assert compile_prompt(text).text == text
    for name, value in asdict(options).items():
        if is_given(value) and name != "image_urls":
            assert f"`{name}` and `--{value if name == 'speed' else FLAGS[name][0]}` in the prompt set the same" in (
                refused(text, **{name: value})
            )


@given(st.text())
@example("\u200b")
@example("a \ud800")
@example("x --ar\u20281:1")
@example("\u201c/imagine prompt:'x'\u201d")
def test_any_text_is_either_refused_by_name_or_comes_out_clean_and_stable(prompt: str) -> None:
    answer = outcome(prompt)
    if isinstance(answer, InvalidRequest):
        assert all("prompt" in problem for problem in answer.problems)
        return
    assert not [c for c in answer.text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert answer.text == " ".join(answer.text.split())
    assert compile_prompt(answer.text).text == answer.text


smuggled = st.text(st.sampled_from("ab -{},\\\t\n\u200b\u202e\u2014\u2013\u00a0.:/r4"), max_size=25).map(
    lambda tail: f"https://x/{tail}"
) | st.text(st.sampled_from("ab -{},\\\t\n\u200b\u202e\u2014\u2013\u00a0r4"), max_size=25)


@given(st.sampled_from(["no", "image_urls", "style_reference", "omni_reference"]), st.lists(smuggled, min_size=1))
def test_no_string_option_carries_a_second_flag_or_a_hidden_character(name: str, values: list[str]) -> None:
    answer = outcome("a cat", **{name: values[0] if name == "omni_reference" else tuple(values)})
    if isinstance(answer, InvalidRequest):
        assert all(f"`{name}`" in problem or "`prompt`" in problem for problem in answer.problems)
        return
    assert flags_in(answer.text) == ([f"--{FLAGS[name][0]}"] if name in FLAGS else [])
    assert not [c for c in answer.text if unicodedata.category(c) in {"Cc", "Cf"}]


WALLS = [
    *(sign * 8000 for sign in "\uff0d\u2212\"'\\,}:"),
    *(
        text * (8000 // len(text))
        for text in (" --a", " --ar 1:1", " --ar x", "{a,", "{a,b}", "/imagine ", " --sref 1")
    ),
    *(text * (8000 // len(text)) for text in ("\u201c\u00ab", "a::", " mj://", "\\{", f" {EM}no a", " --v", "\ufdfa")),
    " ".join(f"--{a}{b}{c}" for a in "abcdefghijkl" for b in "abcdefghijk" for c in "abcdefghijk"),
    " --a" + "-_" * 4000,
    " --" + "a-" * 4000,
    " --sref " + "1 " * 4000,
]


@pytest.mark.parametrize(
    "wall", [EM * 8000, "-" * 8000, "{" * 8000, "--a=" * 2000, "--a=" * 100_000, f"-{EM}" * 4000, *WALLS]
)
@pytest.mark.timeout(10)
def test_a_wall_of_signs_is_answered_at_once(wall: str) -> None:
    for answer in (outcome("x" + wall), outcome("x", no=(wall,))):
        assert isinstance(answer, Compiled) or len(answer.problems) <= MAX_PROBLEMS
        assert isinstance(answer, Compiled) or len(answer.message) < 20_000
