"""The checks of `mj-mcp doctor`: what to know before you spend money. Costs nothing, prints nothing."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from mj_mcp.app import detection_for
from mj_mcp.archive.bucket import BucketUnavailable, open_bucket
from mj_mcp.auth.tokens import TokensError, read_tokens
from mj_mcp.cli.terminal import Check
from mj_mcp.errors import MjError
from mj_mcp.files import make_folder
from mj_mcp.journal import open_journal
from mj_mcp.logs import redactor
from mj_mcp.proxy import Proxy, Trouble
from mj_mcp.proxy.http import AUTHS, Http
from mj_mcp.settings import Settings
from mj_mcp.urls import is_safe, read_tunnel

PROXY_SECONDS = 10.0
BUCKET_SECONDS = 20.0


async def run_checks(settings: Settings) -> list[Check]:
    """Every check, in the order in which you would fix what fails."""
    return [
        _check_settings(settings),
        *await _check_proxy(settings),
        await _check_journal(settings),
        _check_folder("output folder", settings.output_dir, "MJ_OUTPUT_DIR"),
        *([await _check_archive(settings)] if settings.archive and settings.archive_url else []),
        *([_check_tokens(settings)] if settings.http_tokens or _exists(settings.token_file) else []),
        *([await _check_issuer(settings.auth_issuer)] if settings.auth_issuer else []),
    ]


def _check_settings(settings: Settings) -> Check:
    if not is_safe(settings.base_url):
        return Check(
            "settings", ok=False, said=f"MJ_BASE_URL is {settings.base_url}: the key would be sent unencrypted"
        )
    return Check("settings", ok=True, said=f"proxy {settings.base_url}, data in {settings.data_dir}")


async def _check_proxy(settings: Settings) -> list[Check]:
    """The free check of `Proxy`: of which kind it is, whether it answers at this path, and whether the key is good."""
    if not settings.has_key:
        said = "MJ_API_KEY is not set: whoever runs your Midjourney Proxy gives you a key"
        return [Check("key", ok=False, said=said), Check("proxy", ok=None, said="not asked without a key")]
    tunnel = read_tunnel(settings.base_url)
    through = " through HTTPS_PROXY" if tunnel else ""
    http = Http(settings.base_url, settings.api_key.get_secret_value(), tunnel=tunnel)
    try:
        proxy = Proxy(http, redactor(*settings.secrets), detection_for(settings, http))
        found, fetched = await proxy.identify(seconds=PROXY_SECONDS)
    finally:
        await http.aclose()
    answers = Check("proxy", ok=True, said=f"{found.dialect.title if found.dialect else 'it'} answers{through}")
    if not isinstance(fetched, Trouble):
        return [answers, Check("key", ok=True, said=f"it was not refused; sent as `{AUTHS[found.auth].format('...')}`")]
    if fetched.code == "unauthorized":
        return [
            answers,
            Check("key", ok=False, said=f"refused ({fetched.message}): check MJ_API_KEY and the account"),
        ]
    return [
        Check("proxy", ok=False, said=f"{fetched.message}; check MJ_BASE_URL and the network"),
        Check("key", ok=None, said="not checked, since the proxy does not answer"),
    ]


async def _check_journal(settings: Settings) -> Check:
    url = settings.database_url.get_secret_value()
    engine = f"PostgreSQL at {where}" if (where := _server_of(url)) else "SQLite"
    try:
        journal = open_journal(url, settings.data_dir, settings.account)
        try:
            await journal.ready()
            page = await journal.page("local", None, 1, None)
        finally:
            await journal.aclose()
    except MjError as failure:
        return Check("journal", ok=False, said=f"{engine}: {redactor(*settings.secrets)(failure.message)}")
    return Check("journal", ok=True, said=f"{engine}, written and read" + ("" if page.tasks else " (no tasks yet)"))


def _server_of(url: str) -> str:
    """Host and database, without the user; "" for SQLite."""
    parts = urlsplit(url)
    host = ",".join([*filter(None, [parts.netloc.rpartition("@")[2]]), *parse_qs(parts.query).get("host", [])])
    return f"{host}{parts.path}" if url else ""


async def _check_archive(settings: Settings) -> Check:
    """Writes, reads and removes one small object: what replicas do, and the cleanup."""
    if not settings.bucket_url:
        return _check_folder("archive", settings.archive_folder, "MJ_ARCHIVE_URL")
    name, text = f"mj-mcp-doctor-{uuid.uuid4().hex}", b"written by mj-mcp doctor"
    try:
        async with asyncio.timeout(BUCKET_SECONDS):
            bucket = open_bucket(settings.bucket_url, over_http=settings.bucket_over_http)
            await bucket.get(
                name, len(text)
            )  # before it exists: without the right, S3 refuses instead of reporting that it is missing
            await bucket.put(name, text, "text/plain")
            same = await bucket.get(name, len(text)) == text
            await bucket.delete(name)
    except (BucketUnavailable, MjError, TimeoutError) as failure:
        said = redactor(*settings.secrets)(str(failure)) or f"it took more than {BUCKET_SECONDS:g} s"
        return Check("archive", ok=False, said=f"{settings.bucket_url}: {said}")
    read = "written, read and removed one object" if same else "the object read differs from the one written"
    return Check("archive", ok=same, said=f"{settings.bucket_url}: {read}")


def _exists(path: Path) -> bool:
    """Whether it exists, as far as known. An unreadable data folder is reported by the journal's check."""
    try:
        return path.exists()
    except OSError:
        return False


def _check_tokens(settings: Settings) -> Check:
    try:
        tokens = read_tokens(settings.token_file)
    except TokensError as failure:
        return Check("tokens", ok=False, said=f"{failure}, so nobody can log in with a token")
    if not tokens and not settings.auth_issuer:
        return Check(
            "tokens", ok=False, said=f"{settings.token_file} has none, so nobody can log in: mj-mcp tokens add"
        )
    return Check("tokens", ok=True, said=f"{len(tokens)} in {settings.token_file}")


async def _check_issuer(url: str) -> Check:
    from mj_mcp.auth.issuer import IssuerUnavailable, published_keys  # noqa: PLC0415 - only who has an issuer pays for it

    try:
        keys = (await asyncio.to_thread(published_keys, url)).keys
    except IssuerUnavailable as failure:
        return Check("issuer", ok=False, said=f"{url}: its keys cannot be fetched ({failure}); check MJ_AUTH_ISSUER")
    return Check("issuer", ok=True, said=f"{url}: {len(keys)} usable keys")


def _check_folder(name: str, folder: Path, variable: str) -> Check:
    try:
        make_folder(folder)
        probe = folder / f".mj-mcp-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as failure:
        return Check(name, ok=False, said=f"{folder}: {os.strerror(failure.errno or 0)}; set {variable}")
    return Check(name, ok=True, said=str(folder))
