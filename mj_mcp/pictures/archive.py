"""The archive of originals in the data folder: kept before their links die, dropped when room is needed.

Owns one flat folder and its ceiling. Files in it with other names are not its own and are left alone. Must not know
where pictures come from or who asks. Everything here blocks: call it through a thread.

A file may vanish at any time (a person tidies up, another process needs room): a path is a hint, not a promise.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from pathlib import Path

from mj_mcp.pictures.files import safe_name, sweep_leftovers, write_whole
from mj_mcp.pictures.measure import EXTENSIONS

_SHEET = "sheet"
_OURS = re.compile(rf"[A-Za-z0-9._-]+\+(?:[0-9]+|{_SHEET})\.(?:{'|'.join(sorted(EXTENSIONS))})")


class Archive:
    """Originals and sheets by submission. Several processes may share one folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Nothing is touched yet. `max_bytes` is the ceiling over originals and sheets together."""
        self._folder = folder
        self._max_bytes = max_bytes

    def put(self, submission_id: str, index: int, data: bytes, extension: str) -> Path:
        """Keep one original; replaces an earlier one of the same place. Raises OSError when it cannot be written."""
        return self._put(submission_id, str(index), data, extension)

    def get(self, submission_id: str, index: int) -> Path | None:
        """Where an original is, or None; counts as a use."""
        return self._get(submission_id, str(index))

    def put_sheet(self, submission_id: str, data: bytes, extension: str = "webp") -> Path:
        """Keep the contact sheet of a task. Raises OSError when it cannot be written."""
        return self._put(submission_id, _SHEET, data, extension)

    def get_sheet(self, submission_id: str) -> Path | None:
        """Where the contact sheet is, or None; counts as a use."""
        return self._get(submission_id, _SHEET)

    def _put(self, submission_id: str, what: str, data: bytes, extension: str) -> Path:
        if extension not in EXTENSIONS:
            raise ValueError(f"an archive keeps {sorted(EXTENSIONS)}, not {extension!r}")
        sweep_leftovers(self._folder)
        path = self._path(submission_id, what, extension)
        write_whole(path, data)
        for other in EXTENSIONS - {extension}:
            with contextlib.suppress(OSError):
                self._path(submission_id, what, other).unlink(missing_ok=True)
        self._make_room(path)
        return path

    def _get(self, submission_id: str, what: str) -> Path | None:
        for extension in sorted(EXTENSIONS):
            path = self._path(submission_id, what, extension)
            with contextlib.suppress(OSError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    self._touch(path, found.st_atime_ns)
                    return path
        return None

    def _path(self, submission_id: str, what: str, extension: str) -> Path:
        name = safe_name(submission_id)
        if name != submission_id:  # two ids must never share a name
            name = f"{name[:100]}.{hashlib.sha256(submission_id.encode()).hexdigest()[:16]}"
        return self._folder / f"{name}+{what}.{extension}"

    @staticmethod
    def _touch(path: Path, accessed: int) -> None:
        with contextlib.suppress(OSError):  # a read-only archive still serves
            os.utime(path, ns=(accessed, time.time_ns()))

    def _make_room(self, newest: Path) -> None:
        """Drop the least recently used until the rest fits; the file just written stays in any case."""
        kept: list[tuple[int, int, Path]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        kept.append((found.st_mtime_ns, found.st_size, self._folder / entry.name))
        excess = sum(size for _, size, _ in kept) - self._max_bytes
        for _, size, path in sorted(kept):
            if excess <= 0:
                return
            if path != newest:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    excess -= size
