"""The checks of `mj-mcp doctor`: what a person wants to know before they spend. Spends nothing, prints nothing."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from mj_mcp.errors import MjError
from mj_mcp.journal import open_journal
from mj_mcp.logs import redactor
from mj_mcp.proxy import Proxy, Trouble
from mj_mcp.proxy.http import Http
from mj_mcp.settings import Settings

LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's."""

    name: str
    ok: bool
    said: str


async def run_checks(settings: Settings) -> list[Check]:
    """Every check, in the order in which a person would mend what fails."""
    return [
        _check_settings(settings),
        *await _check_proxy(settings),
        await _check_journal(settings),
        _check_folder(settings.output_dir),
    ]


def _check_settings(settings: Settings) -> Check:
    url = urlsplit(settings.base_url)
    local = url.hostname in {"127.0.0.1", "localhost", "::1"}
    if url.scheme == "http" and not local:
        return Check("settings", ok=False, said=f"MJ_BASE_URL is {settings.base_url}: the key would travel unencrypted")
    return Check("settings", ok=True, said=f"proxy {settings.base_url}, data in {settings.data_dir}")


async def _check_proxy(settings: Settings) -> list[Check]:
    """A look at a task that cannot exist: it shows whether the proxy is there and takes the key, and costs nothing."""
    key = settings.api_key.get_secret_value()
    http = Http(settings.base_url, key)
    try:
        look = await Proxy(http, redactor(*settings.secrets)).look(f"doctor-{uuid.uuid4().hex}", seconds=LOOK_SECONDS)
    finally:
        await http.aclose()
    if not isinstance(look, Trouble):
        return [
            Check("proxy", ok=True, said="it answers"),
            Check("key", ok=True, said="it was not refused"),
        ]
    if look.code == "unauthorized":
        return [
            Check("proxy", ok=True, said="it answers"),
            Check("key", ok=False, said=f"refused ({look.message}): check MJ_API_KEY and the account"),
        ]
    return [
        Check("proxy", ok=False, said=f"{look.message}; check MJ_BASE_URL and the network"),
        Check("key", ok=False, said="not checked, since the proxy does not answer"),
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
    """Host and database, and nothing of who enters there; "" for SQLite."""
    parts = urlsplit(url)
    host = ",".join([*filter(None, [parts.netloc.rpartition("@")[2]]), *parse_qs(parts.query).get("host", [])])
    return f"{host}{parts.path}" if url else ""


def _check_folder(folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".mj-mcp-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as failure:
        return Check("output folder", ok=False, said=f"{folder}: {os.strerror(failure.errno or 0)}; set MJ_OUTPUT_DIR")
    return Check("output folder", ok=True, said=str(folder))
