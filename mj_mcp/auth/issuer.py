"""The OAuth issuer of an organisation: fetches and caches its keys, and checks its tokens.

Owns the issuer's metadata, its key set, and JWTs. Knows nothing of MCP, of requests or of tasks. Only signatures that
the issuer alone can make are accepted, so not those made with a shared secret, and no unsigned tokens.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from pydantic import BaseModel, ValidationError

from mj_mcp.urls import authorities, is_safe, read_tunnel

log = structlog.get_logger("mj_mcp.auth.issuer")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

SKEW_SECONDS = 60
"""How far the issuer's clock may differ from ours."""

KEYS_SECONDS = 5.0
MAX_ANSWER_BYTES = 256 * 1024
_TOO_SLOW = "it answers too slowly"
MAX_SUBJECT = 255
"""In characters, by OpenID Connect Core 1.0 section 2."""

FRESH_SECONDS = 3600.0
"""Older keys are fetched again before use, so that a key the issuer withdrew is soon refused. An issuer may be
unreachable for this long without an effect."""

COOLDOWN_SECONDS = 5.0
"""The shortest time between two fetches, whatever key ids the tokens name, and whether the issuer answers or not."""

REFUSAL_REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is from another issuer",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not that of the key",
    jwt.PyJWKClientError: "its key is not one of the issuer's",
    jwt.MissingRequiredClaimError: "it lacks a claim (exp, iat, iss, aud and sub are needed)",
}
"""The reason by PyJWT's error. PyJWT's own messages may contain claims of the token."""


class NotAccepted(Exception):
    """The token is not accepted. Says why, without its contents."""


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be fetched, so tokens cannot be checked."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The checked claims of a token. `expires_at`: seconds since the epoch."""

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
    """One issuer whose tokens for one audience are accepted."""

    def __init__(
        self,
        url: str,
        audience: str,
        *,
        fresh_seconds: float = FRESH_SECONDS,
        cooldown_seconds: float = COOLDOWN_SECONDS,
        fetch_seconds: float = KEYS_SECONDS,
    ) -> None:
        """Nothing is fetched yet."""
        self.url = url
        self._audience = audience
        self._keys = _Keys(url, fresh_seconds, cooldown_seconds, fetch_seconds)
        self._fetching = asyncio.Lock()

    async def check(self, token: str) -> Grant:
        """The claims of the token, after checking that the issuer signed them.

        Raises:
            NotAccepted: the issuer did not sign them, they expired, or they are not for this server.
            IssuerUnavailable: the keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS or not isinstance(header.get("kid"), str):
                raise NotAccepted("its header names no key and algorithm that can be accepted")
            claims = jwt.decode(
                token,
                await self._key(header["kid"]),
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self.url,
                leeway=SKEW_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as failure:
            raise NotAccepted(REFUSAL_REASONS.get(type(failure), "it is malformed")) from None
        return _grant(claims)

    async def _key(self, kid: str) -> jwt.PyJWK:
        known = self._keys.match_kid(self._keys.fresh(), kid)
        if known is not None:
            return known
        async with self._fetching:  # callers that need a fetch wait here, and hold no thread meanwhile
            return await asyncio.to_thread(self._keys.get_signing_key, kid)


def _grant(claims: dict[str, Any]) -> Grant:
    if not claims["sub"].strip() or len(claims["sub"]) > MAX_SUBJECT or not claims["sub"].isprintable():
        raise NotAccepted("its subject is not a usable name")
    said = claims.get("scope", claims.get("scp", ""))
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return Grant(
        subject=claims["sub"],
        client=str(claims.get("client_id") or claims.get("azp") or ""),
        scopes=frozenset(word for word in words if isinstance(word, str)),
        expires_at=int(claims["exp"]),
    )


class _Keys(jwt.PyJWKClient):
    """PyJWT's cache of the issuer's keys. It fetches by the issuer's metadata and our rules for outgoing requests."""

    def __init__(self, issuer: str, fresh_seconds: float, cooldown_seconds: float, fetch_seconds: float) -> None:
        super().__init__(issuer, lifespan=fresh_seconds, cooldown_duration=cooldown_seconds, timeout=fetch_seconds)
        self._quiet_until = float("-inf")

    def fresh(self) -> list[jwt.PyJWK]:
        """The keys that can be used without a fetch."""
        found = self.jwk_set_cache.get() if self.jwk_set_cache else None
        return found.keys if found else []

    def fetch_data(self) -> jwt.PyJWKSet:
        """Fetches, but not again right after a failure, as PyJWT would."""
        now = time.monotonic()
        if now < self._quiet_until:
            raise IssuerUnavailable("the issuer's keys could not be fetched a moment ago")
        try:
            found = published_keys(self.uri, self.timeout)
        except IssuerUnavailable as failure:
            self._quiet_until = now + self.cooldown_duration
            log.warning("issuer_keys_unavailable", issuer=self.uri, reason=str(failure))
            raise
        self._last_successful_fetch = now
        log.info("issuer_keys_fetched", issuer=self.uri, keys=len(found.keys))
        return found


def published_keys(issuer: str, seconds: float = KEYS_SECONDS) -> jwt.PyJWKSet:
    """The issuer's current keys that can check a signature that we accept. Blocks.

    Raises:
        IssuerUnavailable: they cannot be fetched, or there are none; says why.
    """
    until = time.monotonic() + seconds
    try:
        found = jwt.PyJWKSet(_KeySet.model_validate_json(_get(_key_set_of(issuer, until), until)).keys)
    except jwt.PyJWKSetError:
        raise IssuerUnavailable("none of its keys can be used") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValidationError, OSError) as failure:
        raise IssuerUnavailable(type(failure).__name__) from None
    found.keys = [key for key in found.keys if _is_usable(key)]
    if not found.keys:
        raise IssuerUnavailable("none of its keys can be used")
    return found


def _is_usable(key: jwt.PyJWK) -> bool:
    """A set may hold keys for other uses, and for algorithms that prove nothing (a shared secret)."""
    return isinstance(key.key_id, str) and key.public_key_use in {"sig", None} and key.algorithm_name in ALGORITHMS


def _key_set_of(issuer: str, until: float) -> str:
    """The URL of the issuer's keys, from its metadata (RFC 8414 section 3, or OpenID Connect Discovery 1.0)."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    for url in (
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration",
    ):
        try:
            metadata = _Metadata.model_validate_json(_get(url, until))
        except (ValidationError, IssuerUnavailable):
            continue
        if metadata.issuer != issuer:
            raise IssuerUnavailable("its metadata names another issuer")
        return metadata.jwks_uri
    raise IssuerUnavailable("it serves no metadata that names its keys")


def _get(url: str, until: float) -> bytes:
    """The body at this address. No redirects, at most `MAX_ANSWER_BYTES`, and nothing after `until`."""
    if not is_safe(url):
        raise IssuerUnavailable("one of its addresses is neither https nor on this machine")
    left = until - time.monotonic()
    if left <= 0:
        raise IssuerUnavailable(_TOO_SLOW)
    body = b""
    # A compressed answer could expand beyond the limit at once, so compression is off.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    with (
        httpx.Client(verify=authorities(), trust_env=False, proxy=read_tunnel(url), timeout=left) as client,
        client.stream("GET", url, headers=headers, follow_redirects=False) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise IssuerUnavailable(f"it answered HTTP {answer.status_code}")
        for chunk in answer.iter_raw():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise IssuerUnavailable(f"it answered more than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > until:
                raise IssuerUnavailable(_TOO_SLOW)
    return body
