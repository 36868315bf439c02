"""The issuer's keys: fetched seldom, never for long, and never believed when they come from elsewhere."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
import trustme
from authority import AUDIENCE, METADATA, Answer, Authority, forged
from conftest import LOAD_SECONDS
from connections import listening
from tunnels import HOST, Tunnel

from mj_mcp.auth.issuer import MAX_ANSWER_BYTES, Issuer, IssuerUnavailable, NotAccepted
from mj_mcp.urls import authorities, is_safe

pytestmark = pytest.mark.anyio


AT_ONCE = 1e-9
"""So many seconds are over before anybody can ask again."""


@pytest.fixture
def authority() -> Iterator[Authority]:
    with Authority("one") as running:
        yield running


@pytest.fixture
def checker(authority: Authority) -> Issuer:
    return Issuer(authority.url, AUDIENCE)


def fetches(authority: Authority) -> int:
    return authority.seen.count("/keys")


async def test_a_grant_says_who_what_and_until_when(authority: Authority, checker: Issuer) -> None:
    expires = authority.now(300)
    grant = await checker.check(authority.token(exp=expires, scope="mj:read other"))
    assert (grant.subject, grant.client, grant.expires_at) == ("anna", "an-agent", expires)
    assert grant.scopes == {"mj:read", "other"}


@pytest.mark.parametrize(("cooldown", "expected"), [(60.0, 1), (0.0, 6)])
async def test_made_up_key_ids_cause_a_fetch_once_in_a_while(
    cooldown: float, expected: int, authority: Authority
) -> None:
    checker = Issuer(authority.url, AUDIENCE, cooldown_seconds=cooldown)
    await checker.check(authority.token("one"))
    for number in range(5):
        with pytest.raises(NotAccepted, match="not one of the issuer's"):
            await checker.check(authority.token("one", kid=f"made-up-{number}"))
    assert fetches(authority) == expected


async def test_a_new_key_of_the_issuer_is_found(authority: Authority) -> None:
    checker = Issuer(authority.url, AUDIENCE, cooldown_seconds=0)
    await checker.check(authority.token("one"))
    authority.published = ["two"]
    await checker.check(authority.token("two"))
    with pytest.raises(NotAccepted, match="not one of the issuer's"):
        await checker.check(authority.token("one"))


async def test_many_who_come_at_once_wait_for_one_fetch(authority: Authority, checker: Issuer) -> None:
    grants = await asyncio.gather(*(checker.check(authority.token("one")) for _ in range(20)))
    assert len(grants) == 20
    assert fetches(authority) == 1


async def test_a_key_that_the_issuer_gave_up_is_not_accepted_for_long(authority: Authority) -> None:
    checker = Issuer(authority.url, AUDIENCE, fresh_seconds=AT_ONCE)
    await checker.check(authority.token("one"))
    authority.published = ["two"]
    with pytest.raises(NotAccepted, match="not one of the issuer's"):
        await checker.check(authority.token("one"))


@pytest.mark.parametrize("fresh", [60.0, AT_ONCE])
async def test_keys_outlast_an_issuer_that_is_away_but_not_for_ever(fresh: float, authority: Authority) -> None:
    checker = Issuer(authority.url, AUDIENCE, fresh_seconds=fresh)
    await checker.check(authority.token("one"))
    authority.answers[METADATA] = lambda: (503, {}, b"")
    if fresh == AT_ONCE:
        await refused(checker, authority.token("one"))
    else:
        await checker.check(authority.token("one"))


@pytest.mark.parametrize(("cooldown", "expected"), [(60.0, 1), (0.0, 5)])
async def test_an_issuer_that_is_away_is_not_asked_by_everybody(
    cooldown: float, expected: int, authority: Authority
) -> None:
    checker = Issuer(authority.url, AUDIENCE, cooldown_seconds=cooldown)
    authority.answers[METADATA] = lambda: (503, {}, b"")
    for _ in range(5):
        await refused(checker, authority.token("one"))
    assert authority.seen.count(METADATA) == expected
    del authority.answers[METADATA]
    if cooldown == 0:
        await checker.check(authority.token("one"))


async def test_a_slow_issuer_holds_up_nobody_whose_key_is_known(authority: Authority) -> None:
    checker = Issuer(authority.url, AUDIENCE, cooldown_seconds=0)
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
    "too large": lambda _: lambda: (200, {}, b" " * (MAX_ANSWER_BYTES + 1)),
}


@pytest.mark.parametrize("answer", BAD_METADATA.values(), ids=BAD_METADATA.keys())
async def test_metadata_that_cannot_be_trusted_is_not(
    answer: Callable[[Authority], Callable[[], Answer]], authority: Authority, checker: Issuer
) -> None:
    authority.answers[METADATA] = answer(authority)
    await refused(checker, authority.token("one"))
    assert authority.seen[-1] == METADATA, "nothing else was asked"


async def test_an_answer_that_never_ends_is_given_up(authority: Authority) -> None:
    checker = Issuer(authority.url, AUDIENCE, fetch_seconds=0.2)
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


async def test_an_answer_that_comes_byte_by_byte_is_given_up() -> None:
    """Each byte comes in time, and all of them never do. When the time is up, no other address is asked."""
    ended, asked = asyncio.Event(), []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)  # at once: who is in a hurry hangs up before it asks
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)
        ended.set()

    async with listening(drip) as port:
        checker = Issuer(f"http://127.0.0.1:{port}", AUDIENCE, fetch_seconds=0.2)
        with anyio.fail_after(30):
            await refused(checker, forged({"alg": "RS256", "kid": "rsa"}, {}, b"x"))
            await ended.wait()
    assert len(asked) == 1


async def test_keys_come_the_way_that_everything_else_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """https through HTTPS_PROXY, trusting SSL_CERT_FILE."""
    ca, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST).configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    authorities.cache_clear()
    url = f"https://{HOST}"
    with Authority("one", tls=context) as authority:
        authority.answers[METADATA] = says({"issuer": url, "jwks_uri": f"{url}/keys"})(authority)
        async with Tunnel({f"{HOST}:443": int(authority.url.rpartition(":")[2])}) as tunnel:
            monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
            await Issuer(url, AUDIENCE).check(authority.token("one", iss=url))
        assert authority.seen[-2:] == [METADATA, "/keys"]
        assert len(tunnel.asked) == len(authority.seen)
    authorities.cache_clear()


async def test_an_issuer_on_this_machine_is_asked_past_every_proxy(
    authority: Authority, checker: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await checker.check(authority.token("one"))


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


async def test_metadata_is_found_where_either_standard_keeps_it() -> None:
    with Authority("one") as authority:
        path = "/.well-known/oauth-authorization-server/tenant"
        url = f"{authority.url}/tenant"
        authority.answers[path] = says({"issuer": url, "jwks_uri": f"{authority.url}/keys"})(authority)
        checker = Issuer(url, AUDIENCE)
        await checker.check(authority.token("one", iss=url))
        assert authority.seen == [path, "/keys"]
