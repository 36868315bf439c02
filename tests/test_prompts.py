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
    MAX_PROBLEMS,
    MAX_PROMPT_CHARACTERS,
    RANGES,
    Compiled,
    Options,
    Reference,
    compile_prompt,
    references,
)
from mj_mcp.prompts.options import ARGUMENTS, CLASHES, NIJI_VERSIONS, OPTION, OPTIONS, QUALITIES, VERSIONS

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


DASHES = ["--", EM, EN, EM * 2, "---", f"{EM}-", *(2 * sign for sign in "\uff0d\u2212\ufe63\u2010\u2011"), "\ufe58"]

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


"""The same examples every time, on a machine of any speed."""


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


def test_everything_at_once() -> None:
    options = Options(**{k: v for k, v in EVERYTHING.items() if k not in {"niji", "draft"}}, image_urls=(URL,))
    assert compile_prompt("a  red\n fox.", options) == compiled(
        f"{URL} a red fox. --ar 16:9 --v 7 --stylize 250 --chaos 5 --weird 10 --seed 0 --q 1 --raw --tile "
        f"--no text, blue sky --iw 0.5 --sref random 123 {URL_2} --sw 0 --oref {URL_2} --ow 1 --relax "
        "--profile m7345 abc123"
    )
    assert compile_prompt("x", Options(draft=True, version="7")) == compiled("x --v 7 --draft")


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


@pytest.mark.parametrize(
    ("argument", "flag"),
    [(argument, name) for argument, names in FLAGS.items() for name in names] + [("raw", "style raw")],
)
@pytest.mark.parametrize("dash", ["--", "---", EM, EN, EM * 2, "a cat,--", f"a cat,{EM}"])
def test_an_option_typed_and_given_is_refused_under_every_alias_and_dash(argument: str, flag: str, dash: str) -> None:
    for typed in (flag, flag.upper()):
        said = refused(f"{URL} a cat {dash}{typed} 5", **{argument: EVERYTHING[argument]})
        assert f"`{argument}` and `" in said
        assert "set the same option: keep one." in said


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
    said = refused(prompt, **options)
    assert all(f"`{name}`" in said for name in options)
    assert "they choose different models" in said or "set the same option" in said


@pytest.mark.parametrize(
    "prompt",
    [
        "a wall--the gate",
        f"a wall{EM}no gate",
        f"a wall {EM}the gate",
        "the twenties 1920--1929",
        "https://x/a--ar_16.png a cat",
        f"a cat --v 6.1 --style cute --fast --cref {URL} {URL_2} --cw 5 --stop 80",
        "a cat --draft --v=7 --sref 12::2 random --sv 4 --sw 0 --p",
        "a cat --niji --p abc m123::2 --c 5 --s 0 --q .5 --iw 2" + f" --seed 4294967295 --weird 3000 --edit {URL}",
        "a cat --no red, blue sky --ar16:9 --v7 --STYLE RAW --stealth --exp 100",
    ],
)
def test_what_is_typed_and_can_work_stays_as_it_is(prompt: str) -> None:
    if "--iw" in prompt:
        prompt = f"{URL} {prompt}"
    assert compile_prompt(prompt).text == prompt
    more = Options(speed="relax") if "--fast" not in prompt else Options(tile=True)
    assert compile_prompt(prompt, more).text.startswith(f"{prompt} --")


@pytest.mark.parametrize("dash", [EN, EM * 2, f"-{EN}", "\u2212\u2212", "\uff0d\uff0d", "-\ufe63", "\ufe58"])
def test_an_unusual_dash_before_a_known_flag_stays_and_is_warned_about_once(dash: str) -> None:
    assert compile_prompt(f"a cat {dash}ar 1:1 {EM}the end") == compiled(
        f"a cat {dash}ar 1:1 {EM}the end",
        f"`{dash}ar` may not be understood: Midjourney flags start with `--`.",
        f"`{EM}the end` after `{dash}ar` may not be read: write words before the flags.",
    )
    assert f"`{dash}ar` in the prompt is given more than once" in refused(f"a cat {dash}ar 1:1 {dash}ar 1:1")


def test_an_em_dash_as_apples_keyboards_make_it_is_as_good_as_two_hyphens() -> None:
    assert compile_prompt(f"a cat {EM}ar 16:9 {EM}V 7") == compiled(f"a cat {EM}ar 16:9 {EM}V 7")
    assert refused(f"a cat {EM}chaos 500") == (
        f"`{EM}chaos` in the prompt must be a whole number between 0 and 100 (got 500)."
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--chaos 500", "a whole number between 0 and 100 (got 500)."),
        ("--chaos 5.5", "a whole number between 0 and 100 (got 5.5)."),
        ("--chaos -1", "a whole number between 0 and 100 (got -1)."),
        ("--s abc", 'a whole number between 0 and 1000 (got "abc").'),
        ("--s", "a whole number between 0 and 1000 (got nothing)."),
        ("--s --tile", "a whole number between 0 and 1000 (got nothing)."),
        ("--seed " + "9" * 5000, "a whole number between 0 and 4294967295 (got"),
        ("--iw 3.5", "a number between 0 and 3 (got 3.5)."),
        ("--q 3", "one of 0.25, 0.5, 1, 2, 4 (got 3)."),
        ("--v 99", "one of 8.2, 8.1, 8, 7, 6.1, 6, 5.2, 5.1, 5, 4 (got"),
        ("--niji 8", 'one of 7, 6, 5, 4 (got "8").'),
        ("--ar 99:1", '"W:H" in positive whole numbers such as "16:9", at most 14:1 (got "99:1").'),
        ("--ar 16:9, --tile", '(got "16:9,").'),
        ("--ar: 16:9", '(got ":").'),
        ("--ar 0:1", '(got "0:1").'),
        ("--sref", "or `random` (got nothing)."),
        ("--sref Random", '(got "Random").'),
        ("--oref 123", '(got "123").'),
        (f"--oref {URL} {URL_2}", f'(got ["{URL}", "{URL_2}"]).'),
        (f"--edit {' '.join([URL] * 5)}", "one to four http:// or https:// URLs (got ["),
        ("--cref x", '(got "x").'),
        ("--cw 101", "between 0 and 100 (got 101)."),
        ("--sv 7", "between 1 and 6 (got 7)."),
        ("--exp 101", "between 0 and 100 (got 101)."),
        ("--stop 5", "between 10 and 100 (got 5)."),
        ("--repeat 41", "between 1 and 40 (got 41)."),
        ("--r", "between 1 and 40 (got nothing)."),
        ("--no", "words without commas, `--` or flags (got nothing)."),
        ("--no ,", "(got nothing)."),
        ("--style", "one word (got nothing)."),
        ("--style cute blue", "one word (got"),
    ],
)
def test_a_typed_value_that_cannot_work_is_refused_like_an_argument(typed: str, said: str) -> None:
    flag = typed.split(maxsplit=1)[0].removesuffix(":")
    assert f"`{flag}` in the prompt must be " in refused(f"{URL} a cat {typed}")
    assert said in refused(f"{URL} a cat {typed}")
    if " --" not in typed:
        assert said in refused(f"{URL} a cat {typed} --tile")


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("--aspect-ratio 16:9", "--ar"),
        ("--image_weight 2", "--iw"),
        ("--stylise 5", "--stylize"),
        ("--stylize-me", "--stylize"),
        ("--sreff 5", "--sref"),
        ("--northern light", None),
        ("--16:9", None),
        ("--\u6f22", None),
        ("and,--foo", None),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_known_one(typed: str, near: str | None) -> None:
    name = typed.removeprefix("and,").split()[0]
    hint = f"; did you mean `{near}`?" if near else "."
    assert refused(f"a cat {typed}") == f"`{name}` in the prompt is not a Midjourney flag that is known here{hint}"


def test_flags_that_an_operator_allows_pass_without_a_check_and_end_the_flag_before() -> None:
    extra = frozenset({"test", "sv", "new-one"})
    prompt = f"a cat --ar 1:1 --test x y --sv 99 {EM}new-one --NEW-ONE"
    assert compile_prompt(prompt, extra_flags=extra) == compiled(prompt)
    assert "`--test`" in refused(prompt)
    assert "`--ar`" in refused(f"a cat --test --ar x --foo {EM}bar", *extra)
    assert refused("--test x", *extra).startswith("`prompt` must be words before any options")
    assert "allow_multiple=true" in refused("a cat --repeat 4", "repeat")


@pytest.mark.parametrize("typed", ["--video", "--motion low", "--loop", f"--end {URL}", "--bs 4"])
def test_flags_of_videos_are_refused_where_only_pictures_can_be_made(typed: str) -> None:
    flag = typed.split(maxsplit=1)[0]
    assert refused(f"a cat {typed}") == f"`{flag}` in the prompt is for videos, and only pictures can be made here."


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--ar 1:1 --ar 16:9", "`--ar` in the prompt is given more than once: keep one."),
        ("--ar 1:1 --aspect 1:1", "`--ar` in the prompt and `--aspect` in the prompt set the same option: keep one."),
        ("--fast --turbo", "`--fast` in the prompt and `--turbo` in the prompt set the same option: keep one."),
        ("--hd --sd", "set the same option: keep one."),
        ("--stealth --public", "set the same option: keep one."),
        ("--raw --style raw", "set the same option: keep one."),
        ("--v 7 --niji 7", "cannot be used together: they choose different models."),
        (f"--v 7 --draft --oref {URL}", "cannot be used together: draft mode takes no such reference."),
        (f"--v 7 --q 4 --oref {URL}", "cannot be used together: it goes up to quality 2."),
        ("--sref 1 --sv 3", "cannot be used together: codes and `random` need 4 or 6."),
        ("--iw 2", "can be used only together with `image_urls`."),
        ("--sw 2", "can be used only together with `style_reference`."),
        ("--sv 4", "can be used only together with `style_reference`."),
        ("--cw 2", "can be used only together with `--cref`."),
    ],
)
def test_flags_that_do_not_go_together_are_refused(typed: str, said: str) -> None:
    assert refused(f"a cat {typed}").endswith(said)


def test_flags_that_go_together_pass() -> None:
    for typed in (f"--sref {URL} --sv 3", f"--v 7 --q 2 --oref {URL}", "--v 7 --fast --draft", "--hd --fast --public"):
        assert compile_prompt(f"a cat {typed}").warnings == ()


def test_words_behind_a_flag_are_warned_about() -> None:
    assert compile_prompt("a cat --ar 1:1 on a mat --tile") == compiled(
        "a cat --ar 1:1 on a mat --tile", "`on a mat` after `--ar` may not be read: write words before the flags."
    )
    assert compile_prompt("a cat --tile on a mat").warnings
    assert compile_prompt("a cat --niji on a mat").warnings
    assert compile_prompt("a cat --no a mat, on it").warnings == ()


def test_all_problems_of_a_call_are_told_at_once() -> None:
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
def test_words_that_only_look_like_a_command_or_quotes_stay(prompt: str) -> None:
    assert compile_prompt(prompt) == compiled(prompt)


V8, V7, OLD = ("8.2", "8.1", "8"), ("7",), ("6.1", "6", "5.2", "5.1", "5", "4")
BEFORE_V6 = ("5.2", "5.1", "5", "4")
LIMITED: list[tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = [
    ("--ar 5:1", {"aspect_ratio": "5:1"}, V8, ()),
    ("--ar 1:5", {"aspect_ratio": "1:5"}, V8, ()),
    ("--ar 4:1", {"aspect_ratio": "4:1"}, (), ()),
    ("--w 1", {"weird": 1}, ("4",), ("4",)),
    ("--q .5", {"quality": 0.5}, (*V8, *V7), ()),
    ("--quality 1", {"quality": 1.0}, V8, ()),
    ("--q 4", {"quality": 4.0}, (*V8, *OLD), ("6", "5", "4")),
    ("--raw", {"raw": True}, ("5", "4"), ("5", "4")),
    ("--sref 1", {"style_reference": ("1",)}, BEFORE_V6, ("5", "4")),
    ("--iw 2.5", {"image_weight": 2.5, "image_urls": (URL,)}, (), ("7",)),
    ("--iw 2", {"image_weight": 2, "image_urls": (URL,)}, (), ()),
    ("--turbo", {"speed": "turbo"}, V8, ()),
    ("--relax", {"speed": "relax"}, (), ()),
    ("--p abc", {"profile": ("abc",)}, BEFORE_V6, ("5", "4")),
    ("--exp 5", {}, OLD, NIJI_VERSIONS),
    ("--hd", {}, ("8", *V7, *OLD), NIJI_VERSIONS),
    ("--sd", {}, ("8", *V7, *OLD), NIJI_VERSIONS),
    (f"--edit {URL}", {}, ("8", *V7, *OLD), NIJI_VERSIONS),
    ("--stop 50", {}, (*V8, *V7), ("7",)),
    ("--style cute", {}, (*V8, *V7), ("7",)),
    ("--c 1 --seed 1 --tile --no x --stealth", {"stylize": 1, "chaos": 1, "tile": True, "no": ("x",)}, (), ()),
]
REFUSED: list[tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = [
    (f"--oref {URL}", {"omni_reference": URL}, (*V8, *OLD), NIJI_VERSIONS),
    (f"--oref {URL} --ow 5", {"omni_reference": URL, "omni_weight": 5}, (*V8, *OLD), NIJI_VERSIONS),
    ("--draft", {"draft": True}, (*V8, *OLD), NIJI_VERSIONS),
    (f"--cref {URL} --cw 5", {}, (*V8, *V7, *BEFORE_V6), ("7", "5", "4")),
]


@pytest.mark.parametrize(("typed", "options", "versions", "nijis"), LIMITED)
def test_a_value_that_a_model_ignores_is_a_warning_for_just_those_models(
    typed: str, options: dict[str, Any], versions: tuple[str, ...], nijis: tuple[str, ...]
) -> None:
    """However model and value are given; without a model it is a warning about the default one."""
    for model, known, warned in (("version", VERSIONS, versions), ("niji", NIJI_VERSIONS, nijis)):
        for number in known:
            name = f"V{number}" if model == "version" else f"Niji {number}"
            tail = f"--{model} {number}"
            answers = [compile_prompt(f"{URL} x {typed} {tail}"), compile_prompt(f"{URL} x {typed}", model_of(tail))]
            if options:
                answers.append(compile_prompt(f"x {tail}", Options(**options)))
            for answer in answers:
                assert bool(answer.warnings) == (number in warned), tail
                assert all(
                    warning.startswith((f"{name} ignores `", f"{name} cannot use this `"))
                    for warning in answer.warnings
                )
    default = compile_prompt(f"{URL} x {typed}").warnings
    assert [warning.removeprefix(DEFAULT) for warning in default] == [
        warning.removeprefix("V8.2") for warning in compile_prompt(f"{URL} x {typed} --v 8.2").warnings
    ]


def model_of(tail: str) -> Options:
    name, number = tail.removeprefix("--").split()
    return Options(version=number) if name == "version" else Options(niji=number)


@pytest.mark.parametrize(("typed", "options", "versions", "nijis"), REFUSED)
def test_a_value_that_would_make_another_picture_than_was_meant_is_refused_for_just_those_models(
    typed: str, options: dict[str, Any], versions: tuple[str, ...], nijis: tuple[str, ...]
) -> None:
    for model, known, wrong in (("version", VERSIONS, versions), ("niji", NIJI_VERSIONS, nijis)):
        for number in known:
            for prompt, given_options in ((f"x {typed}", {}), ("x", options)) if options else ((f"x {typed}", {}),):
                answer = outcome(f"{prompt} --{model} {number}", **given_options)
                assert isinstance(answer, InvalidRequest) == (number in wrong)
                if isinstance(answer, InvalidRequest):
                    assert len(answer.problems) == len(typed.split("--")) - 1
                    assert all(" cannot be used with " in problem for problem in answer.problems)
                else:
                    assert answer.warnings == ()


def test_without_a_version_what_the_default_model_ignores_is_a_warning() -> None:
    said = f"{DEFAULT} ignores `omni_reference`; add version 7."
    assert compile_prompt("x", Options(omni_reference=URL)).warnings == (said,)
    assert compile_prompt(f"x --cref {URL}").warnings == (f"{DEFAULT} ignores `--cref`; add version 6.1.",)
    assert compile_prompt("x --draft").warnings == (f"{DEFAULT} ignores `--draft`; add version 7.",)
    assert compile_prompt("x --turbo").warnings == (f"{DEFAULT} ignores `--turbo`: it has no turbo mode.",)
    assert compile_prompt("x --q 1").warnings == (f"{DEFAULT} ignores `--q`: it has no quality setting.",)
    assert compile_prompt("x", Options(aspect_ratio="5:1")).warnings == (
        f"{DEFAULT} cannot use this `aspect_ratio`: its HD pictures stop at 4:1.",
    )


def test_a_named_model_refuses_and_warns_by_name() -> None:
    assert refused("x", version="8.1", omni_reference=URL, omni_weight=1) == (
        "`omni_reference` cannot be used with V8.1: only V7 has it. "
        "`omni_weight` cannot be used with V8.1: only V7 has it."
    )
    assert compile_prompt("x", Options(version="5", style_reference=("1",), style_weight=1)).warnings == (
        "V5 ignores `style_reference`: it works from V6 on.",
        "V5 ignores `style_weight`: it works from V6 on.",
    )


@pytest.mark.parametrize("typed", ["--v 6.0", "--v6", "--niji", "--niji --tile", f"{EM}v 6", "--v 8"])
def test_a_typed_version_counts_however_it_is_typed(typed: str) -> None:
    assert "only V7 has it" in refused(f"x {typed}", omni_reference=URL)


@pytest.mark.parametrize(("version", "warned"), [("6.1", False), ("7", True), ("8.2", True)])
def test_weights_between_words_are_warned_about_where_they_do_nothing(version: str, warned: bool) -> None:
    assert bool(compile_prompt(f"{URL}::2 hot::2 dog::1", Options(version=version)).warnings) == warned
    assert compile_prompt(f"{URL}::2 dog", Options(version=version)).warnings == ()


OWN, OWN_2, OWN_LINK = "mj://tasks/task.1:a_b-C/images/3", "0123#16", "https://cdn.example.org/x.png?sig=a"


def test_pictures_of_ours_are_found_among_the_references() -> None:
    options = Options(image_urls=(OWN, URL, OWN_2), style_reference=(OWN_2, "123"), omni_reference="a#1")
    assert references(options) == (
        Reference(OWN, "task.1:a_b-C", 3),
        Reference(OWN_2, "0123", 16),
        Reference("a#1", "a", 1),
    )
    assert references(Options(image_urls=(URL,), style_reference=("random",))) == ()


def test_a_picture_of_ours_is_sent_by_its_link_and_kept_by_its_name() -> None:
    options = Options(image_urls=(OWN,), style_reference=("random", OWN_2), omni_reference="a#1", version="7")
    links = {OWN: OWN_LINK, OWN_2: f"{OWN_LINK}2", "a#1": f"{OWN_LINK}1", "x": URL}
    flags = "--v 7 --sref random {} --oref {}"
    assert compile_prompt("x", options, links=links) == Compiled(
        f"{OWN_LINK} x {flags.format(OWN_LINK + '2', OWN_LINK + '1')}",
        f"task.1:a_b-C#3 x {flags.format('0123#16', 'a#1')}",
    )
    assert compile_prompt("x", Options(image_urls=(OWN_2,))).text == "0123#16 x"
    assert compile_prompt("", Options(image_urls=(OWN, OWN_2)), links=links).key == "task.1:a_b-C#3 0123#16"


@pytest.mark.parametrize(
    "item",
    [
        "a#0",
        "a#17",
        "a#01",
        "#1",
        "a#",
        "a b#1",
        "a,b#1",
        "a/b#1",
        "x" * 129 + "#1",
        "mj://tasks/a/images/0",
        "\u0661#1",
        "mj://tasks/a",
        "mj://tasks/a/b/images/1",
        "mj://tasks/a/images/1 --r 4",
        "mj://tasks//images/1",
        "a#1\n",
        "a#\u0661",
    ],
)
def test_what_names_no_picture_is_refused(item: str) -> None:
    said = refused("a cat", image_urls=(item,))
    assert said.startswith("`image_urls` must be an http:// or https:// URL without whitespace")
    assert "or a picture of a task (`TASK_ID#1`) (got " in said
    assert references(Options(image_urls=(item,))) == ()


@pytest.mark.parametrize("link", ["https://x/y --r 4", "https://x/{a,b}", "https://x/y\u200b", "file:///x", ""])
def test_a_link_that_cannot_stand_in_a_prompt_is_refused(link: str) -> None:
    with pytest.raises(InvalidRequest, match="`omni_reference` must be an http:// or https:// URL"):
        compile_prompt("a cat", Options(omni_reference="a#1"), links={"a#1": link})


def test_the_limit_of_characters_counts_links_and_not_names() -> None:
    options = Options(image_urls=("a#1",))
    with pytest.raises(InvalidRequest, match="at most 8192 characters"):
        compile_prompt("x" * 8180, options, links={"a#1": OWN_LINK})
    assert compile_prompt("x" * 8180, options).key == "a#1 " + "x" * 8180


def test_pictures_of_ours_typed_in_the_prompt_are_refused() -> None:
    assert refused("a mj://tasks/a/images/1 cat").startswith(
        "`prompt` must be words and http(s) URLs; pictures of tasks go into `image_urls` (got "
    )
    assert refused("a cat --sref a#1").startswith("`--sref` in the prompt must be an http:// or https:// URL")
    assert compile_prompt("the player#7").text == "the player#7"


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
