"""Pictures for callers on other machines: links of this server, signed, for one picture and one owner, for an hour."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from conftest import PROTOCOLS, Served
from folders import small_files
from lives import journal_file

from mj_mcp.server.links import FILE_RETRY_SECONDS, LIFETIME_SECONDS, signing_secret
from mj_mcp.settings import Settings, SettingsError
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[Served]]
SECRET = "canary-secret-for-links-0123456789abcdef"


@asynccontextmanager
async def finished(sim: Simulator, serve_http: Serve, protocol: str, **env: str) -> AsyncIterator[dict[str, Any]]:
    """A server with one finished task, as its caller sees it."""
    env = {"MJ_SECRET_KEY": SECRET, "MJ_OUTPUT_DIR": "", **env}
    async with serve_http(sim, **env) as served, served.connect(protocol) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.finish(task["task_id"])
        result = await caller.task("get_task", task_id=task["task_id"], wait_seconds=20)
        result["tools"] = {tool.name for tool in (await caller.client.list_tools()).tools}
        yield result


def signed(**changed: Any) -> str:
    good_for = {"aud": "mj-mcp/files", "exp": int(time.time()) + 60, "sub": "local", "task": "sub_x", "index": 1}
    return jwt.encode(good_for | changed, changed.pop("secret", SECRET), changed.pop("algorithm", "HS256"))


def endless(**mine: Any) -> str:
    """Well signed, and good for ever."""
    return jwt.encode({"aud": "mj-mcp/files", "sub": "local", "index": 1, **mine}, SECRET, "HS256")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_caller_on_another_machine_gets_links_that_open(
    protocol: str, sim: Simulator, serve_http: Serve
) -> None:
    async with finished(sim, serve_http, protocol) as task, httpx.AsyncClient(trust_env=False) as browser:
        assert "save_images" not in task["tools"]
        assert "save_images" not in {call["tool"] for call in task["next"]}
        assert ["path" in image for image in task["images"]] == [False] * 4
        opens: set[bytes] = set()
        for image in task["images"]:
            opened = await browser.get(image["url"])
            assert opened.status_code == 200
            assert opened.headers["content-type"] == image["media_type"] == "image/png"
            assert opened.headers["x-content-type-options"] == "nosniff"
            assert opened.content.startswith(b"\x89PNG")
            opens.add(opened.content)
            good_for = jwt.decode(image["url"].rsplit("/", 1)[1], SECRET, ["HS256"], audience="mj-mcp/files")
            assert good_for["exp"] <= time.time() + LIFETIME_SECONDS
        assert len(opens) == 4, "each link is that of its picture"
        before = len(sim.requests)
        assert (await browser.head(task["images"][0]["url"])).status_code == 200
        assert len(sim.requests) == before, "it comes from the archive"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_links_begin_with_the_public_url(protocol: str, sim: Simulator, serve_http: Serve) -> None:
    """Whatever the caller, or a proxy in between, calls this server."""
    public = {"MJ_PUBLIC_URL": "https://mcp.example.com/pictures/", "MJ_HTTP_ALLOWED_HOSTS": "127.0.0.1"}
    async with finished(sim, serve_http, protocol, **public) as task:
        starts = {image["url"].rpartition("/")[0] for image in task["images"]}
    assert starts == {"https://mcp.example.com/pictures/files"}


async def test_a_browser_that_has_the_picture_is_not_sent_it_again(sim: Simulator, serve_http: Serve) -> None:
    async with finished(sim, serve_http, PROTOCOLS[0]) as task, httpx.AsyncClient(trust_env=False) as browser:
        link = task["images"][0]["url"]
        first = await browser.get(link)
        etag = first.headers["etag"]
        assert etag == f'"{hashlib.sha256(first.content).hexdigest()}"'
        again = await browser.get(link, headers={"If-None-Match": f'"another", {etag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        other = await browser.get(link, headers={"If-None-Match": '"another"'})
        assert (other.status_code, other.content) == (200, first.content)
        part = await browser.get(link, headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, first.content[:4])


@pytest.mark.parametrize("archive", ["1", "0"])
async def test_the_head_of_a_link_says_all_but_sends_no_body(archive: str, sim: Simulator, serve_http: Serve) -> None:
    async with finished(sim, serve_http, PROTOCOLS[0], MJ_ARCHIVE=archive) as task:
        parts = urlsplit(task["images"][0]["url"])
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = f"HEAD {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = (await reader.read()).lower()
        writer.close()
        assert answer.startswith(b"http/1.1 200")
        assert answer.endswith(b"\r\n\r\n"), "and nothing after it"
        async with httpx.AsyncClient(trust_env=False) as browser:
            whole = await browser.get(task["images"][0]["url"])
        assert f"content-length: {len(whole.content)}\r\n".encode() in answer
        assert f"etag: {whole.headers['etag']}\r\n".encode() in answer


async def test_a_server_that_a_person_gave_a_folder_saves_there(
    sim: Simulator, serve_http: Serve, tmp_path: Path
) -> None:
    async with finished(sim, serve_http, PROTOCOLS[0], MJ_OUTPUT_DIR=str(tmp_path / "shared")) as task:
        assert "save_images" in task["tools"]
        assert "save_images" in {call["tool"] for call in task["next"]}


async def test_what_is_not_signed_for_this_picture_opens_nothing(sim: Simulator, serve_http: Serve) -> None:
    async with finished(sim, serve_http, PROTOCOLS[0]) as task, httpx.AsyncClient(trust_env=False) as browser:
        parts = urlsplit(task["images"][0]["url"])
        here, link = f"{parts.scheme}://{parts.netloc}", parts.path
        mine = {"task": task["submission_id"]}
        assert (await browser.get(f"{here}/files/{signed(**mine)}")).status_code == 200
        for wrong in (
            link[:-2] + ("AA" if link[-2:] != "AA" else "BB"),
            f"/files/{signed(**mine, secret='x' * 40)}",
            f"/files/{signed(**mine, aud='another purpose')}",
            f"/files/{signed(**mine, sub='token:bob')}",
            f"/files/{signed(**mine, index=5)}",
            f"/files/{jwt.encode(mine | {'sub': 'local', 'index': 1}, '', 'none')}",
            f"/files/{endless(**mine)}",
            "/files/",
            "/files",
            "/files/../files/x",
        ):
            answer = await browser.get(here + wrong)
            assert answer.status_code in {401, 404}, wrong
            assert b"PNG" not in answer.content
        old = await browser.get(f"{here}/files/{signed(**mine, exp=int(time.time()) - 1)}")
        assert (old.status_code, "get_task" in old.text) == (410, True)
        strange = await browser.get(here + link, headers={"Host": "evil.example"})
        assert strange.status_code == 421


async def test_while_the_journal_is_away_what_is_known_opens_and_the_rest_says_when_to_come_again(
    sim: Simulator, serve_http: Serve, tmp_path: Path
) -> None:
    async with finished(sim, serve_http, PROTOCOLS[0]) as task, httpx.AsyncClient(trust_env=False) as browser:
        link = task["images"][0]["url"]
        unknown = f"{link.rpartition('/')[0]}/{signed()}"
        assert (await browser.get(unknown)).status_code == 404
        with journal_file(tmp_path) as db:
            db.execute("ALTER TABLE tasks RENAME TO away")
        assert (await browser.get(link)).status_code == 200
        away = await browser.get(unknown)
        assert (away.status_code, away.headers.get("Retry-After")) == (503, str(FILE_RETRY_SECONDS))
        assert away.headers["Cache-Control"] == "no-store"


def test_a_link_is_short_lived() -> None:
    assert LIFETIME_SECONDS <= 3600


SettingsFor = Callable[..., Settings]


def test_servers_of_one_data_folder_sign_alike_with_a_secret_that_nobody_else_reads(
    settings_for: SettingsFor, tmp_path: Path
) -> None:
    settings = settings_for("http://127.0.0.1:9")
    assert signing_secret(settings) == signing_secret(settings)
    assert len(signing_secret(settings)) >= 32
    (kept,) = (tmp_path / "data").glob("secret.key*")
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 64, b"\xff" * 64])
async def test_a_damaged_secret_is_named_at_the_start(damage: bytes, settings_for: SettingsFor, tmp_path: Path) -> None:
    """Found later, it would fail a call that has been paid for."""
    kept = tmp_path / "data" / "secret.key"
    kept.parent.mkdir()
    kept.write_bytes(damage)
    with pytest.raises(SettingsError, match=rf"^{kept} has no secret .* delete it"):
        signing_secret(settings_for("http://127.0.0.1:9"))
    assert kept.read_bytes() == damage


def test_a_secret_is_written_whole(settings_for: SettingsFor, tmp_path: Path) -> None:
    """On a full disk there is none, rather than half of one."""
    settings = settings_for("http://127.0.0.1:9")
    with small_files(10), pytest.raises(OSError, match="File too large"):
        signing_secret(settings)
    assert [*(tmp_path / "data").iterdir()] == []
    assert len(signing_secret(settings)) >= 32


def test_servers_that_share_a_database_need_a_secret_that_a_person_sets(settings_for: SettingsFor) -> None:
    url = "postgresql://mj@127.0.0.1/mj"
    with pytest.raises(SettingsError, match="MJ_SECRET_KEY"):
        signing_secret(settings_for("http://127.0.0.1:9", MJ_DATABASE_URL=url))
    assert signing_secret(settings_for("http://127.0.0.1:9", MJ_DATABASE_URL=url, MJ_SECRET_KEY=SECRET)) == SECRET


def test_a_short_secret_is_refused(settings_for: SettingsFor) -> None:
    with pytest.raises(SettingsError, match="32 characters"):
        settings_for("http://127.0.0.1:9", MJ_SECRET_KEY="short")
