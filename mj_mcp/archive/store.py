"""The pictures of finished tasks: in a local folder and, if configured, in a bucket that replicas share.

Owns the order in which folder and bucket are read, and that every picture reaches the bucket. Knows nothing of links,
of the journal, or of who asks.

With a bucket, the folder is a cache of limited size. A file that the bucket has not confirmed is also kept in the
folder `unsent`, which has no size limit and survives a restart. It is removed there once the bucket has confirmed it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import structlog

from mj_mcp.archive.bucket import Bucket, BucketUnavailable
from mj_mcp.archive.folder import SHEET, Archive, What, name_of
from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import MAX_PICTURE_BYTES, SHEET_BYTES, PictureInfo, PictureWorkers, media_type_of

log = structlog.get_logger("mj_mcp.archive.store")

UPLOAD_RETRY_SECONDS = 30.0
"""Between two attempts to send. A bucket that does not answer is not read for this long."""
READS_AT_ONCE = 4
STOP_SECONDS = 3.0
"""How long shutdown continues to send. The rest is sent after the next start."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture in memory. `path` is None if there is no file of it."""

    data: bytes
    info: PictureInfo
    sha256: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A picture as it was archived. A file with the same bytes is not decoded again."""

    info: PictureInfo
    size: int
    sha256: str


class Store:
    """Originals and sheets by submission. Several processes may share the folder. Leaving the block sends the rest."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        *,
        workers: PictureWorkers,
        bucket: Bucket | None = None,
        retry_seconds: float = UPLOAD_RETRY_SECONDS,
    ) -> None:
        """Touches nothing yet. `max_bytes` limits `folder`, originals and sheets together."""
        self._retry_seconds = retry_seconds
        self._folder = Archive(folder, max_bytes)
        self._unsent = Archive(folder / "unsent", sys.maxsize)
        self._bucket = bucket
        self._workers = workers
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._more = asyncio.Event()
        self._silent_until = 0.0
        self._quiet_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._bucket is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._send_all(self._bucket)

    async def put(self, submission_id: str, what: What, data: bytes, extension: str) -> Path:
        """Write a picture to the folder and return its path; the bucket gets it later. Raises OSError."""
        try:
            return await asyncio.to_thread(self._put, submission_id, what, data, extension)
        finally:
            self._more.set()

    async def get(
        self, submission_id: str, what: What, known: Known | None = None, *, ask_bucket: bool = True
    ) -> Picture | None:
        """A picture that is `known` or decodes, or None. `ask_bucket`: read the bucket too.

        Never raises, because the caller can still use the link.
        """
        found = await self._get_from_folder(submission_id, what, known)
        if found is not None or self._bucket is None or not ask_bucket:
            return found
        return await self._get_from_bucket(self._bucket, submission_id, what, known)

    async def find(self, submission_id: str, what: What, known: Known) -> Path | None:
        """A local file that holds exactly this picture. It is checked without loading it into memory."""
        for archive in (self._folder, self._unsent):
            with suppress(OSError):
                path = await asyncio.to_thread(archive.get, submission_id, what)
                if path is not None and await asyncio.to_thread(_holds, path, known):
                    return path
        return None

    # --------------------------------------------------------------------------------------------- the folder

    def _put(self, submission_id: str, what: What, data: bytes, extension: str) -> Path:
        if self._bucket is not None:  # first: after a crash between the two, it is still sent
            self._unsent.put(submission_id, what, data, extension)
        return self._folder.put(submission_id, what, data, extension)

    async def _get_from_folder(self, submission_id: str, what: What, known: Known | None) -> Picture | None:
        for archive in (self._folder, self._unsent):
            with suppress(OSError, ImageUnavailable):  # it disappeared, or the disk damaged it
                path = await asyncio.to_thread(archive.get, submission_id, what)
                if path is not None:
                    return await self._checked(await asyncio.to_thread(path.read_bytes), known, path)
        return None

    async def _checked(self, data: bytes, known: Known | None, path: Path | None = None) -> Picture:
        """The picture of these bytes. They must decode, unless they are the known ones. Raises ImageUnavailable."""
        digest = await digest_of(data)
        info = known.info if known and known.sha256 == digest else await self._workers.inspect(data)
        return Picture(data, info, digest, path)

    # ------------------------------------------------------------------------------------------- the bucket

    async def _get_from_bucket(
        self, bucket: Bucket, submission_id: str, what: What, known: Known | None
    ) -> Picture | None:
        name = name_of(submission_id, what)
        try:
            async with self._reads:
                if time.monotonic() < self._silent_until:
                    return None
                data = await bucket.get(name, SHEET_BYTES if what == SHEET else MAX_PICTURE_BYTES)
            if data is None:
                return None
            picture = await self._checked(data, known)
        except BucketUnavailable as failure:
            self._failed("get", failure)
            return None
        except ImageUnavailable as failure:
            log.warning("bucket_object_refused", name=name, reason=failure.message)
            return None
        with suppress(OSError):  # the picture is shown even if it cannot be written
            path = await asyncio.to_thread(self._folder.put, submission_id, what, data, picture.info.extension)
            return replace(picture, path=path)
        return picture

    async def send(self) -> None:
        """Send to the bucket what an earlier process left, then everything that is put, until cancelled."""
        while self._bucket is not None:
            self._more.clear()
            if await self._send_all(self._bucket):
                await self._more.wait()
            else:
                await asyncio.sleep(self._retry_seconds)

    async def _send_all(self, bucket: Bucket) -> bool:
        """Send all unsent files; whether all were sent. Stops at the first failure: the next would take as long."""
        try:
            unsent = await asyncio.to_thread(self._unsent.files)
            for number, path in enumerate(unsent):
                with suppress(FileNotFoundError):  # another process has sent it
                    data = await asyncio.to_thread(path.read_bytes)
                    try:
                        await bucket.put(path.stem, data, media_type_of(data) or "application/octet-stream")
                    except BucketUnavailable as failure:
                        self._failed("put", failure, waiting=len(unsent) - number)
                        await asyncio.to_thread(os.utime, path)  # the next attempt starts with another file
                        return False
                    self._silent_until = 0.0
                    # If it was put again meanwhile, it is the same picture.
                    await asyncio.to_thread(path.unlink)
        except OSError as failure:
            log.warning("pictures_not_sent", reason=failure.strerror)
            return False
        return True

    def _failed(self, verb: str, failure: BucketUnavailable, **more: int) -> None:
        """Log it, but not too often. A bucket that does not answer is not read for a while."""
        now = time.monotonic()
        if not failure.refused:
            self._silent_until = now + self._retry_seconds
        if verb == "put" or now >= self._quiet_until:
            self._quiet_until = now + self._retry_seconds
            log.warning("bucket_unavailable", verb=verb, reason=failure.reason, **more)


async def digest_of(data: bytes) -> str:
    """SHA-256 in hexadecimal, computed off the event loop."""
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


def _holds(path: Path, known: Known) -> bool:
    with path.open("rb") as file:
        same_size = os.fstat(file.fileno()).st_size == known.size
        return same_size and hashlib.file_digest(file, "sha256").hexdigest() == known.sha256
