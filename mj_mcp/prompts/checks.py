"""What is wrong with a prompt and its options, as sentences. Arguments and typed flags are checked by the same rows.

What cannot work is refused. What a model ignores is a warning, since Midjourney changes faster than the table.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mj_mcp.errors import as_given, shortened
from mj_mcp.prompts.flags import read_flags
from mj_mcp.prompts.options import (
    CLASHES,
    DEFAULT_MODEL,
    DEFAULT_SINCE,
    OPTION,
    OPTIONS,
    REFERENCES,
    WEIGHTS,
    Limit,
    Option,
    is_file,
    reference,
)
from mj_mcp.prompts.values import Switch

_USUAL_DASH = re.compile("--|\u2014\\w")  # Apple's keyboards turn `--` into one em dash, which Midjourney accepts
_PICTURE_FILE = re.compile(r"^(?!.*://).*\.(?:png|jpe?g|webp|gif)$", re.IGNORECASE | re.DOTALL)
_USABLE = [option for option in OPTIONS if option.flags and not option.unsupported]
_MEANT = {option.key: option.flags[0] for option in _USABLE} | {name: name for row in _USABLE for name in row.flags}


@dataclass(frozen=True, slots=True)
class Given:
    """An option with a value, as an argument or (`typed`) as a flag in the prompt; `name` as the caller wrote it."""

    option: Option
    name: str
    value: Any
    typed: bool = False

    @property
    def shown(self) -> str:
        """The name as the subject of a sentence."""
        return f"`{shortened(self.name)}`" + " in the prompt" * self.typed

    @property
    def takes_pictures(self) -> bool:
        """Whether our own pictures are allowed: as arguments only."""
        return self.option.key in REFERENCES and not self.typed

    @property
    def takes_files(self) -> bool:
        """Whether files are allowed: only an image prompt can be uploaded."""
        return self.option.key == "image_urls" and not self.typed


@dataclass(frozen=True, slots=True)
class PromptJob:
    """A prompt for one job, with every option given for it.

    `sound` has the options with usable values, `wrong` the unusable parts of each value, `unknown` the unknown flags by
    name and as typed, `odd` remarks on how something was typed.
    """

    head: str
    given: tuple[Given, ...]
    sound: tuple[Given, ...]
    wrong: tuple[tuple[Given, tuple[object, ...]], ...]
    unknown: tuple[tuple[str, str], ...]
    odd: tuple[str, ...]


def read_job(words: str, arguments: Sequence[Given], extra: Collection[str]) -> PromptJob:
    """The flags in `words` together with the arguments. Names in `extra` are not checked."""
    reading = read_flags(words, extra)
    given, odd = list(arguments), []
    unknown: dict[tuple[str, str], None] = {}
    for flag in reading.flags:
        if not _USUAL_DASH.match(flag.shown):
            odd.append(f"`{flag.shown}` may not be understood: Midjourney flags start with `--`.")
        if flag.option is None:
            unknown[flag.name, flag.shown] = None
            continue
        value, rest = flag.option.value.read(flag.name, flag.text)
        given.append(Given(flag.option, flag.shown, value, typed=True))
        if rest and not flag.option.unsupported:
            odd.append(f"`{shortened(rest)}` after `{flag.shown}` may not be read: write words before the flags.")
    if any("::" in word and "://" not in word for word in reading.head.split()):
        given.append(Given(WEIGHTS, "::", value=True, typed=True))
    wrong = [(one, _wrong(one)) for one in given]
    sound = tuple(one for one, parts in wrong if not parts)
    return PromptJob(reading.head, tuple(given), sound, tuple(wrong), tuple(unknown), tuple(odd))


def _wrong(given: Given) -> tuple[object, ...]:
    """The parts of a value that cannot be used."""
    parts = tuple(given.option.value.wrong(given.value))
    if parts and given.takes_pictures:
        parts = tuple(part for part in parts if not reference(str(part)))
    return tuple(part for part in parts if not (given.takes_files and is_file(str(part))))


def must_be(shown: str, allowed: str, given: object) -> str:
    """The sentence for a value that cannot be used."""
    return f"{shown} must be {allowed} (got {'nothing' if given in {'', ()} else as_given(given)})."


def problems(job: PromptJob) -> Iterator[str]:
    """Why this job cannot work, one sentence per problem."""
    for name, shown in job.unknown:
        near = get_close_matches(name.replace("-", "_"), _MEANT, n=1, cutoff=0.6)
        hint = f"; did you mean `--{_MEANT[near[0]]}`?" if near else "."
        yield f"`{shortened(shown)}` in the prompt is not a Midjourney flag that is known here{hint}"
    yield from (f"{given.shown} {given.option.unsupported}." for given in job.given if given.option.unsupported)
    for given, parts in job.wrong:
        yield from (must_be(given.shown, given.option.value.must_be + _others(given, part), part) for part in parts)
    yield from _head_problems(job)
    yield from _pair_problems(job)
    for given, limit, model in _limits(job):
        if model and limit.refused:
            yield f"{given.shown} cannot be used with {model}: {limit.because}."


def _others(given: Given, part: object) -> str:
    """What else an option takes: our own pictures, and files."""
    if given.takes_files:
        return ", a picture of a task (`TASK_ID#1`), or a picture file"
    file = "; a file can be used in `image_urls` only" * bool(_PICTURE_FILE.search(str(part)))
    return f", or a picture of a task (`TASK_ID#1`){file}" if given.takes_pictures else ""


def _head_problems(job: PromptJob) -> Iterator[str]:
    own = re.search(r"\bmj://\S*", job.head, re.IGNORECASE)
    if own:
        yield must_be("`prompt`", "words and http(s) URLs; pictures of tasks go into `image_urls`", own[0])
    if _pictures(job) <= 1 and _leading_urls(job) == len(job.head.split()):
        yield must_be("`prompt`", "words before any options, or at least two image URLs", job.head)


def _pair_problems(job: PromptJob) -> Iterator[str]:
    """Options given twice, without one that they need, or with one that they cannot be combined with."""
    first: dict[str, Given] = {}
    for given in job.given:
        other = first.setdefault(given.option.key, given)
        if other.name == given.name and other is not given:
            yield f"{given.shown} is given more than once: keep one."
        elif other is not given:
            yield f"{other.shown} and {given.shown} set the same option: keep one."
    for given in first.values():
        needed = given.option.needs
        if needed and needed not in first and not (needed == "image_urls" and _pictures(job)):
            yield f"{given.shown} can be used only together with `{OPTION[needed].shown}`."
    sound = {given.option.key: given for given in reversed(job.sound)}
    for clash in CLASHES:
        pair = [sound[key] for key in (clash.one, clash.other) if key in sound]
        if len(pair) == 2 and clash.when(*(given.value for given in pair)):
            yield f"{pair[0].shown} and {pair[1].shown} cannot be used together: {clash.because}."


def warnings(job: PromptJob) -> Iterator[str]:
    """The warnings for a job that can work."""
    yield from job.odd
    for given, limit, model in _limits(job):
        whole = limit.when is None or isinstance(given.option.value, Switch)
        verb = f"ignores `{given.name}`" if whole else f"cannot use this `{given.name}`"
        if model:
            yield f"{model} {verb}: {limit.because}."
        elif limit.instead:
            yield f"{DEFAULT_MODEL}, the default since {DEFAULT_SINCE}, {verb}; add {limit.instead}."
        else:
            yield f"{DEFAULT_MODEL}, the default since {DEFAULT_SINCE}, {verb}: {limit.because}."


def _limits(job: PromptJob) -> Iterator[tuple[Given, Limit, str]]:
    """What the job's model cannot do, and the model's name; "" for the default model."""
    model = ""
    for given in job.sound:
        if given.option.key == "version":
            model = f"V{given.value}"
        elif given.option.key == "niji":
            model = "Niji" if given.value is True else f"Niji {given.value}"
    for given in job.sound:
        for limit in given.option.limits:
            if (model or DEFAULT_MODEL) in limit.models and (limit.when is None or limit.when(given.value)):
                yield given, limit, model


def _leading_urls(job: PromptJob) -> int:
    words = job.head.split()
    return next((n for n, word in enumerate(words) if not re.match(r"https?://", word, re.IGNORECASE)), len(words))


def _pictures(job: PromptJob) -> int:
    """The number of image prompts in the text. Files are sent beside it."""
    items = (item for given in job.given if given.option.key == "image_urls" for item in given.value)
    return _leading_urls(job) + sum(not is_file(item) for item in items)
