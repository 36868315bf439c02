"""The kinds of values of an option: how each is read from a prompt, which parts are wrong, and the error text.

Knows no options by name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile
from typing import Any, Protocol

MAX_PROMPT_CHARACTERS = 8192
"""For the whole compiled text: image URLs, words and options together."""

WIDEST_RATIO = 14

# Keyboards turn `--` into an en or em dash; Chinese ones type two em dashes. (Possessive, so linear in many dashes.)
DASH = "(?:(?<![-\u2012-\u2015])(?:--|-?[\u2012-\u2015])[-\u2012-\u2015]*+)"
"""What may come before a flag, in a text with `plain_signs`."""

_SIGNS = str.maketrans(dict.fromkeys("\u2010\u2011\u2212\ufe63\uff0d", "-") | {"\ufe58": "\u2014"})
_RATIO = re.compile(r"([1-9][0-9]{0,5}):([1-9][0-9]{0,5})")
_NUMBER = re.compile(r"-?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})")
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u3164\uffa0")  # not format characters by category, yet invisible


class ValueType(Protocol):
    """A kind of value, the same for arguments and flags."""

    @property
    def must_be(self) -> str:
        """The end of the sentence "... must be"."""
        ...

    def wrong(self, value: Any) -> Iterator[object]:  # noqa: ANN401 - whatever was given
        """The parts of `value` that cannot be used."""
        ...

    def read(self, name: str, text: str) -> tuple[Any, str]:
        """The value of the flag `name` followed by `text`, and the words that do not belong to the value."""
        ...


@dataclass(frozen=True, slots=True)
class Range:
    """A number between two limits, both included. `whole` means an integer."""

    low: int
    high: int
    whole: bool = True

    @property
    def must_be(self) -> str:
        """As `ValueType`."""
        return f"a {'whole ' * self.whole}number between {self.low} and {self.high}"

    def wrong(self, value: Any) -> Iterator[object]:  # noqa: ANN401 - as ValueType
        """As `ValueType`."""
        numbers = {int} if self.whole else {int, float}
        if type(value) not in numbers or not self.low <= value <= self.high:  # NaN fails every comparison
            yield value

    def read(self, _name: str, text: str) -> tuple[Any, str]:
        """As `ValueType`."""
        first, _, rest = text.partition(" ")
        return _number(first), rest


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `values`, all texts or all numbers. If `optional`, a flag may have no value, which reads as True."""

    values: tuple[Any, ...]
    optional: bool = False

    @property
    def must_be(self) -> str:
        """As `ValueType`."""
        return "one of " + ", ".join(map(plain, self.values))

    def wrong(self, value: Any) -> Iterator[object]:  # noqa: ANN401 - as ValueType
        """As `ValueType`."""
        if value not in self.values and not (self.optional and value is True):
            yield value

    def read(self, _name: str, text: str) -> tuple[Any, str]:
        """As `ValueType`."""
        if self.optional and not text[:1].isdigit():
            return True, text
        first, _, rest = text.partition(" ")
        return first.removesuffix(".0") if isinstance(self.values[0], str) else _number(first), rest


@dataclass(frozen=True, slots=True)
class Ratio:
    """Width to height, in whole numbers with a colon between them."""

    must_be: str = f'"W:H" in positive whole numbers such as "16:9", at most {WIDEST_RATIO}:1'

    def wrong(self, value: Any) -> Iterator[object]:  # noqa: ANN401 - as ValueType
        """As `ValueType`."""
        if not 0 < stretch(value) <= WIDEST_RATIO:
            yield value

    def read(self, _name: str, text: str) -> tuple[Any, str]:
        """As `ValueType`."""
        first, _, rest = text.partition(" ")
        return first, rest


@dataclass(frozen=True, slots=True)
class Items:
    """A list of texts. The pattern prevents that one adds a second option to the prompt."""

    pattern: re.Pattern[str]
    must_be: str
    least: int = 1
    most: int = MAX_PROMPT_CHARACTERS

    def wrong(self, value: Any) -> Iterator[object]:  # noqa: ANN401 - as ValueType
        """As `ValueType`."""
        items = (value,) if isinstance(value, str) else value
        bad = [item for item in items if not self._fits(item)]
        yield from bad
        if not bad and not self.least <= len(items) <= self.most:
            yield value

    def read(self, _name: str, text: str) -> tuple[Any, str]:
        """As `ValueType`."""
        words = text.split()
        count = sum(1 for _ in takewhile(self._fits, words)) or self.least
        return tuple(words[:count]), " ".join(words[count:])

    def _fits(self, item: str) -> bool:
        return (
            len(item) <= MAX_PROMPT_CHARACTERS
            and not has_hidden(item)
            and bool(self.pattern.fullmatch(plain_signs(item)))
        )


@dataclass(frozen=True, slots=True)
class CommaList(Items):
    """Texts of several words, separated by commas."""

    def read(self, _name: str, text: str) -> tuple[Any, str]:
        """As `ValueType`."""
        return tuple(item.strip() for item in text.split(",") if item.strip()), ""


@dataclass(frozen=True, slots=True)
class Switch:
    """A flag without a value. If several flags set one option, the name of the flag is the value."""

    names: tuple[str, ...] = ()

    @property
    def must_be(self) -> str:
        """As `ValueType`."""
        return "one of " + ", ".join(self.names) if self.names else "true or left out"

    def wrong(self, value: Any) -> Iterator[object]:  # noqa: ANN401 - as ValueType
        """As `ValueType`."""
        if value not in (self.names or (True,)):
            yield value

    def read(self, name: str, text: str) -> tuple[Any, str]:
        """As `ValueType`."""
        return (name if self.names else True), text


def _number(text: str) -> object:
    """`text` as a number if it is one."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def plain(value: object) -> str:
    """A number without exponent, sign or trailing zeros, with all decimals that count. Other values are unchanged."""
    if not isinstance(value, float):
        return str(value)
    digits = format(round(Decimal(repr(abs(value))), 20), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def stretch(ratio: str) -> float:
    """The long side of "W:H" divided by the short side; 0 if it is not a ratio."""
    match = _RATIO.fullmatch(ratio)
    sides = sorted(map(int, match.groups())) if match else [1, 0]
    return sides[1] / sides[0]


def plain_signs(text: str) -> str:
    """`text` with hyphens for minus signs and full-width hyphens. Its length does not change."""
    return text if text.isascii() else text.translate(_SIGNS)


def is_hidden(character: str) -> bool:
    """Control, bidi, zero-width, tag and surrogate characters, which a reader of the prompt cannot see."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs"} or character in _BLANK_LETTERS


def has_hidden(text: str) -> bool:
    """Whether a character of `text` is hidden."""
    return any(map(is_hidden, set(text)))
