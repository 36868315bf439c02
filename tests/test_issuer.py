"""The issuer's keys: fetched seldom, never for long, and never believed when they come from elsewhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest
from authority import AUDIENCE, METADATA, Answer, Authority, forged
from conftest import LOAD_SECONDS

from mj_mcp.auth import issuer
from mj_mcp.auth.issuer import (
    FETCHES,
    FRESH_SECONDS,
    GOOD_SECONDS,
    MAX_BYTES,
    PER_SECONDS,
    Issuer,
    IssuerUnavailable,
    NotAccepted,
)
from mj_mcp.urls import is_safe

pytestmark = pytest.mark.anyio


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority() -> Iterator[Authority]:
    with Authority("one") as running:
        yield running


@pytest.fixture
async def checker(authority: Authority, clock: Clock) -> AsyncIterator[Issuer]:
    found = Issuer(authority.url, AUDIENCE, now=clock)
    yield found
    await found.aclose()


async def settled(checker: Issuer) -> None:
    """Until the fetch in the background is over."""
    fetch = checker._keys._fetch
    assert fetch is not None
    await asyncio.wait([fetch], timeout=10)


def fetches(authority: Authority) -> int:
    return authority.seen.count("/keys")


async def test_a_grant_says_who_what_and_until_when(authority: Authority, checker: Issuer) -> None:
    expires = authority.now(300)
    grant = await checker.check(authority.token(exp=expires, scope="mj:read other"))
    assert (grant.subject, grant.client, grant.expires_at) == ("anna", "an-agent", expires)
    assert grant.scopes == {"mj:read", "other"}


async def test_made_up_key_ids_cause_few_fetches(authority: Authority, checker: Issuer, clock: Clock) -> None:
    for number in range(30):
        with pytest.raises(NotAccepted):
            await checker.check(authority.token("one", kid=f"made-up-{number}"))
    assert fetches(authority) == FETCHES
    await checker.check(authority.token("one"))
    clock.time += PER_SECONDS
    with pytest.raises(NotAccepted):
        await checker.check(authority.token("one", kid="made-up"))
    assert fetches(authority) == FETCHES + 1


async def test_many_who_come_at_once_wait_for_one_fetch(authority: Authority, checker: Issuer) -> None:
    grants = await asyncio.gather(*(checker.check(authority.token("one")) for _ in range(20)))
    assert len(grants) == 20
    assert fetches(authority) == 1


async def test_a_key_that_the_issuer_gave_up_is_not_accepted_for_long(
    authority: Authority, checker: Issuer, clock: Clock
) -> None:
    token = authority.token("one")
    await checker.check(token)
    authority.published = ["two"]
    clock.time += FRESH_SECONDS
    await checker.check(token)  # not kept waiting for the fetch that it causes
    await settled(checker)
    with pytest.raises(NotAccepted, match="none of the issuer's"):
        await checker.check(token)


async def test_keys_outlast_an_issuer_that_is_away_but_not_for_ever(
    authority: Authority, checker: Issuer, clock: Clock
) -> None:
    token = authority.token("one")
    await checker.check(token)
    authority.answers[METADATA] = lambda: (503, {}, b"")
    clock.time += GOOD_SECONDS - 1
    await checker.check(token)
    await settled(checker)
    await checker.check(token)
    clock.time += 1
    with pytest.raises(IssuerUnavailable):
        await checker.check(token)
    assert authority.seen.count(METADATA) > 1


async def test_a_slow_issuer_holds_up_nobody_whose_key_is_known(
    authority: Authority, checker: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer, "FETCH_SECONDS", 60.0)
    token = authority.token("one")
    await checker.check(token)
    asked, answer = threading.Event(), threading.Event()

    def slowly() -> Answer:
        asked.set()
        answer.wait(20)
        return 503, {}, b""

    authority.answers["/keys"] = slowly
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(refused, checker, authority.token("one", kid="unknown"))
            assert await asyncio.to_thread(asked.wait, 10)
            with anyio.fail_after(LOAD_SECONDS):
                for _ in range(10):
                    await checker.check(token)
            answer.set()
    finally:
        answer.set()


async def refused(checker: Issuer, token: str) -> None:
    with pytest.raises(IssuerUnavailable):
        await checker.check(token)


def redirect(authority: Authority) -> Callable[[], Answer]:
    return lambda: (302, {"Location": f"{authority.url}/elsewhere"}, b"")


def says(value: object) -> Callable[[Authority], Callable[[], Answer]]:
    return lambda authority: lambda: (200, {}, json.dumps(value).replace("ISSUER", authority.url).encode())


BAD_METADATA: dict[str, Callable[[Authority], Callable[[], Answer]]] = {
    "names another issuer": says({"issuer": "https://login.example.com", "jwks_uri": "ISSUER/keys"}),
    "keys without encryption elsewhere": says({"issuer": "ISSUER", "jwks_uri": "http://192.0.2.1/keys"}),
    "keys in a file": says({"issuer": "ISSUER", "jwks_uri": "file:///etc/passwd"}),
    "no keys": says({"issuer": "ISSUER"}),
    "no JSON": lambda _: lambda: (200, {}, b"<html>"),
    "deep": lambda _: lambda: (200, {}, b"[" * 100_000),
    "a redirect": redirect,
    "too large": lambda _: lambda: (200, {}, b" " * (MAX_BYTES + 1)),
}


@pytest.mark.parametrize("answer", BAD_METADATA.values(), ids=BAD_METADATA.keys())
async def test_metadata_that_cannot_be_trusted_is_not(
    answer: Callable[[Authority], Callable[[], Answer]], authority: Authority, checker: Issuer
) -> None:
    authority.answers[METADATA] = answer(authority)
    await refused(checker, authority.token("one"))
    assert authority.seen[-1] == METADATA, "nothing else was asked"


async def test_an_answer_that_never_ends_is_given_up(
    authority: Authority, checker: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer, "FETCH_SECONDS", 0.2)
    answer = threading.Event()

    def never() -> Answer:
        answer.wait(20)
        return 503, {}, b""

    authority.answers["/keys"] = never
    try:
        with anyio.fail_after(10):
            await refused(checker, authority.token("one"))
    finally:
        answer.set()
    assert fetches(authority) == 1


async def test_a_shared_secret_among_the_keys_signs_nothing(authority: Authority, checker: Issuer) -> None:
    secret = {"kty": "oct", "kid": "secret", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "alg": "HS256"}
    encrypting = {**authority.jwk("one"), "kid": "encrypting", "use": "enc"}
    nonsense = [{"kty": "EC", "kid": "broken", "crv": "P-256"}, {"kty": "?", "kid": "odd"}, {}, {"kid": 7}]
    keys = [secret, encrypting, *nonsense, authority.jwk("one")]
    authority.answers["/keys"] = lambda: (200, {}, json.dumps({"keys": keys}).encode())
    await checker.check(authority.token("one"))
    token = forged({"alg": "HS256", "kid": "secret"}, authority.claims(), b"secret-secret-secret-secret-secret")
    for bad in (token, authority.token("one", kid="encrypting")):
        with pytest.raises(NotAccepted):
            await checker.check(bad)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example.com/keys", True),
        ("http://127.0.0.1:8000/keys", True),
        ("http://[::1]/keys", True),
        ("http://localhost/keys", True),
        ("http://login.example.com/keys", False),
        ("http://127.0.0.1.example.com/keys", False),
        ("http://127.0.0.1@example.com/keys", False),
        ("http://192.168.0.1/keys", False),
        ("file:///etc/passwd", False),
        ("ftp://127.0.0.1/keys", False),
        ("https:///keys", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_keys_come_encrypted_or_from_this_machine(url: str, safe: bool) -> None:
    assert is_safe(url) is safe


async def test_metadata_is_found_where_either_standard_keeps_it(clock: Clock) -> None:
    with Authority("one") as authority:
        path = "/.well-known/oauth-authorization-server/tenant"
        url = f"{authority.url}/tenant"
        authority.answers[path] = says({"issuer": url, "jwks_uri": f"{authority.url}/keys"})(authority)
        checker = Issuer(url, AUDIENCE, now=clock)
        await checker.check(authority.token("one", iss=url))
        assert authority.seen == [path, "/keys"]
