"""A folder of originals and sheets: saved before the links expire, removed when space is needed.

Owns one flat folder and its size limit. Files with other names are not ours and are left alone. Does not know where
pictures come from or who asks. Every function blocks: call it in a thread.

A file may disappear at any time (a person cleans up, another process needs space), so a path is only a hint.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from mj_mcp.files import safe_name, sweep_leftovers, write_whole
from mj_mcp.pictures.decode import EXTENSIONS

SHEET: Final = "sheet"
What = int | Literal["sheet"]
"""One original of a task, by its index, or the task's contact sheet."""

_OURS = re.compile(rf"[A-Za-z0-9._-]+\+(?:[0-9]+|{SHEET})\.(?:{'|'.join(sorted(EXTENSIONS))})")


class Archive:
    """Originals and sheets by submission. Several processes may share one folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Touches no file yet. `max_bytes` limits originals and sheets together."""
        self._folder = folder
        self._max_bytes = max_bytes

    def put(self, submission_id: str, what: What, data: bytes, extension: str) -> Path:
        """Keep one picture, replacing an earlier one. Raises OSError when it cannot be written."""
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

    def get(self, submission_id: str, what: What) -> Path | None:
        """The path of a picture, or None. Counts as a use."""
        for extension in sorted(EXTENSIONS):
            path = self._path(submission_id, what, extension)
            with contextlib.suppress(OSError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    self._touch(path, found.st_atime_ns)
                    return path
        return None

    def files(self) -> list[Path]:
        """All of our files, the least recently used first. Raises OSError when the folder cannot be read."""
        return [path for _, _, path in sorted(self._scan())] if self._folder.exists() else []

    def _path(self, submission_id: str, what: What, extension: str) -> Path:
        return self._folder / f"{name_of(submission_id, what)}.{extension}"

    @staticmethod
    def _touch(path: Path, accessed: int) -> None:
        with contextlib.suppress(OSError):  # a read-only archive still works
            os.utime(path, ns=(accessed, time.time_ns()))

    def _make_room(self, newest: Path) -> None:
        """Remove the least recently used files until the rest fits. The file just written always stays."""
        kept = sorted(self._scan())
        excess = sum(size for _, size, _ in kept) - self._max_bytes
        for _, size, path in kept:
            if excess <= 0:
                return
            if path != newest:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    excess -= size

    def _scan(self) -> Iterator[tuple[int, int, Path]]:
        """Last use, size and path of each of our files."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        yield found.st_mtime_ns, found.st_size, self._folder / entry.name


def name_of(submission_id: str, what: What) -> str:
    """The name of a picture without an extension, the same in the folder and the bucket."""
    name = safe_name(submission_id)
    if name != submission_id:  # two ids must never share a name
        name = f"{name[:100]}.{hashlib.sha256(submission_id.encode()).hexdigest()[:16]}"
    return f"{name}+{what}"
