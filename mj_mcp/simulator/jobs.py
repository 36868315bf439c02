"""The simulator's records: requests received and charges made.

Owns the two kinds of record, and the ledger file. Does not know how an answer looks, or whether it arrived: a charge is
independent of its answer.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO


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
    """Return the charges whose endpoint and body were charged before."""
    known: set[tuple[str, str]] = set()
    found = []
    for charge in charges:
        what = (charge.endpoint, json.dumps(charge.body, sort_keys=True))
        if what in known:
            found.append(charge)
        known.add(what)
    return found
