"""What a person typed: the words of a prompt, its flags, and what would start several jobs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts.options import FLAG, Option
from mj_mcp.prompts.values import DASH, is_hidden, plain_signs

MAX_JOBS = 40
"""The most jobs that Midjourney starts from one prompt."""

_FLAG = re.compile(  # a URL is matched first, as a whole: its dashes are not flags
    rf"(?i:https?)://\S+|(?P<dash>(?:(?<!\w)|(?=-)){DASH})(?P<name>[A-Za-z]+(?:[-_]+[A-Za-z]+)*|\w[^\s=,]*)"
)
# Wider than `_FLAG` on purpose, and it ignores URLs: a needless refusal costs one call, a missed flag costs 40 jobs.
_REPEAT = re.compile(rf"{DASH}(?:repeat|r)(?![a-z_-])|{DASH}\s+(?:repeat|r)[\s=]*[0-9]", re.IGNORECASE)
_ESCAPED = re.compile(r"\\.")
_GROUP = re.compile(r"\\.|\{((?:[^{}\\]|\\.)*)\}")
_BRACES = re.compile("[{},]")
_COMMA = re.compile(r"(?<!\\),")
_COMMAND = re.compile(r"(?:/imagine(?=[\s:]|$)\s*(?:prompt(?=[\s:]|$)\s*)?:?\s*)+", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb", "\u300c": "\u300d"}


@dataclass(frozen=True, slots=True)
class Typed:
    """A flag in a prompt: its option (None: unknown), its name, and the text up to the next flag."""

    option: Option | None
    name: str
    shown: str
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """The words before the first flag, and every flag to check."""

    head: str
    flags: tuple[Typed, ...]


def cleaned(prompt: str) -> tuple[str, list[str]]:
    """The prompt with single spaces and no invisible characters, and the warnings about that.

    Raises:
        InvalidRequest: it has half of a surrogate pair, which cannot be sent as UTF-8.
    """
    letters = set(prompt)
    if any("\ud800" <= letter <= "\udfff" for letter in letters):
        raise InvalidRequest("prompt", prompt, "text without lone surrogates")
    hidden = [ord(letter) for letter in letters if is_hidden(letter) and not letter.isspace()]
    warnings = ["Invisible characters were removed from the prompt."] if hidden else []
    return " ".join(prompt.translate(dict.fromkeys(hidden)).split()), warnings


def unwrapped(words: str) -> tuple[str, list[str]]:
    """The prompt without a leading `/imagine prompt:` and without quotes around all of it; and the warnings."""
    warnings = []
    while words:
        if command := _COMMAND.match(words):
            words = words[command.end() :]
            warnings.append("`/imagine` in front of the prompt was removed.")
        elif (end := _QUOTES.get(words[0])) and words[1:].endswith(end) and not {words[0], end} & {*words[1:-1]}:
            words = words[1:-1].strip()
            warnings.append("The quotes around the prompt were removed.")
        else:
            break
    return words, warnings


def read_flags(words: str, extra: Collection[str] = ()) -> Reading:
    """Every flag in the prompt, except those in `extra`, which the operator allows.

    People also write dashes. After a typographic dash, or directly after a word, only a known name is a flag.
    """
    found = []
    for match in _FLAG.finditer(plain_signs(words)):
        dash, name = match.group("dash", "name")
        if dash:
            name = unicodedata.normalize("NFKC", name).lower()
            behind_word = re.match(r"\w", words[max(0, match.start() - 1) : match.start()])
            if name in FLAG or name in extra or (dash.startswith("--") and not behind_word):
                found.append((match.start(), match.end(), name))
    starts = [*(start for start, _, _ in found), len(words)]
    flags = (
        _typed(words[start:end], name, words[end:following].strip(" ="))
        for (start, end, name), following in zip(found, starts[1:], strict=True)
        if name not in extra
    )
    return Reading(words[: starts[0]].rstrip(), tuple(flags))


def _typed(shown: str, name: str, text: str) -> Typed:
    first, _, rest = text.partition(" ")
    if f"{name} {first}".lower() == "style raw":
        return Typed(FLAG["raw"], name, shown, rest)
    return Typed(FLAG.get(name), name, shown, text)


def jobs_of(words: str) -> list[str]:
    """Every prompt that the `{a, b}` groups expand to. Not all are written out if there are more than `MAX_JOBS`."""
    whole: list[str] = []
    split = [words]
    while split and len(whole) + len(split) <= MAX_JOBS:
        text = split.pop()
        groups = (match for match in _GROUP.finditer(text) if match[1] and _COMMA.search(match[1]))
        if group := next(groups, None):
            before, after = text[: group.start()], text[group.end() :]
            parts = _COMMA.split(group[1], maxsplit=MAX_JOBS)
            split += [" ".join(f"{before}{part.strip()}{after}".split()) for part in reversed(parts)]
        else:
            whole.append(text)
    return whole + split


def multiplier(text: str) -> str | None:
    """What in the text starts several jobs, in words. A backslash escapes the next character.

    Proxies may translate full-width characters, so these count like the plain ones.
    """
    if _REPEAT.search(_folded(text)):
        return "`--repeat`"
    is_open = comma = 0
    for sign in _BRACES.findall(_folded(_ESCAPED.sub("", text))):
        if sign == "{":
            is_open += 1
        elif sign == "," and is_open:
            comma = 1
        elif sign == "}":
            if comma:  # the group of that comma is still open, at this depth or further out
                return "a `{a, b}` group"
            is_open = max(0, is_open - 1)
    return None


def _folded(text: str) -> str:
    return text if text.isascii() else plain_signs(unicodedata.normalize("NFKC", text)).replace("\u3001", ",")
