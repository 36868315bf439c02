"""Who may come in over HTTP: real clients of both generations, a real server process, a real issuer on loopback."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from authority import AUDIENCE, METADATA, Authority, forged
from commands import run
from conftest import INITIALIZE, KEY, Caller, Served
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError

from mj_mcp.auth.tokens import READ, SCOPES, SPEND, TOKEN_PREFIX, add_token, revoke_token
from mj_mcp.server.bearer import LOGIN_RETRY_SECONDS
from mj_mcp.server.sessions import SESSION_RETRY_SECONDS
from mj_mcp.server.tools import SPENDING_TOOLS
from mj_mcp.simulator import Simulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX"),
]

Serve = Callable[..., AbstractAsyncContextManager[Served]]

PROTOCOLS = ["2026-07-28", "2025-11-25"]
both = pytest.mark.parametrize("protocol", PROTOCOLS)

PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"


class Visit:
    """A real client's way in, and every HTTP status that it was answered."""

    def __init__(self, served: Served, authorization: str | None, protocol: str) -> None:
        self.statuses: list[int] = []
        self.challenges: list[str] = []
        self._served = served
        self._mode = protocol if protocol == "2026-07-28" else "legacy"
        self._headers = {} if authorization is None else {"Authorization": authorization}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Caller]:
        async def note(answer: Any) -> None:
            self.statuses.append(answer.status_code)
            self.challenges.append(answer.headers.get("www-authenticate", ""))

        async with create_mcp_http_client(headers=self._headers) as http:
            http.event_hooks = {"response": [note]}
            transport = streamable_http_client(self._served.url, http_client=http)
            async with Client(transport, mode=self._mode) as client:
                yield Caller(client)

    async def tools(self) -> set[str] | None:
        """The tools that it is shown; None when it does not get in."""
        try:
            with anyio.fail_after(20):
                async with self.open() as caller:
                    return {tool.name for tool in (await caller.client.list_tools()).tools}
        except TimeoutError:
            raise
        except Exception:  # noqa: BLE001 - the client's own way to say so differs by generation
            return None


def holder(served: Served, token: str, protocol: str = "2026-07-28") -> AbstractAsyncContextManager[Caller]:
    return Visit(served, f"Bearer {token}", protocol).open()


def token_file(home: Path) -> Path:
    return home / "data" / "tokens.json"


def make(home: Path, name: str, *scopes: str) -> str:
    return add_token(token_file(home), name, scopes or SCOPES, now=0.0)


@pytest.fixture
def authority() -> Any:
    with Authority() as issuer:
        yield issuer


def oauth(authority: Authority, **extra: str) -> dict[str, str]:
    return {"MJ_AUTH_ISSUER": authority.url, "MJ_AUTH_AUDIENCE": AUDIENCE, **extra}


# --- the matrix


BAD: dict[str, Callable[[Authority], str | None]] = {
    "nothing": lambda _: None,
    "another scheme": lambda _: "Basic YW5uYTpzZWNyZXQ=",
    "no token": lambda _: "Bearer",
    "two words": lambda _: "Bearer one two",
    "a token of nobody": lambda _: f"Bearer {TOKEN_PREFIX}{'A' * 43}",
    "an empty token": lambda _: f"Bearer {TOKEN_PREFIX}",
    "a hash instead": lambda _: f"Bearer {TOKEN_PREFIX}{'0' * 64}",
    "very long": lambda _: "Bearer " + "A" * 9000,
    "no JWT": lambda _: "Bearer abc.def.ghi",
    "a deep header": lambda _: f"Bearer {deep()}",
    "expired": lambda issuer: f"Bearer {issuer.token(exp=1_000_000_000)}",
    "expired a while ago": lambda issuer: f"Bearer {issuer.token(iat=issuer.now(-600), exp=issuer.now(-90))}",
    "not yet valid": lambda issuer: f"Bearer {issuer.token(nbf=issuer.now(120))}",
    "issued in the future": lambda issuer: f"Bearer {issuer.token(iat=issuer.now(120))}",
    "foreign audience": lambda issuer: f"Bearer {issuer.token(aud='https://other.example.com/mcp')}",
    "foreign issuer": lambda issuer: f"Bearer {issuer.token(iss='https://login.example.com')}",
    "almost the issuer": lambda issuer: f"Bearer {issuer.token(iss=issuer.url + '/')}",
    "no exp": lambda issuer: f"Bearer {issuer.token(exp=None)}",
    "no iat": lambda issuer: f"Bearer {issuer.token(iat=None)}",
    "no iss": lambda issuer: f"Bearer {issuer.token(iss=None)}",
    "no aud": lambda issuer: f"Bearer {issuer.token(aud=None)}",
    "no sub": lambda issuer: f"Bearer {issuer.token(sub=None)}",
    "a sub of two lines": lambda issuer: f"Bearer {issuer.token(sub='anna' + chr(10) + 'local')}",
    "an empty sub": lambda issuer: f"Bearer {issuer.token(sub=' ')}",
    "alg none": lambda issuer: f"Bearer {issuer.unsigned()}",
    "HS256 by the public key": lambda issuer: f"Bearer {issuer.signed_with_public_key()}",
    "an unknown kid": lambda issuer: f"Bearer {issuer.token('unpublished')}",
    "a stranger's key under a known kid": lambda issuer: f"Bearer {issuer.token('unpublished', kid='one')}",
    "a key for another algorithm": lambda issuer: f"Bearer {issuer.token('one', kid='rsa')}",
    "changed after it was signed": lambda issuer: f"Bearer {changed(issuer.token())}",
    "a critical header": lambda issuer: f"Bearer {issuer.token(header={'crit': ['x'], 'x': 1})}",
}


def deep() -> str:
    """A header that no parser can follow to its end; anybody can send it."""
    header = base64.urlsafe_b64encode(b'{"x":' + b"[" * 6000)
    return f"{header.rstrip(b'=').decode()}.e30.e30"


def changed(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{forged({}, {'sub': 'root'}, b'').split('.')[1]}.{signature}"


@both
async def test_only_good_logins_come_in(
    protocol: str, sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path
) -> None:
    static = make(tmp_path, "anna")
    async with serve_http(sim, **oauth(authority)) as served:
        for good in (static, authority.token(), authority.token("rsa"), authority.token(exp=authority.now(-30))):
            visit = Visit(served, f"Bearer {good}", protocol)
            assert len(await visit.tools() or ()) == 12, visit.statuses
        assert len(await Visit(served, f"bearer {static}", protocol).tools() or ()) == 12
        for name, make_authorization in BAD.items():
            visit = Visit(served, make_authorization(authority), protocol)
            assert (name, await visit.tools(), set(visit.statuses)) == (name, None, {401})
            said = visit.challenges[0]
            assert said.startswith("Bearer"), name
            assert f'resource_metadata="https://mcp.example.com{PROTECTED_RESOURCE}/mcp"' in said, name
        refused = served.logged("login_refused")
    assert len(refused) >= len(BAD)
    assert {line["address"] for line in refused} == {"127.0.0.1"}
    assert {line["status"] for line in refused} == {401}
    assert {line["level"] for line in refused} == {"warning"}
    assert sim.submits() == []


@both
async def test_what_a_login_may_do_goes_by_its_scopes(
    protocol: str, sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path
) -> None:
    lookers = [
        f"Bearer {make(tmp_path, 'looker', READ)}",
        f"Bearer {authority.token(scope='mj:read openid')}",
        f"Bearer {authority.token(scope=None, scp=['mj:read'])}",
    ]
    strangers = [
        f"Bearer {make(tmp_path, 'spender', SPEND)}",
        f"Bearer {authority.token(scope='mj:spend')}",
        f"Bearer {authority.token(scope=None)}",
        f"Bearer {authority.token(scope=7)}",
        f"Bearer {authority.token(scope='mj:reader')}",
    ]
    async with serve_http(sim, **oauth(authority)) as served:
        for authorization in lookers:
            async with Visit(served, authorization, protocol).open() as caller:
                shown = {tool.name for tool in (await caller.client.list_tools()).tools}
                assert (len(shown), shown & set(SPENDING_TOOLS)) == (6, set())
                for tool in SPENDING_TOOLS:
                    error = await caller.error(tool, **ARGUMENTS[tool])
                    assert error["code"] == "limit_reached"
                    assert SPEND in error["message"]
                assert (await caller.task("list_tasks"))["tasks"] == []
                assert [prompt.name for prompt in (await caller.client.list_prompts()).prompts] == ["catch_up"]
                with pytest.raises(MCPError, match="There is no prompt `make_picture` for you here"):
                    await caller.client.get_prompt("make_picture", {"brief": "a mug"})
        for authorization in strangers:
            visit = Visit(served, authorization, protocol)
            assert (await visit.tools(), set(visit.statuses)) == (None, {403})
            assert 'error="insufficient_scope"' in visit.challenges[0]
            assert f'scope="{READ}"' in visit.challenges[0]
    assert sim.requests == []


ARGUMENTS: dict[str, dict[str, Any]] = {
    "generate_image": {"prompt": "a mug"},
    "upscale_image": {"task_id": "1", "index": 1},
    "vary_image": {"task_id": "1", "index": 1},
    "reroll": {"task_id": "1"},
    "simple_change": {"content": "1 U1"},
    "press_button": {"task_id": "1", "button": "Zoom Out 2x"},
}


async def test_who_may_not_buy_is_not_asked_to(sim: Simulator, serve_http: Serve, tmp_path: Path) -> None:
    token = make(tmp_path, "anna")
    async with serve_http(sim) as served:
        async with holder(served, token) as caller:
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
            sim.finish(task["task_id"])
            done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=20)
            assert "reroll" in {call["tool"] for call in done["next"]}
        revoke_token(token_file(tmp_path), "anna")
        token = make(tmp_path, "anna", READ)
        async with holder(served, token) as caller:
            again = await caller.task("get_task", task_id=task["task_id"], wait_seconds=0)
            assert {call["tool"] for call in again["next"]} == {"view_image", "save_images"}
            resource = await caller.client.read_resource(f"mj://tasks/{task['task_id']}")
            assert json.loads(resource.contents[0].text)["next"] == again["next"]  # type: ignore[union-attr]


# --- tokens of the file, while the server runs


@both
async def test_a_revoked_token_ends_with_its_next_request(
    protocol: str, sim: Simulator, serve_http: Serve, tmp_path: Path
) -> None:
    """And a new one of the same name finds the tasks of the old."""
    token = make(tmp_path, "anna")
    make(tmp_path, "ben")
    async with serve_http(sim) as served:
        visit = Visit(served, f"Bearer {token}", protocol)
        async with visit.open() as caller:
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
            revoke_token(token_file(tmp_path), "anna")
            with pytest.raises(Exception, match=r"(?i)unauthorized|401|terminated|error"):
                await caller.call("list_tasks")
            assert visit.statuses[-1] == 401
            async with holder(served, make(tmp_path, "anna"), protocol) as successor:
                (found,) = (await successor.task("list_tasks"))["tasks"]
                assert found["task_id"] == task["task_id"]
                sim.finish(task["task_id"])
                done = await successor.task("get_task", task_id=task["task_id"], wait_seconds=20)
                assert done["status"] == "succeeded"
        calls = served.logged("tool_call")
    assert {call["owner"] for call in calls} == {"token:anna"}


async def test_the_first_token_closes_a_server_that_was_open(sim: Simulator, serve_http: Serve, tmp_path: Path) -> None:
    async with serve_http(sim) as served:
        assert len(await Visit(served, None, "2026-07-28").tools() or ()) == 12
        async with Visit(served, None, "2026-07-28").open() as caller:
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        token = make(tmp_path, "anna")
        assert await Visit(served, None, "2026-07-28").tools() is None
        async with holder(served, token) as caller:
            assert (await caller.task("list_tasks"))["tasks"] == []
            assert (await caller.error("get_task", task_id=task["task_id"], wait_seconds=0))["code"] == "task_not_found"
        revoke_token(token_file(tmp_path), "anna")
        assert await Visit(served, None, "2026-07-28").tools() is None, "the last one was revoked"
        token_file(tmp_path).unlink()
        assert await Visit(served, None, "2026-07-28").tools() is None, "the file is gone"
        assert {line["owner"] for line in served.logged("tool_call")} == {"local", "token:anna"}


DAMAGE = ["{", "[]", '{"version": 2, "tokens": []}', '{"version": 1, "tokens": [{}]}', ""]


async def test_a_broken_token_file_lets_nobody_in_and_says_so(
    sim: Simulator, serve_http: Serve, tmp_path: Path
) -> None:
    token = make(tmp_path, "anna")
    file = token_file(tmp_path)
    whole = file.read_bytes()
    async with serve_http(sim) as served:
        for damage in DAMAGE:
            assert await Visit(served, f"Bearer {token}", "2026-07-28").tools()
            file.write_text(damage)
            for authorization, status in ((f"Bearer {token}", 503), (f"Bearer {TOKEN_PREFIX}x", 503), (None, 401)):
                visit = Visit(served, authorization, "2026-07-28")
                assert (await visit.tools(), set(visit.statuses)) == (None, {status})
            file.write_bytes(whole)
        assert await Visit(served, f"Bearer {token}", "2026-07-28").tools()
        lines = served.logged("token_file_unusable")
    assert [str(file) in line["reason"] for line in lines] == [True] * len(DAMAGE)


async def test_a_server_that_others_reach_needs_a_login(sim: Simulator, tmp_path: Path) -> None:
    env = {"MJ_API_KEY": KEY, "MJ_DATA_DIR": str(tmp_path / "data")}
    arguments = ("serve", "--http", "--host", "0.0.0.0", "--port", "0")
    done = await run(tmp_path, *arguments, env=env | {"MJ_PUBLIC_URL": "https://mcp.example.com"})
    assert done.returncode == 2
    assert "mj-mcp tokens add" in done.stderr
    make(tmp_path, "anna")
    done = await run(tmp_path, *arguments, env=env | {"MJ_HTTP_ALLOWED_HOSTS": "pictures.example.com"})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "MJ_PUBLIC_URL=https://pictures.example.com"


# --- an issuer


async def test_the_metadata_says_where_to_log_in(sim: Simulator, serve_http: Serve, authority: Authority) -> None:
    async with serve_http(sim, **oauth(authority)) as served, by_hand(served) as client:
        for path in (PROTECTED_RESOURCE, f"{PROTECTED_RESOURCE}/mcp"):
            answer = await client.get(path)
            assert answer.json() == {
                "resource": AUDIENCE,
                "authorization_servers": [authority.url],
                "scopes_supported": ["mj:read", "mj:spend"],
                "bearer_methods_supported": ["header"],
                "resource_name": "mj-mcp",
            }
        assert (await client.get(f"{PROTECTED_RESOURCE}/other")).status_code == 404


async def test_the_metadata_is_about_the_public_url_whatever_the_audience(
    sim: Simulator, serve_http: Serve, authority: Authority
) -> None:
    public = {"MJ_PUBLIC_URL": "https://mcp.example.com/pictures", "MJ_HTTP_ALLOWED_HOSTS": "127.0.0.1"}
    extra = oauth(authority, MJ_AUTH_AUDIENCE="pictures", **public)
    async with serve_http(sim, **extra) as served, by_hand(served) as client:
        for path in ("", "/mcp", "/pictures/mcp"):
            said = (await client.get(PROTECTED_RESOURCE + path)).json()
            assert said["resource"] == "https://mcp.example.com/pictures/mcp"
        challenge = (await client.post("/mcp")).headers["www-authenticate"]
        where = f"https://mcp.example.com{PROTECTED_RESOURCE}/pictures/mcp"
        assert challenge == f'Bearer resource_metadata="{where}"'
        assert await Visit(served, f"Bearer {authority.token(aud=['x', 'pictures'])}", "2026-07-28").tools()


async def test_without_an_issuer_no_client_is_sent_to_one(sim: Simulator, serve_http: Serve, tmp_path: Path) -> None:
    make(tmp_path, "anna")
    async with serve_http(sim) as served, by_hand(served) as client:
        assert (await client.get(PROTECTED_RESOURCE)).status_code == 404
        assert (await client.post("/mcp")).headers["www-authenticate"] == "Bearer"


async def test_an_issuer_that_is_away_is_no_fault_of_the_caller(
    sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path
) -> None:
    token = make(tmp_path, "anna")
    authority.answers[METADATA] = lambda: (500, {}, b"")
    async with serve_http(sim, **oauth(authority)) as served, by_hand(served, authority.token()) as client:
        visit = Visit(served, f"Bearer {authority.token()}", "2026-07-28")
        assert (await visit.tools(), set(visit.statuses)) == (None, {503})
        assert await Visit(served, f"Bearer {token}", "2026-07-28").tools(), "tokens of the file need no issuer"
        assert (await client.post("/mcp")).headers["Retry-After"] == str(LOGIN_RETRY_SECONDS)
        assert served.logged("issuer_keys_unavailable")


async def test_subjects_tokens_and_the_machine_itself_never_share_tasks(
    sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path
) -> None:
    """Whatever they call themselves."""
    logins = {
        "token:local": make(tmp_path, "local"),
        "token:anna": make(tmp_path, "anna"),
        f"{authority.url}#anna": authority.token(),
        f"{authority.url}#local": authority.token(sub="local"),
        f"{authority.url}#token:anna": authority.token(sub="token:anna"),
    }
    async with serve_http(sim, **oauth(authority)) as served:
        for token in logins.values():
            async with holder(served, token) as caller:
                assert (await caller.task("list_tasks"))["tasks"] == []
                await caller.task("generate_image", prompt="a mug", wait_seconds=0)
                assert len((await caller.task("list_tasks"))["tasks"]) == 1
        owners = [line["owner"] for line in served.logged("tool_call") if line["tool"] == "generate_image"]
    assert owners == list(logins)
    assert len(sim.submits()) == len(logins)


# --- sessions


@asynccontextmanager
async def by_hand(served: Served, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Accept": "application/json, text/event-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with httpx.AsyncClient(trust_env=False, base_url=served.base, headers=headers, timeout=20) as client:
        yield client


async def test_the_session_of_another_is_as_one_that_does_not_exist(
    sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path
) -> None:
    anna, ben = make(tmp_path, "anna"), make(tmp_path, "ben")
    async with serve_http(sim, **oauth(authority)) as served, by_hand(served, anna) as hers:
        session = (await hers.post("/mcp", json=INITIALIZE)).headers["mcp-session-id"]
        assert (await ask(hers, session)).status_code == 200
        for other in (ben, authority.token()):
            async with by_hand(served, other) as his:
                foreign, unknown = await ask(his, session), await ask(his, "0" * 32)
                assert foreign.status_code == unknown.status_code == 404
                assert foreign.content == unknown.content
                assert (await his.delete("/mcp", headers={"Mcp-Session-Id": session})).status_code == 404
        async with by_hand(served) as nobody:
            assert (await ask(nobody, session)).status_code == 401
        assert (await ask(hers, session)).status_code == 200


async def test_no_login_can_keep_the_others_out(sim: Simulator, serve_http: Serve, tmp_path: Path) -> None:
    anna, ben = make(tmp_path, "anna", READ), make(tmp_path, "ben")
    async with (
        serve_http(sim, MJ_HTTP_MAX_SESSIONS="4") as served,
        by_hand(served, anna) as hers,
        by_hand(served, ben) as his,
    ):
        first, *others = [await opened(hers) for _ in range(5)]
        assert [(await ask(hers, one)).status_code for one in (first, *others)] == [404, 200, 200, 200, 200]
        taken = [await opened(his), await opened(his)]
        assert [(await ask(hers, one)).status_code for one in others] == [404, 404, 200, 200]
        last = await opened(his)
        assert [(await ask(his, one)).status_code for one in (*taken, last)] == [404, 200, 200], "each has two now"
        assert [(await ask(hers, one)).status_code for one in others] == [404, 404, 200, 200]


async def test_sessions_that_are_busy_give_way_to_another_login_only(
    sim: Simulator, serve_http: Serve, tmp_path: Path
) -> None:
    anna, ben = make(tmp_path, "anna", READ), make(tmp_path, "ben")
    async with (
        serve_http(sim, MJ_HTTP_MAX_SESSIONS="2") as served,
        by_hand(served, anna) as hers,
        by_hand(served, ben) as his,
        AsyncExitStack() as streams,
    ):
        sessions = [await opened(hers) for _ in range(2)]
        for session in sessions:
            listening = await streams.enter_async_context(hers.stream("GET", "/mcp", headers=of(session)))
            assert listening.status_code == 200
        refused = await hers.post("/mcp", json=INITIALIZE)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, str(SESSION_RETRY_SECONDS))
        await opened(his)
        assert [(await ask(hers, one)).status_code for one in sessions] == [404, 200], "the oldest"


async def opened(client: httpx.AsyncClient) -> str:
    """A session that is open; its id."""
    answer = await client.post("/mcp", json=INITIALIZE)
    assert answer.status_code == 200
    return str(answer.headers["Mcp-Session-Id"])


def of(session: str) -> dict[str, str]:
    return {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}


async def ask(client: httpx.AsyncClient, session: str) -> httpx.Response:
    return await client.post("/mcp", headers=of(session), json={"jsonrpc": "2.0", "id": 2, "method": "ping"})


# --- what must never show


@both
async def test_no_token_and_no_key_shows_up_where_it_does_not_belong(
    protocol: str, sim: Simulator, serve_http: Serve, authority: Authority, tmp_path: Path
) -> None:
    static, wrong = make(tmp_path, "anna"), f"{TOKEN_PREFIX}wrong-canary-7d21f0"
    jwt, expired = authority.token(), authority.token(exp=1_000_000_000)
    shown: list[str] = []
    async with serve_http(sim, **oauth(authority, MJ_LOG_LEVEL="debug")) as served:
        for token in (static, jwt):
            async with holder(served, token, protocol) as caller:
                task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
                sim.finish(task["task_id"])
                answers = [
                    await caller.call("get_task", task_id=task["task_id"], wait_seconds=20),
                    await caller.call("save_images", task_id=task["task_id"]),
                    await caller.call("list_tasks"),
                    await caller.call("get_task", task_id="sub_unknown", wait_seconds=0),
                    await caller.call("get_task", nothing=1),
                    await caller.client.read_resource("mj://tasks"),
                ]
                shown += [answer.model_dump_json() for answer in answers]
        for token in (wrong, expired, f"{static} {static}"):
            async with by_hand(served, token) as client:
                answer = await client.post("/mcp", json=INITIALIZE, params={"access_token": token})
                assert answer.status_code == 401
                shown += [answer.text, str(answer.headers)]
        assert await served.stop() == 0
    log = served.log.read_text()
    assert len(served.logged("login_refused")) == 3
    upstream = [f"{seen.method} {seen.path} {seen.query} {seen.headers} {seen.body!r}" for seen in sim.requests]
    assert len(upstream) > 4
    files = [path.read_bytes().decode("latin-1") for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert len(files) >= 3
    for canary in (
        static,
        static.removeprefix(TOKEN_PREFIX),
        wrong,
        *(part for t in (jwt, expired) for part in t.split(".")),
    ):
        for text in (log, *shown, *upstream, *files, *authority.seen):
            assert canary not in text
    for text in (log, *shown, *files, *authority.seen):
        assert KEY not in text
    assert all(KEY in seen.headers["authorization"] for seen in sim.requests if seen.path.startswith("/mj/"))
