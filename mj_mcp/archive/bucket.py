"""An S3-compatible bucket that holds the pictures of all replicas.

Owns the requests to it, their timeouts, and what a person can do about each refusal. The library itself reads
endpoint, region and credentials, from the standard AWS variables or the machine's role. Does not know what the bytes
mean, which of them are still to be sent, or who asks.

The library's messages hold whole answers of the server. Only the error code in them is ever shown.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from mj_mcp.errors import ImageUnavailable, StorageUnavailable

if TYPE_CHECKING:
    from obstore.store import S3Store

BUCKET_READ_SECONDS: Final = 5.0
"""Timeout of a read, including retries. A call waits for it and must have time left to fetch the link."""
BUCKET_WRITE_SECONDS: Final = 60.0
"""Timeout of a write. No call waits for it."""
BUCKET_CONNECT_SECONDS: Final = 2.0
RETRIES: Final = 2

RIGHTS: Final = "s3:GetObject, s3:PutObject and s3:DeleteObject on the objects, and s3:ListBucket on the bucket"

_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_STATUS = re.compile(r"status code: ([1-5][0-9]{2})\b")
_ADVICE: Final = {
    "NoSuchBucket": "there is no such bucket; check MJ_ARCHIVE_URL, AWS_REGION and AWS_ENDPOINT_URL",
    "InvalidAccessKeyId": "it does not know the key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session's token has expired; renew AWS_SESSION_TOKEN",
    "InvalidToken": "it does not know the session's token; check AWS_SESSION_TOKEN",
    "AccessDenied": f"the key lacks a right; it needs {RIGHTS}",
    "AuthorizationHeaderMalformed": "the bucket is in another region; check AWS_REGION",
    "PermanentRedirect": "the bucket is in another region; check AWS_REGION and AWS_ENDPOINT_URL",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
}
_CHECK: Final = "check AWS_ENDPOINT_URL, the credentials and the network"


class BucketUnavailable(Exception):
    """A request to the bucket failed; says why. `refused`: the bucket answered, so it is not silent."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused


class Bucket:
    """One bucket, below one prefix. Every method raises BucketUnavailable, after a limited time."""

    def __init__(
        self, store: S3Store, errors: tuple[type[Exception], ...], read_seconds: float, write_seconds: float
    ) -> None:
        """No request is made yet. `errors` are what the library raises."""
        self._store = store
        self._errors = errors
        self._read_seconds, self._write_seconds = read_seconds, write_seconds

    async def get(self, name: str, max_bytes: int) -> bytes | None:
        """The bytes of an object; None if there is no object of that name.

        Raises ImageUnavailable if there are more than `max_bytes`: we never write such an object.
        """
        async with self._asked(self._read_seconds):
            try:
                found = await self._store.get_async(name)
            except FileNotFoundError as failure:
                if "NoSuchBucket" in _CODE.findall(str(failure)):
                    raise
                return None
            data = bytearray()
            async for chunk in found.stream(min_chunk_size=2**18):
                data += memoryview(chunk)
                if len(data) > max_bytes:
                    raise ImageUnavailable(f"the object in the bucket has more than {max_bytes} bytes")
            return bytes(data)

    async def put(self, name: str, data: bytes, media_type: str) -> None:
        """Write an object, replacing any that was there. When this returns, the bucket has all of it."""
        async with self._asked(self._write_seconds):
            await self._store.put_async(name, data, attributes={"Content-Type": media_type}, use_multipart=False)

    async def delete(self, name: str) -> None:
        """Remove an object."""
        async with self._asked(self._read_seconds):
            await self._store.delete_async(name)

    @asynccontextmanager
    async def _asked(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise BucketUnavailable(f"it did not answer within {seconds:g} s; {_CHECK}") from None
        except self._errors as failure:
            # The library's error is not the cause: a traceback would show the server's whole answer.
            raise _translated(str(failure)) from None


def _translated(said: str) -> BucketUnavailable:
    if code := _CODE.search(said):
        return BucketUnavailable(f"{_ADVICE.get(code[1], 'it refuses')} ({code[1]})", refused=True)
    if status := _STATUS.search(said):
        return BucketUnavailable(f"it answers HTTP {status[1]}; check AWS_ENDPOINT_URL", refused=True)
    return BucketUnavailable(f"it does not answer; {_CHECK}")


def open_bucket(
    url: str, *, over_http: bool, read_seconds: float = BUCKET_READ_SECONDS, write_seconds: float = BUCKET_WRITE_SECONDS
) -> Bucket:
    """The bucket at `s3://bucket/prefix`. No request is made before the first use.

    `over_http` allows plain http, which the operator's own endpoint may need.

    Raises:
        StorageUnavailable: the library is not installed, or cannot use the AWS variables.
    """
    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - only those who have a bucket pay for it
        from obstore.store import S3Store  # noqa: PLC0415 - as above
    except ImportError as failure:
        raise StorageUnavailable(
            "MJ_ARCHIVE_URL names a bucket, which needs the extra [s3]: pip install 'mj-mcp[s3]'"
        ) from failure
    parts = urlsplit(url)
    errors = (BaseError, OSError, ValueError)
    try:
        store = S3Store(
            parts.netloc,
            prefix=unquote(parts.path).strip("/") or None,
            client_options={
                "allow_http": over_http,
                "connect_timeout": timedelta(seconds=BUCKET_CONNECT_SECONDS),
                "timeout": timedelta(seconds=write_seconds),
                "user_agent": "mj-mcp",
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=write_seconds)},
            disable_bulk_delete=True,  # a separate kind of request, which not every S3-compatible server knows
        )
    except errors:  # its message may hold the values of the variables
        raise StorageUnavailable(
            "the bucket of MJ_ARCHIVE_URL cannot be used with the AWS_... variables that are set"
        ) from None
    return Bucket(store, errors, read_seconds, write_seconds)
