"""Files that are whole or absent, even after kill -9 or on a full disk.

Owns how bytes reach the disk: pictures, tokens, secrets and backups are all written here. Does not know what they
hold. Every function blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

TEMPORARY: Final = ".mj-part-"
"""The prefix of the names of unfinished files."""
LEFTOVER_SECONDS: Final = 3600.0

_ODD = re.compile(r"[^A-Za-z0-9._-]")
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, replacing what was there. Folders get mode 0700, the file gets 0600. Raises OSError."""
    make_folder(path.parent)
    with _draft(path, os.replace) as draft:
        draft.write_bytes(data)


def write_new(path: Path, data: bytes) -> bool:
    """Like `write_whole`, but never replaces a file: returns False when the name is taken. Raises OSError."""
    make_folder(path.parent)
    try:
        with new_file(path) as draft:
            draft.write_bytes(data)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """An empty file (mode 0600) to write to. It is renamed to `path` if the block succeeds, and removed otherwise.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with _draft(path, _claim) as draft:
        yield draft


def sweep_leftovers(folder: Path, older_than_seconds: float = LEFTOVER_SECONDS) -> int:
    """Remove unfinished files of killed processes. Recent ones stay: they may still be in use. Never raises."""
    removed = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                old = entry.stat(follow_symlinks=False).st_mtime <= time.time() - older_than_seconds
                if entry.name.startswith(TEMPORARY) and old and entry.is_file(follow_symlinks=False):
                    Path(entry.path).unlink()
                    removed += 1
    return removed


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each with mode 0700. Raises OSError."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def safe_name(text: str) -> str:
    """A task id as part of a file name: valid on every system, never hidden, at most 128 characters."""
    return re.sub(r"^[.-]", "_", _ODD.sub("_", text))[:128] or "_"


@contextlib.contextmanager
def _draft(path: Path, publish: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A file beside `path`. It is renamed to `path` when it is complete and synced."""
    draft = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        draft.touch(mode=0o600, exist_ok=False)
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _claim(draft: Path, path: Path) -> None:
    """Give the file its name in one step, by a hard link. Fails if the name is taken."""
    try:
        os.link(draft, path, follow_symlinks=False)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LINKS:
            raise
        # File systems without hard links (exFAT, some shares). Windows refuses a taken name itself. On other systems
        # another program could take the name between the check and the rename.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        draft.rename(path)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut. Windows cannot open folders, and some shares cannot sync them."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
