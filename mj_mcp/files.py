"""Files that are whole or absent, also after kill -9 or on a full disk.

Owns how bytes reach the disk: pictures, tokens, secrets and backups are all written here. Knows nothing of what they
hold. Everything here blocks: call it through a thread.
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
"""How the names of unfinished files begin."""
LEFTOVER_SECONDS: Final = 3600.0

_ODD = re.compile(r"[^A-Za-z0-9._-]")
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; replaces what was there. Folders are made with mode 0700, the file gets 0600. Raises OSError."""
    make_folder(path.parent)
    with _draft(path, os.replace) as draft:
        draft.write_bytes(data)


def write_new(path: Path, data: bytes) -> bool:
    """Like `write_whole`, but never replaces: False when the name is taken, by whatever. Raises OSError."""
    make_folder(path.parent)
    try:
        with new_file(path) as draft:
            draft.write_bytes(data)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """An empty file (mode 0600) to be filled. It is named `path` once the block ends well, and removed otherwise.

    Raises:
        FileExistsError: the name is taken, by whatever.
        OSError: it cannot be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with _draft(path, _claim) as draft:
        yield draft


def sweep_leftovers(folder: Path, older_than_seconds: float = LEFTOVER_SECONDS) -> int:
    """Remove unfinished files of killed processes; younger ones may still be written by another. Never raises."""
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
    """A task id as a part of a file name: on every system, never hidden, at most 128 characters."""
    return re.sub(r"^[.-]", "_", _ODD.sub("_", text))[:128] or "_"


@contextlib.contextmanager
def _draft(path: Path, publish: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A file beside `path`, which gets its name when it is whole and synced."""
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
    """Give the file its name unless the name is taken, in one step: a hard link."""
    try:
        os.link(draft, path, follow_symlinks=False)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LINKS:
            raise
        # File systems without hard links (exFAT, some shares). Windows refuses a taken name by itself; elsewhere
        # another program could take it between the check and the rename.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        draft.rename(path)


def _sync_folder(folder: Path) -> None:
    """Make the name last through a power cut. Windows opens no folders, and some shares sync none."""
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
