"""Values of options: their ranges, how they are written, and which are refused by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_parts import EM, FLAGS, URL, refused

from mj_mcp.prompts import CHOICES, RANGES, Options, compile_prompt
from mj_mcp.prompts.options import ARGUMENTS, CLASHES, OPTION, OPTIONS, QUALITIES


@pytest.mark.parametrize("name", RANGES)
@given(data=st.data())
def test_a_number_outside_its_range_is_refused_by_name_and_range(name: str, data: st.DataObject) -> None:
    span = RANGES[name]
    value = data.draw(
        st.integers(max_value=span.low - 1)
        | st.integers(min_value=span.high + 1)
        | st.sampled_from([float("nan"), float("inf"), float("-inf"), span.low - 0.5, span.high + 0.5])
    )
    rest: dict[str, Any] = {"image_urls": (URL,), "style_reference": ("1",), "omni_reference": URL}
    said = refused("a cat", **{**rest, name: value})
    whole = "whole " if span.whole else ""
    assert said.startswith(f"`{name}` must be a {whole}number between {span.low} and {span.high} (got ")


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_a_range_are_allowed(name: str) -> None:
    rest: dict[str, Any] = {"image_urls": (URL,), "style_reference": ("1",), "omni_reference": URL}
    for value in (RANGES[name].low, RANGES[name].high):
        text = compile_prompt("a cat", Options(**{**rest, name: value})).text
        assert f"--{FLAGS[name][0]} {value}" in text


@pytest.mark.parametrize("name", [name for name, span in RANGES.items() if span.whole])
@pytest.mark.parametrize("value", [1.5, 2.0, True])
def test_a_whole_number_is_not_a_fraction_or_a_truth(name: str, value: Any) -> None:
    assert f"`{name}` must be a whole" in refused("a cat", style_reference=("1",), omni_reference=URL, **{name: value})


def test_the_table_has_a_row_for_every_argument_and_a_flag_for_one_option_only() -> None:
    assert [option.key for option in OPTIONS if option.key in ARGUMENTS] == [field.name for field in fields(Options)]
    assert set(RANGES) | set(CHOICES) <= ARGUMENTS
    assert {option.needs for option in OPTIONS} - {None} <= set(OPTION)
    assert {key for clash in CLASHES for key in (clash.one, clash.other)} <= set(OPTION)
    names = [name for option in OPTIONS for name in option.flags]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("quality", [*QUALITIES, 1, 2, 4])
def test_a_quality_is_written_without_exponent_or_trailing_zeros(quality: float) -> None:
    assert compile_prompt("x", Options(quality=quality)).text == f"x --q {quality:g}"


@pytest.mark.parametrize(
    ("weight", "written"),
    [(0.0, "0"), (-0.0, "0"), (1.0, "1"), (0.5, "0.5"), (3, "3"), (1e-7, "0.0000001"), (2.25, "2.25")],
)
def test_a_weight_is_written_without_exponent_sign_or_trailing_zeros(weight: float, written: str) -> None:
    text = compile_prompt("x", Options(image_urls=(URL,), image_weight=weight)).text
    assert text == f"{URL} x --iw {written}"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("aspect_ratio", r) for r in ("", "16", "16/9", "0:1", "1:0", "-1:2", "1.5:1", "16:9 ", "15:1", "1:15")),
        *(("aspect_ratio", r) for r in ("016:9", "1:1 --r 4", "\u0661:1", "9" * 5000 + ":1", "1:1\n")),
        *(("version", v) for v in ("", "9", "v7", "7.0", "7 --r 4", "niji")),
        *(("niji", v) for v in ("", "8", "7.0")),
        *(("quality", q) for q in (0.0, 0.3, 3.0, -1.0, float("nan"), float("inf"))),
        *(("image_urls", (u,)) for u in ("", "ftp://x/y", "https://", "https:///y", f"{URL},", f"{URL} b")),
        *(("image_urls", (u,)) for u in (f"{URL}\n", f" {URL}", f"{URL}\u200b", f"{URL}\u00a0--r")),
        *(("image_urls", (u,)) for u in ("https://x/\ud800", "https://x/" + "a" * 9000)),
        *(("omni_reference", u) for u in ("", "random", "123", f"{URL} {URL}", f"{URL},{URL}", f"{URL} --r 4")),
        *(("style_reference", (s,)) for s in ("", "Random", "12345678901", "-1", "1 --r 4", "1.5", "\u0661", "1,2")),
        *(("no", (n,)) for n in ("", " ", "\u3000", "a,b", "a --r 4", "--r", "a--b", f"a {EM}r 4", "a\nb", "a\u202eb")),
        *(("no", (n,)) for n in ("a\ud800", "x" * 9000, "a \uff0d\uff0dar 4", "a \u2212\u2212ar 4")),
        *(("profile", (p,)) for p in ("", "a b", "--r", "a-b", "a,b", f"a{EM}r", "\u0661")),
        *(("speed", s) for s in ("", "slow", "Fast", "fast --r 4")),
    ],
)
def test_an_impossible_value_is_refused_by_name(argument: str, value: Any) -> None:
    said = refused("a cat", **{argument: value})
    assert said.startswith(f"`{argument}` must be ")
    assert said.isprintable()


@pytest.mark.parametrize("ratio", ["14:1", "1:14", "1920:1080", "1:1", "999999:999999"])
def test_a_ratio_up_to_14_to_1_passes_either_way_up(ratio: str) -> None:
    assert compile_prompt("x", Options(aspect_ratio=ratio)).text == f"x --ar {ratio}"


@pytest.mark.parametrize("item", [f"rock{EM}paper", "semi-nude", "{a}", f"a {EM} b", "http://x"])
def test_an_unwanted_thing_may_hold_other_signs(item: str) -> None:
    assert compile_prompt("x", Options(no=(item,))).text == f"x --no {item}"
