from __future__ import annotations

import unicodedata
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import (
    CHOICES,
    CONFLICTS,
    FLAGS,
    MAX_PROMPT_CHARACTERS,
    NIJI_VERSIONS,
    QUALITIES,
    RANGES,
    VERSIONS,
    Compiled,
    Options,
    compile_prompt,
)

URL = "https://example.org/a.png"
URL_2 = "https://example.org/b.png"
EM, EN = "\u2014", "\u2013"
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
}


def refused(prompt: str, **options: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        compile_prompt(prompt, Options(**options))
    return caught.value


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
    }
    names = draw(st.sets(st.sampled_from(sorted(strategies))))
    names -= {"niji"} if "version" in names else set()
    needs = {"image_weight": "image_urls", "style_weight": "style_reference", "omni_weight": "omni_reference"}
    names |= {needs[name] for name in names & needs.keys()}
    return Options(**{name: draw(strategies[name]) for name in sorted(names)})


def is_given(value: object) -> bool:
    return value is not None and value is not False and value != ()


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
    wanted = [f"--{FLAGS[name][0]}" for name in FLAGS if is_given(getattr(options, name))]
    assert flags_in(text) == wanted


@given(plain_words, possible_options())
def test_a_compiled_prompt_compiles_to_itself_and_takes_none_of_its_options_again(
    prompt: str, options: Options
) -> None:
    text = compile_prompt(prompt, options).text
    assert compile_prompt(text).text == text
    for name, value in asdict(options).items():
        if is_given(value) and name != "image_urls":
            with pytest.raises(InvalidRequest) as caught:
                compile_prompt(text, Options(**{name: value}))
            assert caught.value.argument == name


@given(st.text())
@example("\u200b")
@example("a \ud800")
@example("x --ar\u20281:1")
def test_any_text_is_either_refused_by_name_or_comes_out_clean_and_stable(prompt: str) -> None:
    compiled = outcome(prompt)
    if isinstance(compiled, InvalidRequest):
        assert compiled.argument == "prompt"
        return
    assert not [c for c in compiled.text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert compiled.text == " ".join(compiled.text.split())
    assert compile_prompt(compiled.text).text == compiled.text


smuggled = st.text(st.sampled_from("ab -{},\\\t\n\u200b\u202e\u2014\u2013\u00a0.:/r4"), max_size=25).map(
    lambda tail: f"https://x/{tail}"
) | st.text(st.sampled_from("ab -{},\\\t\n\u200b\u202e\u2014\u2013\u00a0r4"), max_size=25)


@given(st.sampled_from(["no", "image_urls", "style_reference", "omni_reference"]), st.lists(smuggled, min_size=1))
def test_no_string_option_carries_a_second_flag_or_a_hidden_character(name: str, values: list[str]) -> None:
    compiled = outcome("a cat", **{name: values[0] if name == "omni_reference" else tuple(values)})
    if isinstance(compiled, InvalidRequest):
        assert compiled.argument in {name, "prompt"}
        return
    assert flags_in(compiled.text) == ([f"--{FLAGS[name][0]}"] if name in FLAGS else [])
    assert not [c for c in compiled.text if unicodedata.category(c) in {"Cc", "Cf"}]


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
    error = refused("a cat", **{**rest, name: value})
    assert error.argument == name
    assert f"from {span.low} to {span.high}" in error.message


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_a_range_are_allowed(name: str) -> None:
    rest: dict[str, Any] = {"image_urls": (URL,), "style_reference": ("1",), "omni_reference": URL}
    for value in (RANGES[name].low, RANGES[name].high):
        text = compile_prompt("a cat", Options(**{**rest, name: value})).text
        assert f"--{FLAGS[name][0]} {value}" in text


@pytest.mark.parametrize("name", [name for name, span in RANGES.items() if span.whole])
@pytest.mark.parametrize("value", [1.5, 2.0, True])
def test_a_whole_number_is_not_a_fraction_or_a_truth(name: str, value: Any) -> None:
    assert refused("a cat", style_reference=("1",), omni_reference=URL, **{name: value}).argument == name


def test_the_table_of_flags_knows_every_option_but_the_pictures() -> None:
    assert list(FLAGS) == [field.name for field in fields(Options) if field.name != "image_urls"]
    assert {rule.argument for rule in CONFLICTS} | set(RANGES) | set(CHOICES) <= set(FLAGS)
    names = [name for names in FLAGS.values() for name in names]
    assert len(names) == len(set(names))


def test_everything_at_once() -> None:
    options = Options(**{k: v for k, v in EVERYTHING.items() if k != "niji"}, image_urls=(URL,))
    assert compile_prompt("a  red\n fox.", options) == Compiled(
        f"{URL} a red fox. --ar 16:9 --v 7 --stylize 250 --chaos 5 --weird 10 --seed 0 --q 1 --raw --tile "
        f"--no text, blue sky --iw 0.5 --sref random 123 {URL_2} --sw 0 --oref {URL_2} --ow 1"
    )


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
        *(("image_urls", (u,)) for u in ("", "ftp://x/y", "x", "https://", "https:///y", f"{URL},", f"{URL} b")),
        *(("image_urls", (u,)) for u in (f"{URL}\n", f" {URL}", f"{URL}\u200b", f"{URL}\u00a0--r", "javascript:x")),
        *(("image_urls", (u,)) for u in ("https://x/\ud800", "https://x/" + "a" * 9000)),
        *(("omni_reference", u) for u in ("", "random", "123", f"{URL} {URL}", f"{URL},{URL}", f"{URL} --r 4")),
        *(("style_reference", (s,)) for s in ("", "Random", "12345678901", "-1", "1 --r 4", "1.5", "\u0661", "1,2")),
        *(("no", (n,)) for n in ("", " ", "\u3000", "a,b", "a --r 4", "--r", "a--b", f"a {EM}r 4", "a\nb", "a\u202eb")),
        *(("no", (n,)) for n in ("a\ud800", "x" * 9000)),
    ],
)
def test_an_impossible_value_is_refused_by_name(argument: str, value: object) -> None:
    error = refused("a cat", **{argument: value})
    assert error.argument == argument
    assert error.message.startswith(f"`{argument}` was ")
    assert error.message.isprintable()


@pytest.mark.parametrize("ratio", ["14:1", "1:14", "1920:1080", "1:1", "999999:999999"])
def test_a_ratio_up_to_14_to_1_passes_either_way_up(ratio: str) -> None:
    assert compile_prompt("x", Options(aspect_ratio=ratio)).text == f"x --ar {ratio}"


@pytest.mark.parametrize("item", [f"rock{EM}paper", "semi-nude", "{a}", f"a {EM} b", "http://x"])
def test_an_unwanted_thing_may_hold_other_signs(item: str) -> None:
    assert compile_prompt("x", Options(no=(item,))).text == f"x --no {item}"


@pytest.mark.parametrize(
    ("argument", "flag"),
    [(argument, name) for argument, names in FLAGS.items() for name in names] + [("raw", "style raw")],
)
@pytest.mark.parametrize("dash", ["--", "---", EM, EN, EM * 2, "a cat,--", f"a cat,{EM}"])
def test_an_option_typed_and_given_is_refused_under_every_alias_and_dash(argument: str, flag: str, dash: str) -> None:
    for typed in (flag, flag.upper()):
        error = refused(f"{URL} a cat {dash}{typed} 5", **{argument: EVERYTHING[argument]})
        assert error.argument == argument
        assert "already has" in error.message


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("a cat --niji 6", {"version": "7"}),
        ("a cat --niji", {"version": "7"}),
        ("a cat --v 7", {"niji": "6"}),
        ("a cat --v7", {"version": "7"}),
        ("a cat --version=7", {"niji": "6"}),
        ("a cat", {"niji": "6", "version": "7"}),
    ],
)
def test_version_and_niji_exclude_each_other_wherever_they_are_given(prompt: str, options: dict[str, Any]) -> None:
    assert refused(prompt, **options).argument in options


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat --ar 1:1 --ar 16:9",
        "a cat --draft --fast --cref https://x/y --cw 5",
        "a wall--the gate",
        "a cat --style cute",
        f"a wall{EM}no gate",
        "a cat --stylize-me",
        "a --northern light",
        "https://x/a--ar_16.png a cat",
        "a cat --ar nonsense --v 99",
    ],
)
def test_what_is_typed_stays_as_it_is(prompt: str) -> None:
    options = Options(aspect_ratio="1:1") if "--ar " not in prompt else Options()
    text = compile_prompt(prompt, options).text
    assert text.removesuffix(" --ar 1:1") == prompt
    more = Options(no=("x",), raw=True, stylize=1)
    assert compile_prompt(prompt, more).text == f"{prompt} --stylize 1 --raw --no x"


@pytest.mark.parametrize("dash", [EM, EN, EM * 2, f"-{EN}"])
def test_a_typographic_dash_before_a_known_flag_stays_and_is_warned_about_once(dash: str) -> None:
    compiled = compile_prompt(f"a cat {dash}ar 1:1 {dash}ar 1:1 {EM}the end")
    assert compiled == Compiled(
        f"a cat {dash}ar 1:1 {dash}ar 1:1 {EM}the end",
        (f"`{dash}ar` may not be understood: Midjourney flags start with `--`.",),
    )


@pytest.mark.parametrize(
    "prompt",
    [
        *(f"a cat {dash}{name} 4" for dash in ("--", EM, EN, EM * 2, "---", f"{EM}-") for name in ("repeat", "r", "R")),
        "a cat --repeat",
        "a cat--r 4",
        "a cat --r4",
        "a cat --r=4",
        "a cat -- r 4",
        "a cat --re\u200bpeat 4",
        "a cat\n--repeat\n4",
        f"a cat{EM}repeat 4",
        f"{URL}--repeat 4 a cat",
        "a {red, blue} cat",
        "{a,}",
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
    ],
)
def test_a_prompt_that_multiplies_its_cost_needs_leave(prompt: str) -> None:
    error = refused(prompt)
    assert error.argument == "prompt"
    assert "allow_multiple=true" in error.message
    compiled = compile_prompt(prompt, allow_multiple=True)
    assert any("each is charged" in warning for warning in compiled.warnings)


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
    assert compile_prompt(prompt) == Compiled(prompt)


@pytest.mark.parametrize(
    "options", [{"no": ("{a", "b}")}, {"no": ("a}",)}, {"image_urls": ("https://x/{a", "https://x/b")}]
)
def test_a_permutation_cannot_be_put_together_from_options(options: dict[str, Any]) -> None:
    prompt = "a, b}" if "image_urls" in options else "a {b, c"
    error = refused(prompt, **options)
    assert (error.argument, "allow_multiple=true" in error.message) == ("prompt", True)


@pytest.mark.parametrize(
    "prompt", ["", " \n\t", "\u200b", URL, "--ar 16:9", f"{URL} --ar 1:1", f"{EM}ar 1:1", "\u3164", "--draft"]
)
def test_a_prompt_that_says_nothing_is_refused(prompt: str) -> None:
    assert refused(prompt).argument == "prompt"


def test_pictures_stand_in_for_words_from_two_on() -> None:
    assert refused("", image_urls=(URL,)).argument == "prompt"
    assert compile_prompt("", Options(image_urls=(URL, URL_2))).text == f"{URL} {URL_2}"
    assert compile_prompt(URL_2, Options(image_urls=(URL,))).text == f"{URL} {URL_2}"
    assert compile_prompt(f"{URL} {URL_2} --v 7").text == f"{URL} {URL_2} --v 7"
    assert compile_prompt("a cat", Options(image_urls=(URL,))).text == f"{URL} a cat"


def test_a_weight_needs_what_it_weighs_given_or_typed() -> None:
    for weight in ("image_weight", "style_weight", "omni_weight"):
        error = refused("a cat", **{weight: 1})
        assert (error.argument, "only together with" in error.message) == (weight, True)
    assert compile_prompt(f"{URL} a cat", Options(image_weight=1)).text == f"{URL} a cat --iw 1"
    assert compile_prompt("a cat --sref 1", Options(style_weight=1)).text == "a cat --sref 1 --sw 1"
    assert compile_prompt(f"a cat --oref {URL}", Options(omni_weight=1)).text == f"a cat --oref {URL} --ow 1"
    assert refused(f"a cat {URL}", image_weight=1).argument == "image_weight"


def test_the_limit_of_characters_counts_the_options() -> None:
    longest = "x" * (MAX_PROMPT_CHARACTERS - len(" --tile"))
    assert len(compile_prompt(longest, Options(tile=True)).text) == MAX_PROMPT_CHARACTERS
    error = refused(longest + "x", tile=True)
    assert (error.argument, "at most 8192 characters" in error.message) == ("prompt", True)
    assert compile_prompt(" " * 10_000 + "x").text == "x"


def test_hidden_characters_are_removed_and_reported_line_breaks_are_folded_silently() -> None:
    removed = "Invisible characters were removed from the prompt."
    assert compile_prompt("a\u200b \x00c\u202eat\U000e0041\ufeff") == Compiled("a cat", (removed,))
    assert compile_prompt("a\r\n\tcat\u2028\u00a0now") == Compiled("a cat now")


V8, V7, OLD = ("8.2", "8.1"), ("7",), ("6.1", "6", "5.2", "5.1", "5", "4")
WARNED: list[tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = [
    ({"aspect_ratio": "5:1"}, V8, ()),
    ({"aspect_ratio": "1:5"}, V8, ()),
    ({"aspect_ratio": "4:1"}, (), ()),
    ({"weird": 1}, ("4",), ("4",)),
    ({"quality": 0.5}, (*V8, *V7), ()),
    ({"quality": 1.0}, V8, ()),
    ({"quality": 4.0}, (*V8, *OLD), ("6", "5", "4")),
    ({"raw": True}, ("5", "4"), ("5", "4")),
    ({"style_reference": ("1",)}, ("5.2", "5.1", "5", "4"), ("5", "4")),
    ({"omni_reference": URL}, (*V8, *OLD), NIJI_VERSIONS),
    ({"image_weight": 2.5, "image_urls": (URL,)}, (), ("7",)),
    ({"image_weight": 2, "image_urls": (URL,)}, (), ()),
    ({"stylize": 1, "chaos": 1, "seed": 1, "tile": True, "no": ("x",)}, (), ()),
]


@pytest.mark.parametrize(("options", "versions", "nijis"), WARNED)
def test_a_value_that_a_model_ignores_is_a_warning_for_just_those_models(
    options: dict[str, Any], versions: tuple[str, ...], nijis: tuple[str, ...]
) -> None:
    assert compile_prompt("x", Options(**options)).warnings == ()
    for kind, known, warned in (("version", VERSIONS, versions), ("niji", NIJI_VERSIONS, nijis)):
        for number in known:
            given_here = compile_prompt("x", Options(**{**options, kind: number}))
            typed = compile_prompt(f"x --{FLAGS[kind][-1]} {number}", Options(**options))
            assert given_here.warnings == typed.warnings
            assert bool(typed.warnings) == (number in warned)
            assert all(warning.startswith(f"`{next(iter(options))}`") for warning in typed.warnings)


def test_the_weights_of_references_are_warned_about_with_their_reference() -> None:
    old = compile_prompt("x", Options(version="5", style_reference=("1",), style_weight=1))
    assert [warning.split("`")[1] for warning in old.warnings] == ["style_reference", "style_weight"]
    new = compile_prompt("x", Options(version="8.1", omni_reference=URL, omni_weight=1))
    assert new.warnings == (
        "`omni_reference` as given does not fit V8.1: only V7 has it.",
        "`omni_weight` as given does not fit V8.1: only V7 has it.",
    )


@pytest.mark.parametrize("typed", ["--v 6.0", "--v6", "--niji", "--niji --tile", f"{EM}v 6", "--v 8"])
def test_a_typed_version_counts_however_it_is_typed(typed: str) -> None:
    warnings = compile_prompt(f"x {typed}", Options(omni_reference=URL)).warnings
    assert any("only V7 has it" in warning for warning in warnings)


@pytest.mark.parametrize("wall", [EM * 8000, "-" * 8000, "{" * 8000, "--a=" * 2000, "--a=" * 100_000, f"-{EM}" * 4000])
@pytest.mark.timeout(10)
def test_a_wall_of_signs_is_answered_at_once(wall: str) -> None:
    for answer in (outcome("x" + wall), outcome("x", no=(wall,))):
        assert isinstance(answer, Compiled) or answer.argument in {"prompt", "no"}
