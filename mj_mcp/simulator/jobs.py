"""The simulator's records: requests received and charges made.

Owns the two kinds of record, and the ledger file. Does not know how an answer looks, or whether it arrived: a charge is
independent of its answer.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TextIO

_MARKS: Final = frozenset({"state", "notifyHook"})
_MESSAGE: Final = re.compile(r"::[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:::SOLO)?$")


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it was received. `path` is as sent, header names are in lower case, `at` is epoch seconds."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:  # noqa: ANN401  # whatever the client sent
        """The body, parsed. Raises ValueError when it is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Charge:
    """One job that was created, and so paid for. `seq` counts from 1, `at` is epoch seconds."""

    seq: int
    task_id: str
    endpoint: str
    body: dict[str, Any]
    at: float


class Ledger:
    """The append-only list of charges. With a path, also a file of JSON lines, flushed one by one."""

    def __init__(self, path: Path | None) -> None:
        self.charges: list[Charge] = []
        self._path = path
        self._file: TextIO | None = None

    def open(self) -> None:
        """Open the file for appending; lines of an earlier run are kept."""
        if self._path is not None:
            self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def charge(self, task_id: str, endpoint: str, body: dict[str, Any], at: float) -> Charge:
        """Append one charge."""
        charge = Charge(len(self.charges) + 1, task_id, endpoint, body, at)
        self.charges.append(charge)
        if self._file is not None:
            self._file.write(json.dumps(asdict(charge)) + "\n")
            self._file.flush()
        return charge


def repeated(charges: Sequence[Charge]) -> list[Charge]:
    """Return the charges that bought what was bought before, however the client marked it."""
    known: set[tuple[str, str]] = set()
    found = []
    for charge in charges:
        what = (charge.endpoint, json.dumps(_bought(charge.body), sort_keys=True))
        if what in known:
            found.append(charge)
        known.add(what)
    return found


def button_name(custom_id: str) -> str:
    """Return a button's id without the part that names its message, which changes while the button stays the same."""
    return _MESSAGE.sub("", custom_id)


def _bought(body: dict[str, Any]) -> dict[str, Any]:
    bought = {name: value for name, value in body.items() if name not in _MARKS}
    if isinstance(custom_id := bought.get("customId"), str):
        bought["customId"] = button_name(custom_id)
    return bought
