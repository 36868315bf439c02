"""The options of Midjourney, in one table: flags, values, what each needs, and which models cannot use it.

One row serves both the typed argument and the flag in a prompt. Numbers: checked late 2026, secondary sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mj_mcp.prompts.values import DASH, Choice, CommaList, Items, Range, Ratio, Switch, ValueType, has_hidden, stretch

VERSIONS = ("8.2", "8.1", "8", "7", "6.1", "6", "5.2", "5.1", "5", "4")
NIJI_VERSIONS = ("7", "6", "5", "4")
QUALITIES = (0.25, 0.5, 1.0, 2.0, 4.0)
WIDEST_HD_RATIO = 4
NIJI_7_IMAGE_WEIGHT = 2

MAX_PATH_CHARACTERS = 4096

DEFAULT_MODEL = "V8.2"
DEFAULT_SINCE = "July 2026"

_REFERENCE = re.compile(
    r"(?:mj://tasks/([\w.:-]{1,128})/images/|([\w.:-]{1,128})#)([1-9]|1[0-6])",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a caller may choose. None, () and False mean: not given, so Midjourney decides.

    `OPTIONS` says what each may be. `version` and `niji` exclude each other. `image_urls`, `style_reference` and
    `omni_reference` also take our own pictures (`references`), and `image_urls` files (`files`). `no` is what should
    not be in the picture; `profile` is the ids of personalization profiles and moodboards.
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
    speed: str | None = None
    draft: bool = False
    profile: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """One of our pictures: `text` as given, the task's id, and the picture's index, from 1."""

    text: str
    handle: str
    index: int

    @property
    def key(self) -> str:
        """The name that does not change with the link."""
        return f"{self.handle}#{self.index}"


def reference(text: str) -> Reference | None:
    """The picture named by `ID#N` or `mj://tasks/ID/images/N`; N is 1-16."""
    match = _REFERENCE.fullmatch(text)
    return Reference(text, match[1] or match[2], int(match[3])) if match else None


def references(options: Options) -> tuple[Reference, ...]:
    """Our own pictures among the references, each text once, in order."""
    items = dict.fromkeys((*options.image_urls, *options.style_reference, options.omni_reference or ""))
    return tuple(found for item in items if (found := reference(item)))


def is_file(text: str) -> bool:
    """Whether an image prompt names a file: it is neither a URL nor one of our pictures. The file may not exist."""
    usable = 0 < len(text.strip()) <= len(text) <= MAX_PATH_CHARACTERS and not has_hidden(text)
    return usable and "://" not in text and reference(text) is None


def files(options: Options) -> tuple[str, ...]:
    """The image prompts that name files, each text once, in order."""
    return tuple(filter(is_file, dict.fromkeys(options.image_urls)))


@dataclass(frozen=True, slots=True)
class Limit:
    """What `models` cannot do with an option, for some values.

    A named model refuses it if `refused` is set, since the picture would not be the intended one; otherwise it is a
    warning. Without a named model it is always a warning, and `instead` says what to add.
    """

    models: frozenset[str]
    because: str
    when: Callable[[Any], bool] | None = None
    refused: bool = False
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """One row. `key` is the argument's name, if there is one; we write the first of `flags`.

    `needs` is the key of an option that this one requires; `unsupported` says why nobody may use it here.
    """

    key: str
    flags: tuple[str, ...]
    value: ValueType
    limits: tuple[Limit, ...] = ()
    needs: str | None = None
    unsupported: str = ""

    @property
    def shown(self) -> str:
        """The name that a caller should use."""
        return self.key if self.key in ARGUMENTS else f"--{self.flags[0]}"


@dataclass(frozen=True, slots=True)
class Clash:
    """Two options that cannot be combined, for some values."""

    one: str
    other: str
    because: str
    when: Callable[[Any, Any], bool] = lambda _one, _other: True


def _models(*names: str) -> frozenset[str]:
    return frozenset(names)


_ALL = frozenset({*(f"V{version}" for version in VERSIONS), *(f"Niji {version}" for version in NIJI_VERSIONS), "Niji"})
_V8 = _models("V8", "V8.1", "V8.2")
_BEFORE_V5 = _models("V4", "Niji 4")
_BEFORE_V5_1 = _BEFORE_V5 | {"V5", "Niji 5"}
_BEFORE_V6 = _BEFORE_V5_1 | {"V5.1", "V5.2"}
_BEFORE_V7 = _BEFORE_V6 | {"V6", "V6.1", "Niji 6"}
_FROM_V7 = _ALL - _BEFORE_V7

_NO_HD_RATIO = Limit(_V8, "its HD pictures stop at 4:1", lambda ratio: stretch(ratio) > WIDEST_HD_RATIO)
_QUALITY = (
    Limit(_V8, "it has no quality setting"),
    Limit(_models("V7"), "it knows 1, 2 and 4", lambda quality: quality < 1),
    Limit(_BEFORE_V7, "it knows 0.25, 0.5, 1 and 2", lambda quality: quality == QUALITIES[-1]),
)
_NIJI_7_WEIGHT = Limit(_models("Niji 7"), "it goes up to 2", lambda weight: weight > NIJI_7_IMAGE_WEIGHT)
_FROM_V6_ON = (Limit(_BEFORE_V6, "it works from V6 on"),)
_V7_ONLY = (Limit(_ALL - {"V7"}, "only V7 has it", refused=True, instead="version 7"),)
_V6_ONLY = (Limit(_ALL - {"V6", "V6.1", "Niji 6"}, "only V6 and Niji 6 have it", refused=True, instead="version 6.1"),)
_FROM_V8_1_ON = (Limit(_ALL - {"V8.1", "V8.2"}, "it works from V8.1 on"),)
_UP_TO_V6 = (Limit(_FROM_V7, "it works up to V6"),)
_NO_TURBO = Limit(_V8, "it has no turbo mode", lambda speed: speed == "turbo")

_URL = r"(?i:https?)://[^\s,/?#]+[^\s,]*"
_WEIGHT = r"(?:::[0-9]{1,4}(?:\.[0-9]{1,3})?)?"
_URL_WORDS = "an http:// or https:// URL without whitespace, commas or invisible characters"
_URLS = re.compile(_URL)
_STYLES = re.compile(rf"{_URL}|[0-9]{{1,10}}{_WEIGHT}|random")
_IDS = re.compile(rf"[A-Za-z0-9]{{1,64}}{_WEIGHT}")
_PLAIN_WORDS = re.compile(rf"(?!.*--)(?!.*(?<!\w){DASH}[a-zA-Z])\s*[^\s,][^,]*")

_VIDEOS = "is for videos, and a prompt makes pictures here"

OPTIONS = (
    Option("aspect_ratio", ("ar", "aspect"), Ratio(), (_NO_HD_RATIO,)),
    Option("version", ("v", "version"), Choice(VERSIONS)),
    Option("niji", ("niji",), Choice(NIJI_VERSIONS, optional=True)),
    Option("stylize", ("stylize", "s"), Range(0, 1000)),
    Option("chaos", ("chaos", "c"), Range(0, 100)),
    Option("weird", ("weird", "w"), Range(0, 3000), (Limit(_BEFORE_V5, "it works from V5 on"),)),
    Option("seed", ("seed",), Range(0, 4_294_967_295)),
    Option("quality", ("q", "quality"), Choice(QUALITIES), _QUALITY),
    Option("raw", ("raw",), Switch(), (Limit(_BEFORE_V5_1, "it works from V5.1 on"),)),  # `--style raw` too
    Option("tile", ("tile",), Switch()),
    Option("no", ("no",), CommaList(_PLAIN_WORDS, "words without commas, `--` or flags")),
    Option("image_urls", (), Items(_URLS, _URL_WORDS)),
    Option("image_weight", ("iw",), Range(0, 3, whole=False), (_NIJI_7_WEIGHT,), needs="image_urls"),
    Option("style_reference", ("sref",), Items(_STYLES, f"{_URL_WORDS}, a numeric code, or `random`"), _FROM_V6_ON),
    Option("style_weight", ("sw",), Range(0, 1000), _FROM_V6_ON, needs="style_reference"),
    Option("omni_reference", ("oref",), Items(_URLS, _URL_WORDS, most=1), _V7_ONLY),
    Option("omni_weight", ("ow",), Range(1, 1000), _V7_ONLY, needs="omni_reference"),
    Option("speed", ("fast", "relax", "turbo"), Switch(("fast", "relax", "turbo")), (_NO_TURBO,)),
    Option("draft", ("draft",), Switch(), _V7_ONLY),
    Option("profile", ("profile", "p", "personalize"), Items(_IDS, "ids of letters and digits", least=0), _FROM_V6_ON),
    # Without an argument of their own:
    Option("exp", ("exp",), Range(0, 100), (Limit(_ALL - _V8 - {"V7"}, "only V7 and V8 have it"),)),
    Option("sv", ("sv",), Range(1, 6), _FROM_V6_ON, needs="style_reference"),
    Option("resolution", ("hd", "sd"), Switch(("hd", "sd")), _FROM_V8_1_ON),
    Option("cref", ("cref",), Items(_URLS, _URL_WORDS), _V6_ONLY),
    Option("cw", ("cw",), Range(0, 100), _V6_ONLY, needs="cref"),
    Option("stop", ("stop",), Range(10, 100), _UP_TO_V6),
    Option("style", ("style",), Items(re.compile(r"[A-Za-z0-9-]+"), "one word", most=1), _UP_TO_V6),
    Option("visibility", ("stealth", "public"), Switch(("stealth", "public"))),
    Option("edit", ("edit",), Items(_URLS, "one to four http:// or https:// URLs", most=4), _FROM_V8_1_ON),
    Option("repeat", ("repeat", "r"), Range(1, 40)),
    *(Option(name, (name,), Switch(), unsupported=_VIDEOS) for name in ("video", "motion", "loop", "end", "bs")),
)
"""In the order of the compiled text."""

CLASHES = (
    Clash("version", "niji", "they choose different models"),
    Clash("omni_reference", "draft", "draft mode takes no such reference"),
    Clash("omni_reference", "quality", "it goes up to quality 2", lambda _, quality: quality == QUALITIES[-1]),
    Clash(
        "style_reference",
        "sv",
        "codes and `random` need 4 or 6",
        lambda styles, sv: sv not in {4, 6} and _has_code(styles),
    ),
)

WEIGHTS = Option("weights", ("::",), Switch(), (Limit(_V8 | {"V7"}, "weights work up to V6"),))
"""`::` between words is not a flag, but models differ in it."""

ARGUMENTS = frozenset(field.name for field in fields(Options))
OPTION: Mapping[str, Option] = {option.key: option for option in OPTIONS}
FLAG: Mapping[str, Option] = {name: option for option in OPTIONS for name in option.flags}
REFERENCES = frozenset({"image_urls", "style_reference", "omni_reference"})
"""The arguments that take our own pictures."""

RANGES: Mapping[str, Range] = {
    option.key: option.value for option in OPTIONS if option.key in ARGUMENTS and isinstance(option.value, Range)
}
"""The tool's input schema has the same numbers."""

CHOICES: Mapping[str, tuple[Any, ...]] = {
    option.key: option.value.values
    for option in OPTIONS
    if option.key in ARGUMENTS and isinstance(option.value, Choice)
}


def _has_code(styles: tuple[str, ...]) -> bool:
    return any(not _URLS.fullmatch(style) for style in styles)
