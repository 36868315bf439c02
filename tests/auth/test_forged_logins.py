"""Ways to come in without a good login: how a token is shown, how a JWT is forged, and which path is asked for.

By hand, since no client would send such requests; what clients of both generations meet is in test_logins.py.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from authority import AUDIENCE, Authority, forged, key_pair
from conftest import INITIALIZE, KEY, Served

from mj_mcp.auth.tokens import SCOPES, add_token
from mj_mcp.server.bearer import MAX_ADDRESS_CHARACTERS
from mj_mcp.simulator import Simulator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX"),
]

Serve = Callable[..., AbstractAsyncContextManager[Served]]
PATIENCE = 20.0

ASKING = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.fixture
def authority() -> Iterator[Authority]:
    with Authority() as issuer:
        yield issuer


def oauth(issuer: Authority) -> dict[str, str]:
    return {"MJ_AUTH_ISSUER": issuer.url, "MJ_AUTH_AUDIENCE": AUDIENCE}


def new_token(home: Path, name: str) -> str:
    """A token for this name in the file of the server that is at home there."""
    return add_token(home / "data" / "tokens.json", name, SCOPES, now=time.time())


async def send(
    served: Served,
    authorization: str | list[str] | None,
    body: dict[str, Any] | None = INITIALIZE,
    *,
    method: str = "POST",
    path: str = "/mcp",
) -> httpx.Response:
    """One request."""
    shown = [authorization] if isinstance(authorization, str) else authorization or []
    headers = [*ASKING.items(), *(("Authorization", value) for value in shown)]
    async with httpx.AsyncClient(trust_env=False, base_url=served.base, timeout=PATIENCE) as client:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        return await client.request(method, path, headers=encoded, content=json.dumps(body) if body else None)


# --- the matrix


def jwts(issuer: Authority, foreign: Authority) -> list[tuple[str, str, int]]:
    """Each token, and what it gets; the plain cases are in test_logins.py."""
    rsa, published = key_pair("rsa"), issuer.jwk("rsa")
    good, other = issuer.token("rsa"), issuer.token("rsa", sub="bob")
    head, claims, signature = good.split(".")
    public = json.dumps(published).encode()
    strange = foreign.jwk("rsa-of-a-stranger")
    return [
        ("for several audiences, of which we are one", issuer.token(aud=["https://x.example", AUDIENCE]), 200),
        ("scopes by the other name", issuer.token(scope=None, scp=["mj:read"]), 200),
        ("for an audience that begins like ours", issuer.token(aud=AUDIENCE + "/x"), 401),
        ("for nobody", issuer.token(aud=[]), 401),
        ("of another issuer, which has the same key", foreign.token(), 401),
        (
            "a key that the token brings along",
            issuer.token("rsa-of-a-stranger", kid="rsa", header={"jwk": strange}),
            401,
        ),
        (
            "a key set that the token names",
            issuer.token("rsa-of-a-stranger", header={"jku": f"{foreign.url}/keys"}),
            401,
        ),
        ("no key's name", jwt.encode(issuer.claims(), rsa, algorithm="RS256"), 401),
        ("another way to sign by that key", jwt.encode(issuer.claims(), rsa, "PS256", {"kid": "rsa"}), 401),
        ("a subject that is a number", jws(rsa, issuer.claims() | {"sub": 7}), 401),
        ("an audience that is a number", jws(rsa, issuer.claims() | {"aud": 7}), 401),
        ("valid until a word", jws(rsa, issuer.claims() | {"exp": "tomorrow"}), 401),
        ("valid for ever", jws(rsa, issuer.claims() | {"exp": float("inf")}), 401),
        ("valid from no number", jws(rsa, issuer.claims() | {"nbf": float("nan")}), 401),
        ("claims that are a list", jws(rsa, []), 401),
        *[(f"alg {alg!r}", forged({"kid": "rsa", "alg": alg}, issuer.claims(), b""), 401) for alg in NO_ALGORITHM],
        ("alg none, with a signature", forged({"kid": "rsa", "alg": "none"}, issuer.claims(), b"x"), 401),
        ("HS256 with nothing", forged({"kid": "rsa", "alg": "HS256"}, issuer.claims(), b""), 401),
        (
            "HS256 with the public key as it is published",
            forged({"kid": "rsa", "alg": "HS256"}, issuer.claims(), public),
            401,
        ),
        ("another one's claims", f"{head}.{other.split('.')[1]}.{signature}", 401),
        ("cut", good[:-8], 401),
        ("without its signature", f"{head}.{claims}.", 401),
        ("in five parts", f"{good}.a.b", 401),
        ("too long", issuer.token(sub="a" * 9000), 401),
        ("no scopes", issuer.token(scope=None), 403),
        ("scopes like ours", issuer.token(scope="openid mj:reader mj MJ:READ"), 403),
        ("scopes that are a number", issuer.token(scope=7), 403),
        ("scopes in a scope", issuer.token(scope={"mj:read": True}), 403),
    ]


NO_ALGORITHM = ("None", "NONE", "nOnE", "", None, 7, ["RS256"])


def jws(key: Any, claims: Any) -> str:
    """Well signed, whatever it says."""
    return jwt.api_jws.encode(json.dumps(claims).encode(), key, "RS256", {"kid": "rsa"})


def headers(token: str, login: str) -> list[tuple[str, str | list[str] | None, int]]:
    """Each way to show a token, and what it gets."""
    (digest,) = {entry["sha256"] for entry in json.loads(Path(login).read_text())["tokens"] if entry["name"] == "ada"}
    return [
        ("as it should be", f"Bearer {token}", 200),
        ("in other capitals", f"bEARER {token}", 200),
        ("nothing", None, 401),
        ("an empty header", "", 401),
        ("a scheme alone", "Bearer", 401),
        ("no scheme", token, 401),
        ("another scheme", f"Basic {token}", 401),
        ("two tokens", f"Bearer {token} {token}", 401),
        ("a list", f"Bearer {token}, Bearer {token}", 401),
        ("two headers", [f"Bearer {token}", f"Bearer {token}"], 401),
        ("no ASCII", f"Bearer {token}\xfc", 401),
        ("one letter less", f"Bearer {token[:-1]}", 401),
        ("one letter more", f"Bearer {token}A", 401),
        ("another letter", f"Bearer {token[:-1]}{'A' if token[-1] != 'A' else 'B'}", 401),
        ("other capitals in it", f"Bearer {token.swapcase()}", 401),
        ("its beginning", "Bearer mjt_", 401),
        ("its hash", f"Bearer {digest}", 401),
        ("its hash behind the beginning", f"Bearer mjt_{digest}", 401),
        ("its name", "Bearer ada", 401),
        ("the proxy's key", f"Bearer {KEY}", 401),
        ("very long", f"Bearer {'a' * 20_000}", 401),
    ]


async def test_only_a_good_login_comes_in(
    sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path
) -> None:
    ada = new_token(tmp_path, "ada")
    with Authority() as foreign:
        shown: list[tuple[str, str | list[str] | None, int]] = [
            *headers(ada, str(tmp_path / "data" / "tokens.json")),
            *((f"JWT: {case}", f"Bearer {token}", status) for case, token, status in jwts(authority, foreign)),
        ]
        async with serve_http(sim, MJ_LOG_LEVEL="debug", **oauth(authority)) as served:
            answers = {case: await send(served, authorization) for case, authorization, _ in shown}
            in_a_link = await send(served, None, path=f"/mcp?access_token={ada}&token={ada}")
    assert {case: answer.status_code for case, answer in answers.items()} == {case: want for case, _, want in shown}
    assert len({case for case, _, _ in shown}) == len(shown)
    assert in_a_link.status_code == 401
    assert foreign.seen == [], "a token does not say where its key is to be had"
    assert authority.seen.count("/keys") <= 5, "strangers do not make us ask without end"
    said = served.log.read_text()
    for case, authorization, status in shown:
        _says_why(
            answers[case], status, said, [authorization] if isinstance(authorization, str) else authorization or []
        )
    assert "Traceback" not in said
    assert sim.requests == []


def _says_why(answer: httpx.Response, status: int, said: str, shown: list[str]) -> None:
    """The answer tells the client what to do, and nobody the token."""
    if status != 200:
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer ")
        metadata = 'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"'
        assert metadata in challenge
        assert ('error="insufficient_scope"' in challenge) == (status == 403)
        assert ('error="invalid_token"' in challenge) == (status == 401 and bool(shown))
    for value in shown:
        token = value.rpartition(" ")[2]
        if len(token) > 8:
            assert token not in answer.text + str(answer.headers) + said
            assert not [part for part in token.split(".") if len(part) > 20 and part in answer.text + said]


PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"


async def test_there_is_no_way_around(sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path) -> None:
    """Every method on every path asks for a login before it says whether there is such a path."""
    async with serve_http(sim, **oauth(authority)) as served:
        answered = {
            (method, path): (await send(served, None, None, method=method, path=path)).status_code
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD")
            for path in (
                "/mcp",
                "/mcp/",
                "/",
                "/files/x",
                "//mcp",
                "/%6dcp",
                "/.well-known",
                "/healthz/../mcp",
                "/healthz/",
            )
        }
        # A link to a picture is its own permission, and this is none.
        assert {status for (_, path), status in answered.items() if path == "/files/x"} <= {401, 404, 405}
        assert set(answered.values()) <= {401, 307, 308, 404, 405}
        assert {path for (_, path), status in answered.items() if status != 401} <= {"/healthz/", "/files/x"}
        assert (await send(served, None, None, method="GET", path="/healthz")).status_code == 200
        for path in (PROTECTED_RESOURCE, f"{PROTECTED_RESOURCE}/mcp"):
            answer = await send(served, None, None, method="GET", path=path)
            said = answer.json()
            assert (said["resource"], said["authorization_servers"]) == (AUDIENCE, [authority.url])
            assert (said["scopes_supported"], said["bearer_methods_supported"]) == (["mj:read", "mj:spend"], ["header"])
        for path in (
            f"{PROTECTED_RESOURCE}/other",
            "/.well-known/openid-configuration",
            "/.well-known/",
            f"{PROTECTED_RESOURCE}/../../mcp",
        ):
            assert (await send(served, None, None, method="GET", path=path)).status_code in {401, 404}, path
    assert authority.seen == [], "who shows nothing costs the issuer nothing"


async def test_who_invents_an_address_does_not_fill_the_log(sim: Simulator, serve_http: Serve) -> None:
    """Who connects from this machine may name the address that it speaks for, as a reverse proxy does."""
    async with serve_http(sim, MJ_HTTP_TOKENS="/nowhere/tokens.json") as served:
        async with httpx.AsyncClient(base_url=served.base, timeout=PATIENCE, trust_env=False) as client:
            forwarded = {"X-Forwarded-For": "x" * 20_000, "Authorization": "Bearer mjt_guess"}
            assert (await client.post("/mcp", headers=forwarded, json=INITIALIZE)).status_code == 401
        (line,) = served.logged("login_refused")
    assert line["address"] == "x" * MAX_ADDRESS_CHARACTERS
