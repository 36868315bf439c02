"""Flags that are typed in the prompt: kept, refused, or warned about."""

from __future__ import annotations

from typing import Any

import pytest
from prompt_parts import EM, EN, EVERYTHING, FLAGS, URL, URL_2, compiled, refused

from mj_mcp.prompts import Options, compile_prompt


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
    assert refused(f"a cat {typed}") == f"`{flag}` in the prompt is for videos, and a prompt makes pictures here."


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
