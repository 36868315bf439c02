"""Settings: read once, frozen, and a key that cannot print itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mj_mcp.settings import Settings, SettingsError, read_settings
from mj_mcp.settings.environment import unknown_variables

SECRET = "canary-5f1b-secret"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_API_KEY", SECRET)


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_MAX_OPEN_TASKS", "3")
    settings = read_settings()
    monkeypatch.setenv("MJ_MAX_OPEN_TASKS", "4")
    assert settings.max_open_tasks == 3


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read_settings().max_open_tasks = 5  # type: ignore[misc]  # what a type checker refuses, too


def test_the_key_cannot_print_itself() -> None:
    settings = read_settings()
    for text in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        f"{settings!s}",
    ):
        assert SECRET not in text
    assert settings.api_key.get_secret_value() == SECRET


def test_the_defaults_are_the_published_ones() -> None:
    settings = read_settings()
    assert settings.model_dump(exclude={"api_key", "data_dir", "output_dir"}) == {
        "base_url": "https://cubicspaces.cloud",
        "proxy_dialect": "auto",
        "proxy_auth": "auto",
        "input_dir": None,
        "database_url": SecretStr(""),
        "wait_seconds": None,
        "poll_seconds": 5.0,
        "max_polls_per_second": 50,
        "max_open_tasks": 10,
        "daily_task_limit": None,
        "max_open_tasks_per_user": None,
        "daily_task_limit_per_user": None,
        "secret_key": None,
        "read_only": False,
        "archive": True,
        "archive_url": "",
        "archive_max_bytes": 5 * 1024**3,
        "image_hosts": frozenset(),
        "extra_flags": frozenset(),
        "resource_links": False,
        "inline_images": True,
        "image_format": "webp",
        "view": True,
        "public_url": "",
        "http_allowed_hosts": frozenset(),
        "http_allowed_origins": frozenset(),
        "http_max_body_bytes": 1024**2,
        "http_max_sessions": 1000,
        "http_session_seconds": 1800.0,
        "http_tokens": None,
        "auth_issuer": "",
        "auth_audience": "",
        "log_level": "info",
        "log_format": "auto",
    }
    assert settings.data_dir.name == "mj-mcp"
    assert settings.output_dir.name == "mj-mcp"
    assert settings.output_dir.is_absolute(), "never the current folder, which a host chooses"


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts fill in empty strings for what a person left out."""
    for name in Settings.model_fields:
        if name != "api_key":
            monkeypatch.setenv(f"MJ_{name.upper()}", "")
    assert read_settings().model_dump() == read_settings(_env_ignore_empty=True).model_dump()
    assert read_settings().poll_seconds == 5.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MJ_API_KEY", f"{SECRET}\u00e9"),
        ("MJ_API_KEY", f"{SECRET} {SECRET}"),
        ("MJ_API_KEY", f"{SECRET}\n{SECRET}"),
        ("MJ_API_KEY", "  "),
        ("MJ_API_KEY", "''"),
        ("MJ_API_KEY", "Bearer "),
        ("MJ_API_KEY", f"${{{SECRET}}}"),
        ("MJ_API_KEY", f"Bearer ${{input:{SECRET}}}"),
        ("MJ_BASE_URL", f"https://host/{SECRET} /path"),
        ("MJ_BASE_URL", f"https://host/\n{SECRET}"),
        ("MJ_BASE_URL", f"https://${{{SECRET}}}/path"),
        ("MJ_BASE_URL", f"${{{SECRET}}}"),
        ("MJ_BASE_URL", f"ftp://{SECRET}"),
        ("MJ_BASE_URL", f"https://user:{SECRET}@host"),
        ("MJ_BASE_URL", f"https://host?key={SECRET}"),
        ("MJ_BASE_URL", f"https://host:{SECRET}"),
        ("MJ_BASE_URL", f"https://[{SECRET}"),
        ("MJ_BASE_URL", SECRET),
        ("MJ_DATABASE_URL", f"mysql://user:{SECRET}@host/db"),
        ("MJ_DATABASE_URL", f"postgresql://user:{SECRET}@host:{SECRET}/db"),
        ("MJ_DATABASE_URL", f"postgresql:///{SECRET}"),
        ("MJ_DATABASE_URL", f"postgresql://user:pass#{SECRET}@host/db"),
        ("MJ_DATABASE_URL", SECRET),
        ("MJ_DATA_DIR", f"{SECRET}/relative"),
        ("MJ_HTTP_TOKENS", f"{SECRET}/relative"),
        ("MJ_AUTH_ISSUER", f"http://{SECRET}.example.com"),
        ("MJ_AUTH_ISSUER", f"https://user:{SECRET}@login.example.com"),
        ("MJ_AUTH_ISSUER", f"https://login.example.com?{SECRET}"),
        ("MJ_AUTH_ISSUER", f"https://[{SECRET}"),
        ("MJ_AUTH_ISSUER", SECRET),
        ("MJ_OUTPUT_DIR", "."),
        ("MJ_WAIT_SECONDS", "601"),
        ("MJ_WAIT_SECONDS", "-1"),
        ("MJ_WAIT_SECONDS", "nan"),
        ("MJ_WAIT_SECONDS", SECRET),
        ("MJ_POLL_SECONDS", "0.1"),
        ("MJ_POLL_SECONDS", "nan"),
        ("MJ_MAX_OPEN_TASKS", "0"),
        ("MJ_MAX_OPEN_TASKS", SECRET),
        ("MJ_DAILY_TASK_LIMIT", "-1"),
        ("MJ_READ_ONLY", SECRET),
        ("MJ_EXTRA_FLAGS", f"{SECRET}!"),
        ("MJ_EXTRA_FLAGS", "--"),
        ("MJ_RESOURCE_LINKS", SECRET),
        ("MJ_LOG_LEVEL", SECRET),
        ("MJ_LOG_FORMAT", SECRET),
    ],
)
def test_a_bad_value_names_its_variable_and_is_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    said = str(caught.value)
    assert said.startswith(f"{name} is not usable: ")
    assert "\n" not in said
    assert SECRET not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_password_of_a_database_is_a_secret_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_DATABASE_URL", "postgresql://me:p%40ss-word@host/db?password=other%2Fone")
    settings = read_settings()
    assert set(settings.secrets) == {SECRET, "p%40ss-word", "p@ss-word", "other/one"}
    assert "ss-word" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("audience", [None, "", "  ", "pictures"])
def test_an_issuer_needs_the_address_of_this_server(audience: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens for another service are no logins here, and clients are given the address."""
    monkeypatch.setenv("MJ_AUTH_ISSUER", "https://login.example.com")
    if audience is not None:
        monkeypatch.setenv("MJ_AUTH_AUDIENCE", audience)
    with pytest.raises(SettingsError, match=r"^MJ_AUTH_AUDIENCE is not usable: "):
        read_settings()
    monkeypatch.setenv("MJ_PUBLIC_URL", "https://mcp.example.com")
    assert read_settings().auth_audience == ("pictures" if audience == "pictures" else "https://mcp.example.com/mcp")
    monkeypatch.delenv("MJ_PUBLIC_URL")
    monkeypatch.setenv("MJ_AUTH_AUDIENCE", "https://other.example.com/mcp")
    assert read_settings().auth_audience == "https://other.example.com/mcp"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://mcp.example.com", "https://mcp.example.com"),
        ("https://MCP.example.com:8443/", "https://mcp.example.com:8443"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com"),
        (" 'https://mcp.example.com/pictures/mcp/' ", "https://mcp.example.com/pictures"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_public_url_is_kept_without_the_endpoint(given: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_PUBLIC_URL", given)
    assert read_settings().public_url == kept


NO_PUBLIC_URLS = [
    "mcp.example.com",
    "ftp://mcp.example.com",
    "https://",
    "https://me@mcp.example.com",
    "https://mcp.example.com?x=1",
    "https://mcp.example.com:port",
    "https://${HOST}",
]


@pytest.mark.parametrize("given", NO_PUBLIC_URLS)
def test_what_is_no_public_url_is_refused_by_name(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_PUBLIC_URL", given)
    with pytest.raises(SettingsError, match=r"^MJ_PUBLIC_URL is not usable: "):
        read_settings()


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_is_no_error(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server starts, and says of every call where to put it."""
    monkeypatch.delenv("MJ_API_KEY")
    if key is not None:
        monkeypatch.setenv("MJ_API_KEY", key)
    assert not read_settings().has_key


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://host", "https://host"),
        ("https://host/", "https://host"),
        ("https://host/mj", "https://host"),
        ("https://host/mj/", "https://host"),
        ("https://host/a/path/", "https://host/a/path"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://[::1]:8765", "http://[::1]:8765"),
        (" https://host\n", "https://host"),
        ('"https://host"', "https://host"),
        ("\ufeffhttps://host", "https://host"),
        ("https://host/mj/submit/imagine", "https://host"),
        ("https://host/mj-fast/mj", "https://host/mj-fast"),
        ("https://mj/mj", "https://mj"),
        ("HTTPS://Host", "HTTPS://Host"),
    ],
)
def test_a_base_url_may_be_written_in_several_ways(given: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_BASE_URL", given)
    assert read_settings().base_url == kept


@pytest.mark.parametrize(
    "given",
    [
        f" {SECRET} ",
        f"{SECRET}\n",
        f'"{SECRET}"',
        f"'{SECRET}'",
        f"\u201c{SECRET}\u201d",
        f"Bearer {SECRET}",
        f"bearer  {SECRET}",
        f"Authorization: Bearer {SECRET}",
        f'"Bearer {SECRET}"',
        f'Bearer "{SECRET}"',
        f" ' Bearer {SECRET}'\r\n",
        f"\ufeff{SECRET}",
    ],
)
def test_a_key_is_taken_as_it_is_copied(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    account = read_settings().account
    monkeypatch.setenv("MJ_API_KEY", given)
    settings = read_settings()
    assert settings.api_key.get_secret_value() == SECRET
    assert settings.account == account


def test_a_variable_that_nobody_has_filled_in_is_named_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_API_KEY", "${MJ_API_KEY}")
    with pytest.raises(
        SettingsError, match=r"^MJ_API_KEY is not usable: .*it contains a \$\{\.\.\.\} that was not filled in$"
    ):
        read_settings()


def test_words_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("MJ_LOG_FORMAT", "Console")
    assert (read_settings().log_level, read_settings().log_format) == ("warning", "console")


def test_extra_flags_may_be_written_with_their_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_EXTRA_FLAGS", "--Test, sv,, -new-one ")
    assert read_settings().extra_flags == {"test", "sv", "new-one"}


def test_a_home_in_a_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hosts start servers without a shell, which would have read the tilde."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MJ_DATA_DIR", "~/data")
    assert read_settings().data_dir == tmp_path / "data"


def test_an_account_is_one_host_and_one_key_and_does_not_tell_the_key() -> None:
    one = read_settings()
    assert one.account == read_settings().account
    assert one.account != read_settings(api_key="another").account
    assert one.account != read_settings(base_url="https://elsewhere").account
    assert SECRET not in one.account


def test_no_env_file_of_the_current_folder_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The current folder is the host's choice, and may be a stranger's checkout."""
    (tmp_path / ".env").write_text("MJ_BASE_URL=https://elsewhere\n")
    monkeypatch.chdir(tmp_path)
    assert read_settings().base_url == "https://cubicspaces.cloud"


def test_all_bad_values_are_reported_at_once_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {
        "MJ_BASE_URL": "ftp://x",
        "MJ_WAIT_SECONDS": "700",
        "MJ_POLL_SECONDS": "soon",
        "MJ_MAX_OPEN_TASKS": "1.5",
        "MJ_READ_ONLY": "perhaps",
        "MJ_LOG_LEVEL": "loud",
    }
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert caught.value.problems == (
        "MJ_BASE_URL is not usable: it must begin with http:// or https:// and name a host",
        "MJ_WAIT_SECONDS is not usable: it must be at most 600",
        "MJ_POLL_SECONDS is not usable: it must be a number",
        "MJ_MAX_OPEN_TASKS is not usable: it must be a whole number",
        "MJ_READ_ONLY is not usable: it must be 1 or 0",
        "MJ_LOG_LEVEL is not usable: it must be debug, info, warning or error",
    )


def test_a_misspelt_variable_is_named_with_the_nearest_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_POLL_SECOND", "5")
    monkeypatch.setenv("MJ_XYZZY", "5")
    found = unknown_variables()
    assert (found["MJ_POLL_SECOND"], found["MJ_XYZZY"]) == ("MJ_POLL_SECONDS", "")
    assert "MJ_POLL_SECONDS" not in found
