"""The token file, and the commands that a person makes and revokes tokens with."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from commands import run

from mj_mcp.auth import tokens
from mj_mcp.auth.tokens import READ, SCOPES, TOKEN_PREFIX, TokenFile, TokensError, add_token, read_tokens, revoke_token

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tokens.json"


def test_a_token_is_found_by_itself_alone_and_kept_nowhere(file: Path) -> None:
    token = add_token(file, "anna", (READ,), now=5.0)
    assert token.startswith(TOKEN_PREFIX)
    assert len(token) >= len(TOKEN_PREFIX) + 43
    assert token != add_token(file, "ben", SCOPES, now=6.0)
    found = TokenFile(file).find(token)
    assert found is not None
    assert (found.name, found.scopes, found.created_at) == ("anna", (READ,), 5.0)
    text = file.read_text()
    assert token.removeprefix(TOKEN_PREFIX) not in text
    for wrong in (token[:-1], token + "A", token.removeprefix(TOKEN_PREFIX), found.sha256, "", "anna"):
        assert TokenFile(file).find(wrong) is None


@pytest.mark.skipif(sys.platform == "win32", reason="modes are of POSIX")
def test_the_file_is_for_its_owner_alone(file: Path) -> None:
    token = add_token(file, "anna", SCOPES, now=0.0)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o620)
    with pytest.raises(TokensError, match="0600"):
        TokenFile(file).find(token)


def test_writers_at_once_lose_nothing(file: Path) -> None:
    names = [f"name-{number}" for number in range(12)]
    writers = [threading.Thread(target=add_token, args=(file, name, SCOPES), kwargs={"now": 0.0}) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(token.name for token in read_tokens(file)) == sorted(names)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_write_that_fails_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_token(file, "anna", SCOPES, now=0.0)
    before = file.read_bytes()
    fired = []

    def full(_descriptor: int) -> None:
        fired.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TokensError, match="cannot be written: No space left"):
        add_token(file, "ben", SCOPES, now=0.0)
    with pytest.raises(TokensError, match="cannot be written"):
        revoke_token(file, "anna")
    assert fired == [1, 1]
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_writer_that_was_killed_is_named_to_the_next(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_token(file, "anna", SCOPES, now=0.0)
    lock = file.with_name("tokens.json.lock")
    lock.touch()
    monkeypatch.setattr(tokens, "WRITER_SECONDS", 0.05)
    with pytest.raises(TokensError, match=re.escape(str(lock))):
        add_token(file, "ben", SCOPES, now=0.0)
    assert [token.name for token in read_tokens(file)] == ["anna"]


def test_a_broken_file_is_not_written_over(file: Path) -> None:
    add_token(file, "anna", SCOPES, now=0.0)
    entry = json.loads(file.read_text())["tokens"][0]
    twice = json.dumps({"version": 1, "tokens": [entry, entry]})
    for damage in ("{", twice, json.dumps({"version": 1, "tokens": [entry | {"scopes": ["mj:all"]}]}), " " * (2 << 20)):
        file.write_text(damage)
        with pytest.raises(TokensError, match="is not a token file"):
            add_token(file, "ben", SCOPES, now=0.0)
        assert file.read_text() == damage


@pytest.mark.parametrize("name", ["", " anna", "an na", "-anna", "a" * 65, "anna\n", "\u00e4nna", "../anna"])
def test_a_name_is_plain(name: str, file: Path) -> None:
    with pytest.raises(TokensError, match="is not a name for a token"):
        add_token(file, name, SCOPES, now=0.0)
    assert not file.exists()


# --- the commands


async def test_a_token_is_made_listed_and_revoked_by_commands(tmp_path: Path) -> None:
    """Without the proxy's key: who gives logins out need not have it."""
    file = tmp_path / "here.json"
    env = {"MJ_HTTP_TOKENS": str(file)}
    assert (await run(tmp_path, "tokens", "list", env=env)).stdout == "No tokens.\n"
    made = await run(tmp_path, "tokens", "add", "anna", "--scope", "mj:read", env=env)
    assert made.returncode == 0
    token = made.stdout.strip()
    assert re.fullmatch(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}", token)
    assert token not in made.stderr
    assert str(file) in made.stderr
    found = TokenFile(file).find(token)
    assert found is not None
    assert found.scopes == (READ,)
    listed = await run(tmp_path, "tokens", "list", env=env)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  anna +mj:read\n", listed.stdout)
    again = await run(tmp_path, "tokens", "add", "anna", env=env)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "mj-mcp: there is a token named anna: revoke it first to make a new one\n"
    revoked = await run(tmp_path, "tokens", "revoke", "anna", env=env)
    assert revoked.stdout.startswith("The token of anna is revoked.\nNo token is left")
    assert TokenFile(file).find(token) is None
    absent = await run(tmp_path, "tokens", "revoke", "anna", env=env)
    assert (absent.returncode, absent.stderr) == (1, "mj-mcp: there is no token named anna\n")


async def test_a_token_file_that_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, code in (("folder", 1), ("relative", 2)):
        env = {"MJ_HTTP_TOKENS": str(tmp_path / path) if code == 1 else path}
        done = await run(tmp_path, "tokens", "list", env=env)
        assert done.returncode == code
        assert done.stderr.startswith("mj-mcp: ")
        assert len(done.stderr.splitlines()) == 1
