"""What a model ignores or refuses, by its version."""

from __future__ import annotations

from typing import Any

import pytest
from prompt_parts import DEFAULT, EM, URL, outcome, refused

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import Options, compile_prompt
from mj_mcp.prompts.options import NIJI_VERSIONS, VERSIONS

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
