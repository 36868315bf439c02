"""Saves full-size pictures for a person: in one folder, under names we choose, each with a sidecar file.

Owns which names and folders are allowed. Does not know HTTP, MCP, settings, or how a picture looks. Every function
blocks: call it in a thread.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mj_mcp.errors import InvalidRequest, StorageUnavailable
from mj_mcp.files import make_folder, safe_name, sweep_leftovers, write_new
from mj_mcp.pictures.decode import EXTENSIONS

MAX_NAMESAKES: Final = 1000

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_FOLDER_ALLOWED = (
    "a folder inside the output folder: letters, digits, spaces and . _ - ( ), parts divided by /, no part that begins "
    "with a dot, dash or space, ends with a dot or space, or is a device name; no links that lead out"
)


@dataclass(frozen=True, slots=True)
class Original:
    """One full-size picture to save, and the facts that lead from the file back to its task."""

    task_id: str
    index: int
    data: bytes
    extension: str
    media_type: str
    prompt: str | None = None
    parent_id: str | None = None
    kind: str | None = None
    url_host: str | None = None
    name: str | None = None
    """The file's name instead of the task's id; see `check_name`."""


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A saved picture and its path."""

    index: int
    path: Path
    bytes: int
    sha256: str
    media_type: str


def check_name(name: str | None) -> None:
    """Raises InvalidRequest for a name that is not allowed for files."""
    if name is None:
        return
    letters = all(letter.isalnum() or letter in " -_" for letter in name)
    if not (letters and 0 < len(name) <= 60 and name == name.strip(" -") and not _RESERVED.fullmatch(name)):
        raise InvalidRequest(
            "name", name, "up to 60 letters, digits, spaces, - and _, starting and ending with a letter, digit or _"
        )


def save_originals(root: Path, folder: str | None, originals: Sequence[Original]) -> list[SavedFile]:
    """Save pictures as `<task id or name>-<index>.<ext>` in `root`, or in `folder` inside it, each with a sidecar.

    A file with the same bytes from the same task is kept. A different file is never overwritten: the new one is called
    `<task id>-<index>-2.<ext>`, and so on. The sidecar is `<file name>.json`.

    Raises:
        InvalidRequest: the folder is not allowed.
        StorageUnavailable: the disk is full, read-only or gone. Pictures saved before that stay.
    """
    try:
        target = open_folder(root, folder)
        sweep_leftovers(target)
        return [_save(target, original) for original in originals]
    except OSError as error:
        raise StorageUnavailable(f"the output folder cannot be written ({_reason(error)})") from error


def open_folder(root: Path, folder: str | None) -> Path:
    """The folder inside the root, created if needed. The root itself may be a link, because a person chose it.

    Raises InvalidRequest if the name is not allowed or a link leads outside; OSError.
    """
    make_folder(root)
    top = here = root.resolve(strict=True)
    for part in _parts(folder):
        here = here / part
        if not os.path.lexists(here):
            here.mkdir(mode=0o700, exist_ok=True)
        here = here.resolve()
        if not here.is_relative_to(top) or not here.is_dir():
            raise InvalidRequest("folder", folder, _FOLDER_ALLOWED)
    return here


def _parts(folder: str | None) -> list[str]:
    text = unicodedata.normalize("NFC", folder or "")
    if text in ("", "."):
        return []
    parts = text.removesuffix("/").split("/")
    if len(parts) > 8 or not all(_is_allowed(part) for part in parts):
        raise InvalidRequest("folder", folder, _FOLDER_ALLOWED)
    return parts


def _is_allowed(part: str) -> bool:
    return (
        0 < len(part.encode("utf-8", "replace")) <= 120
        and all(letter.isalnum() or letter in " ._-()" for letter in part)
        and part[0] not in " .-"
        and part[-1] not in " ."
        and not _RESERVED.fullmatch(part)
    )


def _save(folder: Path, original: Original) -> SavedFile:
    if original.extension not in EXTENSIONS:
        raise ValueError(f"pictures are saved as {sorted(EXTENSIONS)}, not as {original.extension!r}")
    digest = hashlib.sha256(original.data).hexdigest()
    stem = f"{original.name or safe_name(original.task_id)}-{original.index}"
    for number in range(1, MAX_NAMESAKES):
        path = folder / f"{stem}{'' if number == 1 else f'-{number}'}.{original.extension}"
        sidecar = path.with_name(path.name + ".json")
        claimed = not os.path.lexists(sidecar) and write_new(path, original.data)
        if claimed or _is_same(path, sidecar, original):  # another process may have just saved the same bytes
            write_new(sidecar, _story(original, digest))
            return SavedFile(original.index, path, len(original.data), digest, original.media_type)
    raise OSError(errno.EEXIST, "too many files of that name")


def _is_same(path: Path, sidecar: Path, original: Original) -> bool:
    """Whether the file exists already: a plain file with these bytes that no other task's sidecar claims."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(original.data):
            return False
        if path.read_bytes() != original.data:
            return False
    except FileNotFoundError:
        return False
    try:
        story = json.loads(sidecar.read_bytes())
    except FileNotFoundError:
        return not sidecar.is_symlink()  # checked again: another process may have written it meanwhile
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(story, dict) and story.get("task_id") == original.task_id


def _story(original: Original, digest: str) -> bytes:
    story = {
        "task_id": original.task_id,
        "index": original.index,
        "kind": original.kind,
        "parent_id": original.parent_id,
        "prompt": original.prompt,
        "url_host": original.url_host,
        "media_type": original.media_type,
        "bytes": len(original.data),
        "sha256": digest,
    }
    return (json.dumps(story, indent=2) + "\n").encode()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "unknown reason"
