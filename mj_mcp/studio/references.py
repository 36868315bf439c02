"""The pictures that a request starts from: files, which are uploaded, and pictures of ours, sent as links or uploaded.

Owns which files may be read, and what is sent for each picture. Knows nothing of what the proxy takes: a proxy that
takes no uploads refuses them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mj_mcp.errors import ImageUnavailable, InvalidRequest
from mj_mcp.gallery import Gallery
from mj_mcp.gallery.originals import image_of
from mj_mcp.pictures import part_of
from mj_mcp.prompts import Compiled, Options, Reference, files, references
from mj_mcp.prompts.options import reference
from mj_mcp.tasks import LOCAL_OWNER, Task

MAX_UPLOADS = 5
"""The most uploads of one request."""
MAX_UPLOAD_BYTES = 10 * 1024**2
"""The size limit of one upload."""
MAX_TOTAL_BYTES = 20 * 1024**2
"""The size limit of all uploads of a request: relays take bodies of about 30 MB, and base64 adds a third."""

KEY_CHARACTERS = 16
"""Of the digest that names an upload in a row: enough to tell pictures apart, and rows stay short."""

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""A FIFO must not block, and a link that appears after the check must not be followed."""

_USABLE = f"a PNG, JPEG, WebP or GIF file that is whole, can be read, and has at most {MAX_UPLOAD_BYTES // 1024**2} MiB"
_ANY_FILE = "a file that exists, or a picture of a task (`TASK_ID#1`)"
_TOGETHER = f"at most {MAX_UPLOADS} pictures to upload, with at most {MAX_TOTAL_BYTES // 1024**2} MiB together"


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders whose files may be used: the output folder, and the operator's input folder if there is one."""

    output: Path
    shared: Path | None = None

    def of(self, owner: str) -> tuple[Path, ...]:
        """The folders that this caller may use.

        The input folder is shared with everybody by the operator's decision. The output folder has what all callers
        saved, so a caller who logs in may not use it.
        """
        shared = () if self.shared is None else (self.shared,)
        return (*shared, self.output) if owner == LOCAL_OWNER else shared

    def words(self, owner: str) -> str:
        """What `image_urls` may be. A caller who logs in is not told the paths of this machine."""
        names = " or ".join(map(str, self.of(owner))) if owner == LOCAL_OWNER else "this server's input folder"
        file = f", or the name of a file in {names}" if self.of(owner) else ""
        return f"an http:// or https:// URL, a picture of a task (`TASK_ID#1`){file}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture as it is sent: `key` is its name in the row, `url` a data URL, `size` its bytes."""

    key: str
    url: str
    size: int


class Checked(Protocol):
    """`compile_prompt` for one prompt and its options."""

    def __call__(self, *, links: dict[str, str] = ..., uploads: dict[str, str] = ...) -> Compiled:
        """See `compile_prompt`."""
        ...


class References:
    """Finds the pictures that requests name."""

    def __init__(self, gallery: Gallery, folders: Folders, find: Callable[[str, str], Awaitable[Task]]) -> None:
        """`find` returns an owner's task by its id, as it is now; it raises `TaskNotFound`."""
        self._gallery = gallery
        self._folders = folders
        self._find = find

    async def compile(self, owner: str, options: Options, check: Checked) -> tuple[Compiled, tuple[str, ...]]:
        """The prompt with its references, and the data URLs to send beside it.

        Raises:
            InvalidRequest: lists all problems of the prompt and of its files.
            NotReady, TaskNotFound, ImageUnavailable: one of our pictures cannot be used.
        """
        problems: list[str] = []
        try:
            compiled = check()
        except InvalidRequest as failure:
            problems += failure.problems
        uploads: dict[str, Upload] = {}
        names, folders, allowed = files(options), self._folders.of(owner), self._folders.words(owner)
        for name in names if len(names) <= MAX_UPLOADS else ():
            try:
                uploads[name] = await self._file("image_urls", name, folders, allowed)
            except InvalidRequest as failure:
                problems += failure.problems
        if len(names) > MAX_UPLOADS:
            problems += InvalidRequest("image_urls", len(names), _TOGETHER).problems
        if problems:
            raise InvalidRequest.because(*problems)
        links: dict[str, str] = {}
        for one in references(options):
            found = await self._picture(owner, one, uploadable=one.text in options.image_urls)
            if isinstance(found, Upload):
                uploads[one.text] = found
            else:
                links[one.text] = found
        sent = [uploads[item] for item in options.image_urls if item in uploads]
        _check_together("image_urls", sent)
        if links or uploads:
            compiled = check(links=links, uploads={name: upload.key for name, upload in uploads.items()})
        return compiled, tuple(upload.url for upload in sent)

    async def uploads(self, pictures: Sequence[str]) -> list[Upload]:
        """The pictures that a person at this machine names: any file, or `ID#N`.

        Raises:
            InvalidRequest, NotReady, TaskNotFound, ImageUnavailable.
        """
        found = []
        for name in pictures[: MAX_UPLOADS + 1]:
            ours = reference(name)
            if ours is None:
                found.append(await self._file("picture", name, None, _ANY_FILE))
            else:
                found.append(await self._upload(await self._find(LOCAL_OWNER, ours.handle), ours))
        _check_together("picture", found)
        return found

    async def _picture(self, owner: str, ours: Reference, *, uploadable: bool) -> str | Upload:
        """The proxy's own link to one of our pictures, which works now; or an upload, if it has no link of its own."""
        task = await self._find(owner, ours.handle)
        image = image_of(task, ours.index)
        if uploadable and part_of(image.url)[1] is not None:
            return await self._upload(task, ours)
        try:
            return await self._gallery.living_link(task, ours.index)
        except ImageUnavailable:
            if uploadable and image.fallback_url is not None:
                return await self._upload(task, ours)
            raise

    async def _upload(self, task: Task, ours: Reference) -> Upload:
        picture = await self._gallery.original(task, ours.index)
        if len(picture.data) > MAX_UPLOAD_BYTES:
            raise ImageUnavailable(
                f"picture {ours.key} is larger than {MAX_UPLOAD_BYTES // 1024**2} MiB: too large to upload"
            )
        return await asyncio.to_thread(_as_upload, ours.key, picture.data, picture.info.media_type)

    async def _file(self, argument: str, name: str, folders: Sequence[Path] | None, allowed: str) -> Upload:
        """A file of this machine; with `folders`, in one of them. `allowed` says what the argument may be."""
        path = await asyncio.to_thread(_resolved, name, folders)
        if path is None:
            raise InvalidRequest(argument, name, allowed)
        try:
            data = await asyncio.to_thread(_read, path)
            info = await self._gallery.inspect(data)
        except (OSError, ImageUnavailable):
            raise InvalidRequest(argument, name, _USABLE) from None
        key = f"upload:{hashlib.sha256(data).hexdigest()[:KEY_CHARACTERS]}"
        return await asyncio.to_thread(_as_upload, key, data, info.media_type)


def _check_together(argument: str, uploads: Sequence[Upload]) -> None:
    size = sum(upload.size for upload in uploads)
    if len(uploads) > MAX_UPLOADS or size > MAX_TOTAL_BYTES:
        raise InvalidRequest(argument, f"{len(uploads)} with {size / 1024**2:.1f} MiB", _TOGETHER)


def _as_upload(key: str, data: bytes, media_type: str) -> Upload:
    return Upload(key, f"data:{media_type};base64,{base64.b64encode(data).decode()}", len(data))


def _resolved(name: str, folders: Sequence[Path] | None) -> Path | None:
    """The existing file of this name, without symbolic links; None if there is none.

    With `folders`: an absolute name, or one relative to a folder. A file outside them is as one that does not exist.
    """
    for folder in (Path(),) if folders is None else folders:
        try:
            top = folder.resolve(strict=True)
            path = (top / Path(name).expanduser()).resolve(strict=True)  # an absolute name replaces the folder
        except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
            continue
        if folders is None or path.is_relative_to(top):
            return path
    return None


def _read(path: Path) -> bytes:
    """The bytes of a regular file within the limit. Raises OSError for any other."""
    _check_regular(path.stat())  # opening a device may have effects of its own
    with os.fdopen(os.open(path, _OPEN_FLAGS), "rb") as file:
        _check_regular(os.fstat(file.fileno()))
        data = file.read(MAX_UPLOAD_BYTES + 1)
    if len(data) > MAX_UPLOAD_BYTES:
        raise OSError("the file grew")
    return data


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_UPLOAD_BYTES:
        raise OSError("not a regular file, or too large")
