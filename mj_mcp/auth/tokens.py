"""The bearer tokens of `mj-mcp serve --http`: create, list, revoke and find.

Owns the token file. It holds a hash, a name and scopes per token, and never a token. Knows nothing of HTTP, of MCP or
of the command line.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mj_mcp.files import make_folder, write_whole

log = structlog.get_logger("mj_mcp.auth.tokens")

READ, SPEND = "mj:read", "mj:spend"
SCOPES = (READ, SPEND)
"""What a login allows: reading its own tasks, and submitting new ones."""

TOKEN_PREFIX = "mjt_"  # noqa: S105 - not a secret
"""The prefix by which a secret scanner, or a person, recognises a token."""

SECRET_BYTES = 32
"""This many random bytes cannot be guessed, so a plain hash is enough."""

MAX_FILE_BYTES = 1 << 20
WRITER_SECONDS = 5.0
"""How long a writer waits for another writer."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class TokensError(Exception):
    """One line for a person: the file, a name or a scope is not valid."""


class Token(BaseModel):
    """One entry of the file. `created_at`: seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Literal["mj:read", "mj:spend"], ...], Field(min_length=1)]
    created_at: float


class _Contents(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    tokens: tuple[Token, ...] = ()


class TokenFile:
    """The file as a server uses it: read again when it changes, and refused when it is broken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, ...] | None = None
        self._read: tuple[Token, ...] | TokensError = ()

    def is_there(self) -> bool:
        """Whether tokens are used here, even if the last one was revoked."""
        self._refresh()
        return self._signature is not None

    def find(self, token: str) -> Token | None:
        """The entry of this token; None if there is none.

        Raises:
            TokensError: the file cannot be used, so no token is known.
        """
        self._refresh()
        if isinstance(self._read, TokensError):
            raise self._read
        digest = _digest(token)
        found = None
        for entry in self._read:  # every hash is compared, so that the time taken reveals nothing
            if hmac.compare_digest(entry.sha256, digest):
                found = entry
        return found

    def _refresh(self) -> None:
        signature = _signature_at(self._path)
        if signature == self._signature and signature is not None:
            return
        before, self._signature = self._signature, signature
        if signature is None and before is None:
            return
        try:
            self._read = read_tokens(self._path)
        except TokensError as failure:
            self._read = failure
            log.error("token_file_unusable", reason=str(failure))  # noqa: TRY400 - the reason is the whole story
        else:
            log.info("token_file_read", tokens=len(self._read))


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Every token of the file, in order of creation; none if there is no file.

    Raises:
        TokensError: the file cannot be read, is not a token file, or may be written by other users.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ()
    except OSError as failure:
        raise TokensError(f"{path} cannot be read: {failure.strerror or failure}") from None
    if os.name == "posix" and mode & 0o022:
        raise TokensError(f"{path} may be written by other users: its mode must be 0600")
    if len(text) > MAX_FILE_BYTES:
        raise TokensError(f"{path} is not a token file: it has more than {MAX_FILE_BYTES} bytes")
    try:
        contents = _Contents.model_validate_json(text)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TokensError(f"{path} is not a token file: {where + ': ' if where else ''}{first['msg']}") from None
    if len({token.name for token in contents.tokens}) < len(contents.tokens):
        raise TokensError(f"{path} is not a token file: it has the same name twice")
    return contents.tokens


def add_token(path: Path, name: str, scopes: tuple[str, ...], *, now: float) -> str:
    """Create a token and return it. It is stored nowhere, so it can be shown only now.

    Raises:
        TokensError: the name is taken or unusable, or the file cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise TokensError(f"{name!r} is not a name for a token: up to 64 letters, digits and . _ @ -, no space")
    token = TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    with _changing(path) as tokens:
        if any(entry.name == name for entry in tokens):
            raise TokensError(f"there is a token named {name}: revoke it first to make a new one")
        wanted = tuple(scope for scope in SCOPES if scope in scopes)
        tokens.append(
            Token.model_validate({"name": name, "sha256": _digest(token), "scopes": wanted, "created_at": now})
        )
    return token


def revoke_token(path: Path, name: str) -> int:
    """Remove a token. Returns how many are left.

    Raises:
        TokensError: there is none of that name, or the file cannot be used.
    """
    with _changing(path) as tokens:
        left = [entry for entry in tokens if entry.name != name]
        if len(left) == len(tokens):
            raise TokensError(f"there is no token named {name}")
        tokens[:] = left
    return len(left)


@contextmanager
def _changing(path: Path) -> Iterator[list[Token]]:
    """The tokens, to be changed in place. They are written if the block succeeds."""
    try:
        make_folder(path.parent)
        with _only_writer(path.with_name(f"{path.name}.lock")):
            tokens = list(read_tokens(path))
            yield tokens
            write_whole(path, _Contents(tokens=tuple(tokens)).model_dump_json(indent=2).encode() + b"\n")
    except OSError as failure:
        raise TokensError(f"{path} cannot be written: {failure.strerror or failure}") from None


@contextmanager
def _only_writer(lock: Path) -> Iterator[None]:
    until = time.monotonic() + WRITER_SECONDS
    while True:
        try:
            lock.touch(mode=0o600, exist_ok=False)
            break
        except FileExistsError:
            if time.monotonic() > until:
                raise TokensError(f"{lock} shows that another command is writing; if none is, delete it") from None
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _signature_at(path: Path) -> tuple[int, ...] | None:
    """Changes when the file does; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as failure:
        return (failure.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
