"""Turns Midjourney options into prompt text: what is allowed, what is refused, and what a model will ignore.

Knows nothing of the proxy, of money or of MCP, and has no list of banned words: that list is the proxy's.

    options.py  the table of options      values.py  the kinds of values
    flags.py    what a person typed       checks.py  what is wrong, as sentences
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import Any

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts.checks import Given, PromptJob, must_be, problems, read_job, warnings
from mj_mcp.prompts.flags import MAX_JOBS, cleaned, jobs_of, multiplier, unwrapped
from mj_mcp.prompts.options import (
    CHOICES,
    OPTION,
    OPTIONS,
    RANGES,
    REFERENCES,
    Options,
    Reference,
    files,
    references,
)
from mj_mcp.prompts.values import MAX_PROMPT_CHARACTERS, CommaList, Switch, plain

__all__ = [
    "CHOICES",
    "MAX_PROMPT_CHARACTERS",
    "RANGES",
    "Compiled",
    "Options",
    "Reference",
    "compile_prompt",
    "files",
    "references",
]

MAX_PROBLEMS = 20
"""The most sentences in one refusal, so that a long prompt cannot cause a long error."""

_NO_OPTIONS = Options()
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Compiled:
    """The text to submit, the same text for the duplicate key, and the warnings for the caller.

    Where `text` has the link of one of our pictures, `key` has `ID#N`, since links change. `key` also names the
    pictures that are uploaded beside the text.
    """

    text: str
    key: str
    warnings: tuple[str, ...] = ()


def compile_prompt(
    prompt: str,
    options: Options = _NO_OPTIONS,
    *,
    allow_multiple: bool = False,
    extra_flags: Collection[str] = frozenset(),
    links: Mapping[str, str] = _NONE,
    uploads: Mapping[str, str] = _NONE,
) -> Compiled:
    """Write the prompt as Midjourney reads it: image URLs, then the words, then the options.

    Flags typed in the prompt are checked like arguments and kept as they are. At most 8192 characters in total.

    Args:
        prompt: The words. May be empty with two or more image URLs; line breaks become spaces.
        options: Typed options. One that the prompt has as a flag already is refused.
        allow_multiple: Accept `--repeat` and `{a, b}`, which start (and charge) several jobs.
        extra_flags: Names of flags, in lower case without dashes, that pass without a check.
        links: The link of each of our pictures (`references`), by its text. A picture without a link is kept as it is.
        uploads: The name in `key` of each image prompt that is uploaded. `text` never has a file (`files`).

    Raises:
        InvalidRequest: What cannot work, or costs more than allowed. Lists all problems.
    """
    words, remarks = _short(prompt)
    own = references(options)
    values = {name: value for name in OPTION if _is_given(value := getattr(options, name, None))}
    linked = _replaced(values, {picture.text: links.get(picture.text, picture.text) for picture in own})
    arguments = [Given(OPTION[name], name, value) for name, value in linked.items()]
    jobs = [read_job(text, arguments, extra_flags) for text in jobs_of(words)]
    sent = tuple(item for item in linked.get("image_urls", ()) if item not in {*uploads, *files(options)})
    found = _first(chain.from_iterable(map(problems, jobs))) or _empty_text(words, () if sent or not uploads else jobs)
    text = words if found else _assembled(words, {**linked, "image_urls": sent})
    several = multiplier(text)
    found += _cost_problems(text, several, len(jobs), allow_multiple=allow_multiple)
    if found:
        raise InvalidRequest.because(*found)
    remarks += [f"{several} starts several jobs, and each is charged."] * bool(several)
    key = _assembled(words, _replaced(values, {picture.text: picture.key for picture in own} | dict(uploads)))
    return Compiled(text, key, _first([*remarks, *chain.from_iterable(map(warnings, jobs))]))


def _short(prompt: str) -> tuple[str, list[str]]:
    """The words without what surrounds them, shortened for reading; and the warnings about that."""
    words, remarks = cleaned(prompt)
    if len(words) > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest("prompt", words, _too_long(words))
    words, removed = unwrapped(words)
    return words, remarks + removed


def _first(sentences: Iterable[str]) -> tuple[str, ...]:
    """Each sentence once, up to the limit."""
    seen: dict[str, None] = {}
    new = (seen.setdefault(sentence) or sentence for sentence in sentences if sentence not in seen)
    return tuple(islice(new, MAX_PROBLEMS))


def _empty_text(words: str, jobs: Iterable[PromptJob]) -> tuple[str, ...]:
    """The problem of a prompt whose text would be empty, because its pictures are uploaded beside it."""
    problem = must_be("`prompt`", "words before any options, since its pictures are uploaded", words)
    return () if all(job.head.split() for job in jobs) else (problem,)


def _too_long(text: str) -> str:
    return f"at most {MAX_PROMPT_CHARACTERS} characters with all options; this is {len(text)}"


def _cost_problems(text: str, several: str | None, jobs: int, *, allow_multiple: bool) -> tuple[str, ...]:
    """Problems of the whole prompt: its length, and the number of jobs."""
    found = []
    if len(text) > MAX_PROMPT_CHARACTERS:
        found.append(must_be("`prompt`", _too_long(text), text))
    if several and not allow_multiple:
        found.append(must_be("`prompt`", f"one job; {several} starts several, which needs allow_multiple=true", text))
    if jobs > MAX_JOBS:
        found.append(must_be("`prompt`", f"at most {MAX_JOBS} jobs; its `{{a, b}}` groups are more", text))
    return tuple(found)


def _is_given(value: object) -> bool:
    return bool(value) or type(value) in {int, float, str}


def _replaced(values: Mapping[str, Any], forms: Mapping[str, str]) -> Mapping[str, Any]:
    """The values, with every picture of ours in another form."""
    if not forms:
        return values
    pictures = {
        name: forms.get(value, value) if isinstance(value, str) else tuple(forms.get(item, item) for item in value)
        for name, value in values.items()
        if name in REFERENCES
    }
    return {**values, **pictures}


def _assembled(words: str, values: Mapping[str, Any]) -> str:
    pictures = values.get("image_urls", ())
    flags = (_written(option.key, values[option.key]) for option in OPTIONS if option.flags and option.key in values)
    return " ".join(part for part in (*pictures, words, *flags) if part)


def _written(key: str, value: Any) -> str:  # noqa: ANN401 - any option's
    option = OPTION[key]
    if isinstance(option.value, Switch):
        return f"--{value if option.value.names else option.flags[0]}"
    items = value if isinstance(value, tuple) else (value,)
    comma = ", " if isinstance(option.value, CommaList) else " "
    return f"--{option.flags[0]} " + comma.join(" ".join(plain(item).split()) for item in items)
