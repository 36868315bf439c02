"""A prompt as a whole: what it needs, how long it may be, and what is cleaned from it."""

from __future__ import annotations

import pytest
from prompt_parts import EM, EVERYTHING, URL, URL_2, compiled, refused

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import MAX_PROBLEMS, MAX_PROMPT_CHARACTERS, Options, compile_prompt


def test_everything_at_once() -> None:
    options = Options(**{k: v for k, v in EVERYTHING.items() if k not in {"niji", "draft"}}, image_urls=(URL,))
    assert compile_prompt("a  red\n fox.", options) == compiled(
        f"{URL} a red fox. --ar 16:9 --v 7 --stylize 250 --chaos 5 --weird 10 --seed 0 --q 1 --raw --tile "
        f"--no text, blue sky --iw 0.5 --sref random 123 {URL_2} --sw 0 --oref {URL_2} --ow 1 --relax "
        "--profile m7345 abc123"
    )
    assert compile_prompt("x", Options(draft=True, version="7")) == compiled("x --v 7 --draft")


def test_all_problems_of_a_call_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_prompt("--chaos 500 --foo --ar 1:1 --s 1 --r 4", Options(weird=9999, stylize=2, no=("a,b", "c--d")))
    assert [problem.split("`")[1] for problem in caught.value.problems] == [
        *("--foo", "weird", "no", "no", "--chaos", "prompt", "stylize", "prompt")
    ]


def test_a_wall_of_problems_is_cut() -> None:
    unknown = " ".join(f"--x{letter}{other}" for letter in "abcdefgh" for other in "abcdefgh")
    with pytest.raises(InvalidRequest) as caught:
        compile_prompt(f"a cat {unknown}")
    assert len(caught.value.problems) == MAX_PROBLEMS


@pytest.mark.parametrize(
    "prompt", ["", " \n\t", "\u200b", URL, "--ar 16:9", f"{URL} --ar 1:1", f"{EM}ar 1:1", "\u3164", "--draft"]
)
def test_a_prompt_that_says_nothing_is_refused(prompt: str) -> None:
    assert "`prompt` must be words before any options, or at least two image URLs (got " in refused(prompt)


def test_pictures_stand_in_for_words_from_two_on() -> None:
    assert "at least two image URLs" in refused("", image_urls=(URL,))
    assert compile_prompt("", Options(image_urls=(URL, URL_2))).text == f"{URL} {URL_2}"
    assert compile_prompt(URL_2, Options(image_urls=(URL,))).text == f"{URL} {URL_2}"
    assert compile_prompt(f"{URL} {URL_2} --v 7").text == f"{URL} {URL_2} --v 7"
    assert compile_prompt("a cat", Options(image_urls=(URL,))).text == f"{URL} a cat"


def test_a_weight_needs_what_it_weighs_given_or_typed() -> None:
    for weight in ("image_weight", "style_weight", "omni_weight"):
        assert refused("a cat", **{weight: 1}).startswith(f"`{weight}` can be used only together with `")
    assert compile_prompt(f"{URL} a cat", Options(image_weight=1)).text == f"{URL} a cat --iw 1"
    assert compile_prompt("a cat --sref 1", Options(style_weight=1)).text == "a cat --sref 1 --sw 1"
    assert compile_prompt(f"a cat --oref {URL}", Options(omni_weight=1)).text == f"a cat --oref {URL} --ow 1"
    assert "`image_weight`" in refused(f"a cat {URL}", image_weight=1)


def test_the_limit_of_characters_counts_the_options() -> None:
    longest = "x" * (MAX_PROMPT_CHARACTERS - len(" --tile"))
    assert len(compile_prompt(longest, Options(tile=True)).text) == MAX_PROMPT_CHARACTERS
    assert refused(longest + "x", tile=True).startswith(
        "`prompt` must be at most 8192 characters with all options; this is 8193 (got "
    )
    assert "this is 8193" in refused("x" * 8193)
    assert compile_prompt(" " * 10_000 + "x").text == "x"


def test_hidden_characters_are_removed_and_reported_line_breaks_are_folded_silently() -> None:
    removed = "Invisible characters were removed from the prompt."
    assert compile_prompt("a\u200b \x00c\u202eat\U000e0041\ufeff") == compiled("a cat", removed)
    assert compile_prompt("a\r\n\tcat\u2028\u00a0now") == compiled("a cat now")
    assert "without lone surrogates" in refused("a \ud800")


@pytest.mark.parametrize(
    "front",
    ["/imagine prompt: ", "/imagine prompt:", "/IMAGINE ", "/imagine: ", "/imagine prompt ", "/imagine /imagine "],
)
def test_the_command_in_front_is_removed_with_a_warning(front: str) -> None:
    assert compile_prompt(f"{front}a cat --tile", Options(chaos=1)) == compiled(
        "a cat --tile --chaos 1", "`/imagine` in front of the prompt was removed."
    )


@pytest.mark.parametrize("quotes", ['""', "''", "``", "\u201c\u201d", "\u2018\u2019", "\u00ab\u00bb", "\u300c\u300d"])
def test_quotes_around_the_whole_are_removed_with_a_warning(quotes: str) -> None:
    removed = "The quotes around the prompt were removed."
    assert compile_prompt(f"{quotes[0]}a cat --tile{quotes[1]}") == compiled("a cat --tile", removed)
    assert compile_prompt(f"/imagine prompt: {quotes[0]} a cat {quotes[1]}") == compiled(
        "a cat", "`/imagine` in front of the prompt was removed.", removed
    )


@pytest.mark.parametrize(
    "prompt",
    ['"a" and "b"', '"a cat" --tile', "'it's a cat'", '"a cat', 'a sign "open"', "/imagined cats", "/imagine/x", "'"],
)
def test_words_that_only_resemble_a_command_or_quotes_stay(prompt: str) -> None:
    assert compile_prompt(prompt) == compiled(prompt)
