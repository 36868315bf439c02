"""The issuer of an organisation's logins: its keys, fetched and kept, and its tokens, checked.

Owns OAuth's outside: the issuer's metadata, its key set, and JWTs. Knows nothing of MCP, of requests or of tasks. Only
signatures that the issuer alone can make are accepted: what is signed with a shared secret, or not at all, is not.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from pydantic import BaseModel, ValidationError

from mj_mcp.urls import authorities, is_safe

log = structlog.get_logger("mj_mcp.auth.issuer")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

SKEW_SECONDS = 60
"""How far the issuer's clock may be from ours."""

FETCH_SECONDS = 5.0
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
MAX_SUBJECT = 255
"""Characters, by OpenID Connect Core 1.0 section 2."""

FRESH_SECONDS = 600.0
"""Older keys are fetched again, so that one that the issuer gave up is not accepted for long."""

GOOD_SECONDS = 6 * 3600.0
"""How long keys are good while the issuer cannot be reached."""

FETCHES, PER_SECONDS = 5, 60.0
"""At most so many fetches in so many seconds, whatever key ids strangers make up."""

REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not that of the key",
    jwt.MissingRequiredClaimError: "it lacks a claim (exp, iat, iss, aud and sub are needed)",
}
"""What is said of a token, by what PyJWT raises: its own words may carry what the token says."""


class NotAccepted(Exception):
    """The token is not good; says why, without what it holds."""


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be had, so nobody can tell."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token that is good says. `expires_at`: seconds since the epoch."""

    subject: str
    client: str
    scopes: frozenset[str]
    expires_at: int


class _Metadata(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    keys: list[dict[str, Any]]


class Issuer:
    """One issuer, whose tokens for one audience are accepted."""

    def __init__(self, url: str, audience: str, *, now: Callable[[], float] = time.monotonic) -> None:
        """`now` gives seconds on a clock that never goes back."""
        self.url = url
        self._audience = audience
        self._keys = _Keys(url, now)

    async def check(self, token: str) -> Grant:
        """What the token says, once it is sure that the issuer says it.

        Raises:
            NotAccepted: it does not, or no longer, or not to us.
            IssuerUnavailable: the keys cannot be had.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS or not isinstance(header.get("kid"), str):
                raise NotAccepted("its header names no key and algorithm that can be accepted")
            key = await self._keys.find(header["kid"])
            if key is None:
                raise NotAccepted("its key is none of the issuer's")
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self.url,
                leeway=SKEW_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as failure:
            raise NotAccepted(REASONS.get(type(failure), "it is malformed")) from None
        return _grant(claims)

    async def aclose(self) -> None:
        """Stop fetching."""
        await self._keys.aclose()


def _grant(claims: dict[str, Any]) -> Grant:
    if not claims["sub"].strip() or len(claims["sub"]) > MAX_SUBJECT or not claims["sub"].isprintable():
        raise NotAccepted("its subject is no name")
    said = claims.get("scope", claims.get("scp", ""))
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return Grant(
        subject=claims["sub"],
        client=str(claims.get("client_id") or claims.get("azp") or ""),
        scopes=frozenset(word for word in words if isinstance(word, str)),
        expires_at=int(claims["exp"]),
    )


class _Keys:
    """The issuer's keys by their id; one fetch at a time, off the way of those whose key is known."""

    def __init__(self, issuer: str, now: Callable[[], float]) -> None:
        self._issuer = issuer
        self._now = now
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._failed = False
        self._tries: deque[float] = deque(maxlen=FETCHES)
        self._fetch: asyncio.Task[None] | None = None
        self._tls = authorities()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        age = self._now() - self._fetched_at
        key = self._keys.get(kid) if age < GOOD_SECONDS else None
        if key is not None and age < FRESH_SECONDS:
            return key
        fetch = self._begin_fetch()
        if key is not None:
            return key
        if fetch is not None:
            await asyncio.shield(fetch)  # others wait for the same one
        if self._failed:
            raise IssuerUnavailable("the issuer's keys cannot be fetched")
        return self._keys.get(kid)

    def _begin_fetch(self) -> asyncio.Task[None] | None:
        """The fetch that runs; a new one, unless there were too many."""
        if self._fetch is not None and not self._fetch.done():
            return self._fetch
        now = self._now()
        if len(self._tries) == FETCHES and now - self._tries[0] < PER_SECONDS:
            return None
        self._tries.append(now)
        self._fetch = asyncio.create_task(self._fetch_keys())
        return self._fetch

    async def _fetch_keys(self) -> None:
        try:
            self._keys = await published_keys(self._issuer, self._tls)
        except IssuerUnavailable as failure:
            self._failed = True
            log.warning("issuer_keys_unavailable", issuer=self._issuer, reason=str(failure))
            return
        self._failed = False
        self._fetched_at = self._now()
        log.info("issuer_keys_fetched", issuer=self._issuer, keys=len(self._keys))

    async def aclose(self) -> None:
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.gather(self._fetch, return_exceptions=True)


async def published_keys(issuer: str, tls: ssl.SSLContext | None = None) -> dict[str, jwt.PyJWK]:
    """The keys that the issuer publishes now and that can check a signature that we accept, by their ids.

    `tls` is kept by who asks again. It knows an organisation's own authority by SSL_CERT_FILE.

    Raises:
        IssuerUnavailable: they cannot be had; says why.
    """
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx.AsyncClient(verify=tls or authorities(), trust_env=False, timeout=FETCH_SECONDS) as client,
        ):
            where = await _key_set_of(client, issuer)
            found = _KeySet.model_validate_json(await _get(client, where))
    except (httpx.HTTPError, httpx.InvalidURL, ValidationError, TimeoutError) as failure:
        raise IssuerUnavailable(type(failure).__name__) from None
    return dict(_usable(found.keys[:MAX_KEYS]))


async def _key_set_of(client: httpx.AsyncClient, issuer: str) -> str:
    """Where the issuer keeps its keys, by its own metadata (RFC 8414 section 3, or OpenID Connect Discovery 1.0)."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    for url in (
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration",
    ):
        try:
            metadata = _Metadata.model_validate_json(await _get(client, url))
        except (ValidationError, IssuerUnavailable):
            continue
        if metadata.issuer != issuer:
            raise IssuerUnavailable("its metadata names another issuer")
        return metadata.jwks_uri
    raise IssuerUnavailable("it serves no metadata that names its keys")


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """The body at this address: no redirects, no more than `MAX_BYTES`."""
    if not is_safe(url):
        raise IssuerUnavailable("an address of it is neither https nor on this machine")
    body = b""
    # A compressed answer could unfold past the cap in one piece, so nothing is unpacked.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=headers, follow_redirects=False) as answer:
        if answer.status_code != httpx.codes.OK:
            raise IssuerUnavailable(f"it answered HTTP {answer.status_code}")
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise IssuerUnavailable(f"it answered more than {MAX_BYTES} bytes")
    return body


def _usable(keys: list[dict[str, Any]]) -> list[tuple[str, jwt.PyJWK]]:
    """The keys that can check a signature that we accept; a set may hold others, for other uses."""
    found = []
    for data in keys:
        kid = data.get("kid")
        if not isinstance(kid, str) or data.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(data)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if key.algorithm_name in ALGORITHMS:
            found.append((kid, key))
    return found
