"""Picture links over HTTP: short-lived, signed, and valid for one picture of one owner's task.

Owns the signature and its route. A caller over HTTP is on another machine, where our paths do not exist, and the
proxy's own links expire. A link needs no login, since a browser that opens it has none: the link is the permission.
Does not know how a picture is fetched or kept.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import jwt
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from mj_mcp.errors import MjError, StorageUnavailable
from mj_mcp.files import write_new
from mj_mcp.server.identity import caller
from mj_mcp.settings import MIN_SECRET_CHARACTERS, Settings, SettingsError
from mj_mcp.studio import Call, Studio
from mj_mcp.tasks import Image, Task

LIFETIME_SECONDS = 3600
"""How long a link is valid. Every `get_task` gives a new one."""

FILE_RETRY_SECONDS = 10
"""`Retry-After` while the journal is unavailable: about the time of a database restart."""

_ALGORITHM, _PURPOSE = "HS256", "mj-mcp/files"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    "Cache-Control": f"private, max-age={LIFETIME_SECONDS}",
    "Referrer-Policy": "no-referrer",
}


class Links:
    """Creates the links of this server and answers them."""

    def __init__(self, secret: str, studio: Studio, public_url: str) -> None:
        """Servers with the same `secret` answer each other's links.

        Without a `public_url`, a link uses the address of the caller's request.
        """
        self._secret = secret
        self._public_url = public_url
        self._studio = studio
        self.route = Route("/files/{signed}", self._serve)

    def link(self, task: Task, image: Image) -> str:
        """A URL for this picture, at the address that the caller used."""
        good_for = {
            "aud": _PURPOSE,
            "exp": int(time.time()) + LIFETIME_SECONDS,
            "sub": task.owner,
            "task": task.submission_id,
            "index": image.index,
        }
        here = f"{self._public_url}/" if self._public_url else caller().origin
        return f"{here}files/{jwt.encode(good_for, self._secret, _ALGORITHM)}"

    async def _serve(self, request: Request) -> Response:
        try:
            good_for = jwt.decode(
                request.path_params["signed"],
                self._secret,
                [_ALGORITHM],
                audience=_PURPOSE,
                options={"require": ["exp", "sub", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            return _plain(410, "This link has expired; get_task gives a new one.")
        except jwt.InvalidTokenError:
            return _plain(404, "There is nothing here.")
        try:
            return await self._picture(request, good_for)
        except StorageUnavailable:
            away = _plain(503, "The journal cannot be read now.")
            away.headers["Retry-After"] = str(FILE_RETRY_SECONDS)
            return away
        except MjError as failure:
            return _plain(404, failure.message)

    async def _picture(self, request: Request, good_for: dict[str, Any]) -> Response:
        """The picture, or 304 if the browser has it. HEAD gets no body."""
        file = await self._studio.file(Call(owner=good_for["sub"]), good_for["task"], good_for["index"])
        headers = {**HEADERS, "ETag": f'"{file.sha256}"'}
        if file.sha256 in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if isinstance(file.content, Path):
            return FileResponse(file.content, media_type=file.media_type, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)


def _plain(status: int, line: str) -> Response:
    return PlainTextResponse(line + "\n", status_code=status, headers={**HEADERS, "Cache-Control": "no-store"})


def signing_secret(settings: Settings) -> str:
    """The secret that signs: the setting, or one of this data folder, created at the first start.

    Raises:
        SettingsError: replicas share the journal, so they need a shared secret from a person; or the file is damaged.
        OSError: the file cannot be written or read.
    """
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    if settings.database_url.get_secret_value():
        raise SettingsError(
            "MJ_SECRET_KEY is not set: servers that share a database must sign links with the same secret, of at least"
            f" {MIN_SECRET_CHARACTERS} characters"
        )
    return _own_secret(settings.data_dir / "secret.key")


def _own_secret(path: Path) -> str:
    write_new(path, secrets.token_urlsafe(48).encode())  # of several servers that start together, one writes it
    secret = path.read_bytes().strip()
    if len(secret) < MIN_SECRET_CHARACTERS or not (secret.isascii() and secret.decode().isprintable()):
        raise SettingsError(
            f"{path} has no secret of {MIN_SECRET_CHARACTERS} or more printable characters: restore it, or delete it."
            " A new secret ends the links that were given out"
        )
    return secret.decode()
