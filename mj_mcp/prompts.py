"""Midjourney options -> prompt text. Owns the ranges, the refusals and the version warnings.

Knows nothing of the proxy, of money spent or of MCP, and holds no list of banned words: that list is the proxy's.

Tables carry the rules: `RANGES` and `CHOICES` (anything else is refused), `FLAGS` (how an option is written, and how a
person may have typed it) and `CONFLICTS` (what a model version ignores: a warning, because Midjourney moves faster
than this file). Numbers: checked late 2026; secondary sources.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from mj_mcp.errors import InvalidRequest

MAX_PROMPT_CHARACTERS = 8192
"""Of the whole compiled text: image URLs, words and options together."""

VERSIONS = ("8.2", "8.1", "7", "6.1", "6", "5.2", "5.1", "5", "4")
NIJI_VERSIONS = ("7", "6", "5", "4")
QUALITIES = (0.25, 0.5, 1.0, 2.0, 4.0)
WIDEST_RATIO = 14
WIDEST_HD_RATIO = 4
NIJI_7_IMAGE_WEIGHT = 2


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, both ends included. `whole` means an integer."""

    low: int
    high: int
    whole: bool = True


RANGES: Mapping[str, Range] = {
    "stylize": Range(0, 1000),
    "chaos": Range(0, 100),
    "weird": Range(0, 3000),
    "seed": Range(0, 4_294_967_295),
    "image_weight": Range(0, 3, whole=False),
    "style_weight": Range(0, 1000),
    "omni_weight": Range(1, 1000),
}
"""The same numbers stand in the tool's input schema (checked late 2026; secondary sources)."""

CHOICES: Mapping[str, tuple[Any, ...]] = {"version": VERSIONS, "niji": NIJI_VERSIONS, "quality": QUALITIES}

_NEEDS = {"image_weight": "image_urls", "style_weight": "style_reference", "omni_weight": "omni_reference"}

FLAGS: Mapping[str, tuple[str, ...]] = {
    "aspect_ratio": ("ar", "aspect"),
    "version": ("v", "version"),
    "niji": ("niji",),
    "stylize": ("stylize", "s"),
    "chaos": ("chaos", "c"),
    "weird": ("weird", "w"),
    "seed": ("seed",),
    "quality": ("q", "quality"),
    "raw": ("raw",),
    "tile": ("tile",),
    "no": ("no",),
    "image_weight": ("iw",),
    "style_reference": ("sref",),
    "style_weight": ("sw",),
    "omni_reference": ("oref",),
    "omni_weight": ("ow",),
}
"""Argument -> the names of its flag; we write the first. The order here is the order in the compiled text."""

_ARGUMENT_OF = {name: argument for argument, names in FLAGS.items() for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a caller may choose. None, () and False mean: not given, Midjourney decides.

    Ranges (checked late 2026; secondary sources): `aspect_ratio` is "W:H" up to 14:1; `version` and `niji` exclude
    each other (`VERSIONS`, `NIJI_VERSIONS`); `quality` is one of `QUALITIES`; the other numbers are in `RANGES`.
    `image_urls` and `omni_reference` are http(s) URLs; `style_reference` holds URLs, numeric codes or `random`; `no`
    holds what should not be in the picture, without commas.
    """

    aspect_ratio: str | None = None
    version: str | None = None
    niji: str | None = None
    stylize: int | None = None
    chaos: int | None = None
    weird: int | None = None
    seed: int | None = None
    quality: float | None = None
    raw: bool = False
    tile: bool = False
    no: tuple[str, ...] = ()
    image_urls: tuple[str, ...] = ()
    image_weight: float | None = None
    style_reference: tuple[str, ...] = ()
    style_weight: int | None = None
    omni_reference: str | None = None
    omni_weight: int | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """The text to submit, and what the caller should know about it."""

    text: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """A value that `models` ignore or cannot do."""

    argument: str
    models: frozenset[str]
    because: str
    when: Callable[[Any], bool] = lambda _: True


_V8 = frozenset({"V8", "V8.1", "V8.2"})
_BEFORE_V5 = frozenset({"V4", "Niji 4"})
_BEFORE_V5_1 = _BEFORE_V5 | {"V5", "Niji 5"}
_BEFORE_V6 = _BEFORE_V5_1 | {"V5.1", "V5.2"}
_BEFORE_V7 = _BEFORE_V6 | {"V6", "V6.1", "Niji 6"}
_NOT_V7 = _BEFORE_V7 | _V8 | {"Niji 7", "Niji"}

CONFLICTS = (
    Conflict("aspect_ratio", _V8, "its HD pictures stop at 4:1", lambda ratio: _stretch(ratio) > WIDEST_HD_RATIO),
    Conflict("weird", _BEFORE_V5, "it works from V5 on"),
    Conflict("quality", _V8, "it has no quality setting"),
    Conflict("quality", frozenset({"V7"}), "it knows 1, 2 and 4", lambda quality: quality < 1),
    Conflict("quality", _BEFORE_V7, "it knows 0.25, 0.5, 1 and 2", lambda quality: quality == QUALITIES[-1]),
    Conflict("raw", _BEFORE_V5_1, "it works from V5.1 on"),
    Conflict("style_reference", _BEFORE_V6, "it works from V6 on"),
    Conflict("style_weight", _BEFORE_V6, "it works from V6 on"),
    Conflict("omni_reference", _NOT_V7, "only V7 has it"),
    Conflict("omni_weight", _NOT_V7, "only V7 has it"),
    Conflict("image_weight", frozenset({"Niji 7"}), "it goes up to 2", lambda weight: weight > NIJI_7_IMAGE_WEIGHT),
)
"""Warnings by model (checked late 2026; secondary sources)."""

# Keyboards turn `--` into an en or em dash, Chinese ones type two em dashes. (Possessive: linear on a wall of dashes.)
_DASH = "(?:(?<![-\u2012-\u2015])(?:--|-?[\u2012-\u2015])[-\u2012-\u2015]*+)"
_FLAG = re.compile(  # a URL is read first, as a whole: its dashes are not flags
    rf"https?://\S+|(?P<dash>(?:(?<!\w)|(?=-)){_DASH})(?P<name>[a-z]+)(?![a-z_-])(?=[\s=]*(?P<value>[^\s,]*))",
    re.IGNORECASE,
)
# Wider than `_FLAG` on purpose, and blind to URLs: a needless refusal costs one call, a missed flag costs 40 jobs.
_REPEAT = re.compile(rf"{_DASH}(?:repeat|r)(?![a-z_-])|{_DASH}\s+(?:repeat|r)[\s=]*[0-9]", re.IGNORECASE)
_ESCAPED = re.compile(r"\\.")
_WIDE_SIGNS = str.maketrans({"\uff5b": "{", "\uff5d": "}", "\uff0c": ",", "\u3001": ","})  # proxies may translate them
_RATIO = re.compile(r"([1-9][0-9]{0,5}):([1-9][0-9]{0,5})")
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u3164\uffa0")  # not format characters by category, yet drawn as nothing
_NO_OPTIONS = Options()
_URL = r"(?i:https?)://[^\s,/?#]+[^\s,]*"
_URL_WORDS = "an http:// or https:// URL without whitespace, commas or invisible characters"
_STRINGS = {
    "image_urls": (re.compile(_URL), _URL_WORDS),
    "omni_reference": (re.compile(_URL), _URL_WORDS),
    "style_reference": (re.compile(rf"{_URL}|[0-9]{{1,10}}|random"), f"{_URL_WORDS}, a numeric code, or `random`"),
    "no": (re.compile(rf"(?!.*--)(?!.*(?<!\w){_DASH}[a-zA-Z])\s*[^\s,][^,]*"), "words without commas, `--` or flags"),
}
"""What a string may look like, so that none can carry a second option into the prompt."""


@dataclass(frozen=True, slots=True)
class _Typed:
    """A flag found in the prompt. `argument` is None for a flag that we have no option for."""

    argument: str | None
    shown: str
    value: str
    start: int


def compile_prompt(prompt: str, options: Options = _NO_OPTIONS, *, allow_multiple: bool = False) -> Compiled:
    """Write the prompt as Midjourney reads it: image URLs, then the words, then the options.

    Flags typed in the prompt stay as they are. At most 8192 characters in all; ranges are those of `Options`.

    Args:
        prompt: The words. May be empty with two or more image URLs; line breaks become spaces.
        options: Typed options; one that the prompt already has as a flag is refused.
        allow_multiple: Accept `--repeat` and `{a, b}`, which start (and charge) several jobs.

    Raises:
        InvalidRequest: An impossible or doubled value, or a cost that was not allowed; names the argument.
    """
    words, warnings = _cleaned(prompt)
    _check_length(words)
    typed = _typed_flags(words)
    given = {name: value for name, value in asdict(options).items() if value or type(value) in {int, float, str}}
    _check_values(given)
    pictures = _check_substance(words, typed, options.image_urls)
    _check_pairs(given, typed, pictures)
    flags = [_written(argument, given[argument]) for argument in FLAGS if argument in given]
    text = " ".join(part for part in (*options.image_urls, words, *flags) if part)
    _check_length(text)
    multiplier = _multiplier(text)
    if multiplier and not allow_multiple:
        raise InvalidRequest("prompt", text, f"one job; {multiplier} starts several, which needs allow_multiple=true")
    warnings += [f"{multiplier} starts several jobs, and each is charged."] * bool(multiplier)
    odd = [flag.shown for flag in typed if not flag.shown.startswith("--")]
    warnings += [f"`{shown}` may not be understood: Midjourney flags start with `--`." for shown in odd]
    warnings += _version_warnings(given, typed)
    return Compiled(text, tuple(dict.fromkeys(warnings)))


def _is_hidden(character: str) -> bool:
    """Control, bidi, zero-width, tag and surrogate characters: what a reader of the prompt cannot see."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs"} or character in _BLANK_LETTERS


def _cleaned(prompt: str) -> tuple[str, list[str]]:
    """Single spaces, nothing invisible. A lone surrogate is refused: it cannot be sent as UTF-8."""
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise InvalidRequest("prompt", prompt, "text without lone surrogates")
    kept = "".join(character for character in prompt if character.isspace() or not _is_hidden(character))
    warnings = ["Invisible characters were removed from the prompt."] if len(kept) != len(prompt) else []
    return " ".join(kept.split()), warnings


def _check_length(text: str) -> None:
    if len(text) > MAX_PROMPT_CHARACTERS:
        allowed = f"at most {MAX_PROMPT_CHARACTERS} characters with all options; this is {len(text)}"
        raise InvalidRequest("prompt", text, allowed)


def _typed_flags(words: str) -> list[_Typed]:
    """Every flag in the prompt; behind a typographic dash only a known name counts, since people write dashes."""
    found = []
    for match in _FLAG.finditer(words):
        dash, name, value = match.group("dash", "name", "value")
        if not dash:
            continue
        argument = "raw" if f"{name} {value}".lower() == "style raw" else _ARGUMENT_OF.get(name.lower())
        if argument or dash.startswith("--"):
            found.append(_Typed(argument, dash + name, value, match.start()))
    return found


def _check_values(given: Mapping[str, Any]) -> None:
    """Refuse what is impossible whatever the prompt says."""
    for argument, span in RANGES.items():
        value = given.get(argument, span.low)
        if not span.low <= value <= span.high or (span.whole and type(value) is not int):  # NaN fails every comparison
            number = "a whole number" if span.whole else "a number"
            raise InvalidRequest(argument, value, f"{number} from {span.low} to {span.high}")
    for argument, choices in CHOICES.items():
        if argument in given and given[argument] not in choices:
            raise InvalidRequest(argument, given[argument], "one of " + ", ".join(map(_plain, choices)))
    if "version" in given and "niji" in given:
        raise InvalidRequest("niji", given["niji"], "either `version` or `niji`")
    if "aspect_ratio" in given and not 0 < _stretch(given["aspect_ratio"]) <= WIDEST_RATIO:
        allowed = f'"W:H" in positive whole numbers such as "16:9", at most {WIDEST_RATIO}:1'
        raise InvalidRequest("aspect_ratio", given["aspect_ratio"], allowed)
    _check_strings(given)


def _check_strings(given: Mapping[str, Any]) -> None:
    """Refuse a string that could carry a second option, or a character that nobody sees, into the prompt."""
    for argument, (pattern, allowed) in _STRINGS.items():
        value = given.get(argument, ())
        for item in (value,) if isinstance(value, str) else value:
            if len(item) > MAX_PROMPT_CHARACTERS or any(map(_is_hidden, item)) or not pattern.fullmatch(item):
                raise InvalidRequest(argument, item, allowed)


def _check_substance(words: str, typed: list[_Typed], image_urls: tuple[str, ...]) -> int:
    """Refuse a prompt that says nothing; returns the number of image prompts, typed ones included."""
    head = words[: typed[0].start].split() if typed else words.split()
    leading = next((n for n, word in enumerate(head) if not re.match(r"https?://", word, re.IGNORECASE)), len(head))
    pictures = len(image_urls) + leading
    if leading == len(head) and pictures <= 1:
        raise InvalidRequest("prompt", words, "words before any options, or at least two image URLs")
    return pictures


def _check_pairs(given: Mapping[str, Any], typed: list[_Typed], pictures: int) -> None:
    """Refuse an option given twice, and a weight without what it weighs."""
    seen = {flag.argument: flag.shown for flag in typed if flag.argument}
    for argument, value in given.items():
        for twin in ("version", "niji") if argument in {"version", "niji"} else (argument,):
            if twin in seen:
                raise InvalidRequest(argument, value, f"one place only: the prompt already has `{seen[twin]}`")
    for weight, weighed in _NEEDS.items():
        present = pictures > 0 if weighed == "image_urls" else weighed in given or weighed in seen
        if weight in given and not present:
            raise InvalidRequest(weight, given[weight], f"only together with `{weighed}`")


def _written(argument: str, value: object) -> str:
    flag = f"--{FLAGS[argument][0]}"
    if value is True:
        return flag
    items = value if isinstance(value, tuple) else (value,)
    return f"{flag} " + (", " if argument == "no" else " ").join(" ".join(_plain(item).split()) for item in items)


def _plain(value: object) -> str:
    """A number without exponent, sign or trailing zeros; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    digits = format(Decimal(repr(abs(value))), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _stretch(ratio: str) -> float:
    """How much longer the long side of "W:H" is; 0 when it is no ratio."""
    match = _RATIO.fullmatch(ratio)
    sides = sorted(map(int, match.groups())) if match else [1, 0]
    return sides[1] / sides[0]


def _multiplier(text: str) -> str | None:
    """What in the text starts several jobs, in words. A backslash takes the meaning from the next character."""
    if _REPEAT.search(text):
        return "`--repeat`"
    is_open = comma = 0
    for sign in _ESCAPED.sub("", text.translate(_WIDE_SIGNS)):
        if sign == "{":
            is_open += 1
        elif sign == "," and is_open:
            comma = 1
        elif sign == "}":
            if comma:  # the group of that comma is still open, at this depth or further out
                return "a `{a, b}` group"
            is_open = max(0, is_open - 1)
    return None


def _version_warnings(given: Mapping[str, Any], typed: list[_Typed]) -> list[str]:
    """Silent when no version is given anywhere: the default model moves."""
    model = ""
    for argument, value in [*((flag.argument, flag.value.removesuffix(".0")) for flag in typed), *given.items()]:
        if argument in {"version", "niji"}:
            number = "" if value.startswith("-") else value
            model = f"V{number}" if argument == "version" else f"Niji {number}".strip()
    return [
        f"`{rule.argument}` as given does not fit {model}: {rule.because}."
        for rule in CONFLICTS
        if model in rule.models and rule.argument in given and rule.when(given[rule.argument])
    ]
