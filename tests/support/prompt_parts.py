"""What tests of prompts share: how they compile one, and options that can stand together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import RANGES, Compiled, Options, compile_prompt
from mj_mcp.prompts.options import ARGUMENTS, CLASHES, NIJI_VERSIONS, OPTIONS, QUALITIES, VERSIONS

URL = "https://example.org/a.png"
URL_2 = "https://example.org/b.png"
EM, EN = "\u2014", "\u2013"
FLAGS = {option.key: option.flags for option in OPTIONS if option.key in ARGUMENTS and option.flags}
DEFAULT = "V8.2, the default since July 2026,"
EVERYTHING: dict[str, Any] = {
    "aspect_ratio": "16:9",
    "version": "7",
    "niji": "6",
    "stylize": 250,
    "chaos": 5,
    "weird": 10,
    "seed": 0,
    "quality": 1.0,
    "raw": True,
    "tile": True,
    "no": ("text", "blue  sky"),
    "image_weight": 0.5,
    "style_reference": ("random", "123", URL_2),
    "style_weight": 0,
    "omni_reference": URL_2,
    "omni_weight": 1,
    "speed": "relax",
    "draft": True,
    "profile": ("m7345", "abc123"),
}


def refused(prompt: str, /, *extra_flags: str, **options: Any) -> str:
    """What is said against it."""
    with pytest.raises(InvalidRequest) as caught:
        compile_prompt(prompt, Options(**options), extra_flags=extra_flags)
    assert caught.value.message == " ".join(caught.value.problems)
    return caught.value.message


def compiled(text: str, *warnings: str) -> Compiled:
    """What comes of a prompt without pictures of ours."""
    return Compiled(text, text, warnings)


def outcome(prompt: str, **options: Any) -> Compiled | InvalidRequest:
    try:
        return compile_prompt(prompt, Options(**options))
    except InvalidRequest as error:
        return error


def flags_in(text: str) -> list[str]:
    """An oracle of its own: the words that start with two dashes."""
    return [word for word in text.split() if word.startswith("--")]


letters = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9)
tails = st.text("abrAB019_.~?&=-", max_size=20).filter(lambda tail: "--r" not in tail.lower())
urls = st.builds("{}://{}/{}".format, st.sampled_from(["http", "https"]), letters, tails)
codes = st.text("0123456789", min_size=1, max_size=10)
plain_words = st.text(st.sampled_from("abcdefgh ,.:;!?'éñ漢字"), min_size=1, max_size=60).filter(
    lambda s: bool(s.strip())
)
ranged = {
    name: st.integers(span.low, span.high) if span.whole else st.floats(span.low, span.high)
    for name, span in RANGES.items()
}


@st.composite
def possible_options(draw: st.DrawFn) -> Options:
    """Any options that can stand together."""
    strategies: dict[str, st.SearchStrategy[Any]] = {
        **ranged,
        "aspect_ratio": st.builds("{}:{}".format, st.integers(10, 140), st.integers(10, 140)),
        "quality": st.sampled_from(QUALITIES),
        "raw": st.just(True),
        "tile": st.just(True),
        "no": st.lists(st.builds("{} {}".format, letters, letters), min_size=1, max_size=3).map(tuple),
        "image_urls": st.lists(urls, min_size=1, max_size=3).map(tuple),
        "style_reference": st.lists(urls | codes | st.just("random"), min_size=1, max_size=3).map(tuple),
        "omni_reference": urls,
        "version": st.sampled_from(VERSIONS),
        "niji": st.sampled_from(NIJI_VERSIONS),
        "speed": st.sampled_from(["fast", "relax", "turbo"]),
        "draft": st.just(True),
        "profile": st.lists(letters, min_size=1, max_size=3).map(tuple),
    }
    names = draw(st.sets(st.sampled_from(sorted(strategies))))
    needs = {"image_weight": "image_urls", "style_weight": "style_reference", "omni_weight": "omni_reference"}
    names |= {needs[name] for name in names & needs.keys()}
    for clash in CLASHES:
        names -= {clash.other} if clash.one in names else set()
    if names & {"omni_reference", "draft"}:
        names -= {"niji"}
        strategies["version"] = st.just("7")
    return Options(**{name: draw(strategies[name]) for name in sorted(names)})


def is_given(value: object) -> bool:
    return value is not None and value is not False and value != ()
