"""The settings: read once from the environment, frozen, each with the description that docs/settings.md prints.

Only this package reads the environment. Knows nothing of what the settings are used for.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from platformdirs import user_data_path, user_pictures_path
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mj_mcp.settings.pasted import (
    check_archive_url,
    check_database_url,
    passwords_in,
    pasted_base_url,
    pasted_key,
    pasted_public_url,
)
from mj_mcp.settings.wording import must_be
from mj_mcp.urls import is_safe, parts_of

_FLAG_NAME = re.compile(r"[a-z]+([-_]+[a-z]+)*")

MIN_SECRET_CHARACTERS = 32
"""For the secret that signs links."""


class SettingsError(Exception):
    """Names each variable that is not usable and says what is allowed: one sentence each, in `problems`."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """The settings, as `MJ_...` environment variables."""

    model_config = SettingsConfigDict(env_prefix="MJ_", frozen=True, extra="ignore", env_ignore_empty=True)

    api_key: SecretStr = Field(
        SecretStr(""),
        description="The key of the Midjourney Proxy; sent to the configured host only.",
    )
    base_url: str = Field(
        "https://cubicspaces.cloud",
        description="The URL of the proxy. It may have a path; the API's `/mj/...` (`/v1/...` of `job`) is appended.",
    )
    proxy_dialect: Literal["auto", "gateway", "classic", "plus", "newapi", "job"] = Field(
        "auto",
        description="The kind of proxy: `gateway`, `classic` (novicezk), `plus` (trueai-org), `newapi` (new-api, most "
        "relays) or `job` (Legnext). `auto` finds out the first four by a free request; `mj-mcp doctor` tells.",
    )
    proxy_auth: Literal["auto", "bearer", "secret"] = Field(
        "auto",
        description="How the key is sent: `bearer` (`Authorization: Bearer ...`) or `secret` (`mj-api-secret: ...`). "
        "`auto` follows the kind of proxy.",
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("mj-mcp", appauthor=False),
        description="The folder of the journal and the archive (mode 0700). Default: the user's data folder.",
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="`postgresql://user:password@host/database` for several replicas (needs the extra `[postgres]`). "
        "Default: SQLite in the data folder.",
    )
    output_dir: Path = Field(
        default_factory=lambda: user_pictures_path() / "mj-mcp",
        description="The folder for saved pictures. Default: `mj-mcp` in the user's pictures folder.",
    )
    input_dir: Path | None = Field(
        None,
        description="A folder whose pictures (PNG, JPEG, WebP, GIF) may be used in `image_urls`, by every caller of "
        "this server. Default: none; a person at this machine can also use files in the output folder.",
    )
    wait_seconds: Annotated[float, Field(ge=0, le=600)] | None = Field(
        None, description="Seconds that a call waits without `wait_seconds`. Default: as long as the host allows."
    )
    poll_seconds: float = Field(
        5.0,
        ge=0.5,
        le=300,
        description="Seconds between two polls of a running task. In total, there are no more than in a fixed loop.",
    )
    max_polls_per_second: int = Field(
        50, ge=1, le=10_000, description="The most polls per second, over all tasks of this process."
    )
    max_open_tasks: int = Field(
        10, ge=1, le=10_000, description="The most open tasks of this account, over all processes."
    )
    daily_task_limit: int | None = Field(None, ge=0, description="The most submits per UTC day. Default: no limit.")
    max_open_tasks_per_user: int | None = Field(
        None, ge=1, le=10_000, description="The most open tasks of each caller who logs in. Default: no limit."
    )
    daily_task_limit_per_user: int | None = Field(
        None, ge=0, description="The most submits per UTC day of each caller who logs in. Default: no limit."
    )
    read_only: bool = Field(False, description="1 removes every tool that costs money.")
    archive: bool = Field(True, description="0 does not archive the originals of finished pictures.")
    archive_url: str = Field(
        "",
        description="Where replicas keep shared originals: `file:///folder`, or `s3://bucket/prefix` (needs the extra "
        "`[s3]`; endpoint, region and credentials as in the standard `AWS_...` variables). Default: `archive` in the "
        "data folder.",
    )
    archive_max_bytes: int = Field(
        5 * 1024**3,
        ge=0,
        description="The size limit of the archive's folder, in bytes; the least recently used files are removed. With "
        "a bucket, the folder is its cache.",
    )
    image_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="Hosts from which pictures may be fetched, separated by commas (`cdn.example.com, *.example.org`), "
        "besides the proxy's own. Default: any public host.",
    )
    extra_flags: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="Midjourney flags that are allowed in prompts without a check, separated by commas (`test, sv`), "
        "for flags that this version does not know yet. Default: none.",
    )
    resource_links: bool = Field(
        False, description="1 adds resource links to results. Several frameworks fail on them after a paid success."
    )
    inline_images: bool = Field(
        True, description="0 removes pictures from all results except `view_image`'s, for frameworks that print base64."
    )
    image_format: Literal["webp", "jpeg", "png"] = Field(
        "webp", description="The format of sheets and views: webp, jpeg or png."
    )
    view: bool = Field(
        True, description="0 offers no view to hosts with MCP Apps. Results are the same with and without it."
    )
    public_url: str = Field(
        "",
        description="The address by which callers reach `serve --http`, like `https://mcp.example.com`: used for links "
        "to pictures, for OAuth metadata, and as an allowed `Host`. Required where others can reach the server. "
        "Default: the address in each request.",
    )
    http_allowed_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="More host names for `serve --http` (the `Host` of a request), separated by commas; a name without "
        "a port allows any port. Default: that of `MJ_PUBLIC_URL`, or `127.0.0.1, localhost, [::1]`.",
    )
    http_allowed_origins: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="Web pages that may use `serve --http` from a browser, by origin (`https://app.example.com`), "
        "separated by commas. Default: only its own.",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="The secret that signs the picture links of `serve --http`: at least 32 characters, the same for "
        "all servers that share a database. Default: a secret made in the data folder.",
    )
    http_max_body_bytes: int = Field(1024**2, ge=1024, description="The size limit of one HTTP request, in bytes.")
    http_max_sessions: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="The most sessions of older HTTP clients. For a new one, the longest idle session of the login "
        "with the most sessions ends.",
    )
    http_session_seconds: float = Field(
        1800, ge=1, le=86_400, description="How long such a session may be idle before it ends."
    )
    http_tokens: Path | None = Field(
        None, description="The token file of `mj-mcp tokens`. Default: `tokens.json` in the data folder."
    )
    auth_issuer: str = Field(
        "",
        description="The OAuth 2.1 issuer whose JWTs `serve --http` accepts, exactly as in `iss`; its keys are found "
        "through its metadata. Default: none.",
    )
    auth_audience: str = Field(
        "",
        validate_default=True,
        description="The audience (`aud`) of those JWTs. Default: `MJ_PUBLIC_URL` followed by `/mcp`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The lowest level to log.")
    log_format: Literal["json", "console", "auto"] = Field(
        "auto", description="`json` lines or `console` text on stderr; `auto` is console on a terminal, else json."
    )

    @field_validator("api_key")
    @classmethod
    def _plain_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        return SecretStr(pasted_key(text)) if text else key

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        return pasted_base_url(url)

    @field_validator("public_url")
    @classmethod
    def _callers_url(cls, url: str) -> str:
        return url and pasted_public_url(url)

    @field_validator("database_url")
    @classmethod
    def _postgresql_url(cls, url: SecretStr) -> SecretStr:
        check_database_url(url.get_secret_value())
        return url

    @field_validator("archive_url")
    @classmethod
    def _folder_or_bucket(cls, url: str) -> str:
        check_archive_url(url)
        return url

    @field_validator("auth_issuer")
    @classmethod
    def _safe_issuer(cls, url: str) -> str:
        parts = parts_of(url)
        if url and not is_safe(url):
            raise ValueError("it must be an https:// URL (http:// only on this machine itself)")
        if parts.username or "?" in url or "#" in url:
            raise ValueError("it must not have a user name, a query or a fragment")
        return url

    @field_validator("auth_audience")
    @classmethod
    def _audience_of_issuer(cls, audience: str, info: ValidationInfo) -> str:
        public_url = info.data.get("public_url")
        audience = audience.strip() or (f"{public_url}/mcp" if public_url else "")
        if info.data.get("auth_issuer") and not public_url and parts_of(audience).scheme not in {"http", "https"}:
            raise ValueError("with MJ_AUTH_ISSUER, set MJ_PUBLIC_URL, or give the URL of this server's /mcp here")
        return audience

    @field_validator("data_dir", "output_dir", "input_dir", "http_tokens")
    @classmethod
    def _same_from_everywhere(cls, path: Path | None) -> Path | None:
        if path is None:
            return path
        path = path.expanduser()  # a host starts servers without a shell
        if not path.is_absolute():
            raise ValueError("it must be an absolute path, since a host chooses the current folder")
        return path

    @field_validator("image_hosts", "extra_flags", "http_allowed_hosts", "http_allowed_origins", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return (
            frozenset(name.strip().lower() for name in value.split(",") if name.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("extra_flags")
    @classmethod
    def _flag_names(cls, names: frozenset[str]) -> frozenset[str]:
        names = frozenset(name.lstrip("-") for name in names)
        if not all(_FLAG_NAME.fullmatch(name) for name in names):
            raise ValueError("it must be flag names in letters, like `test, sv`")
        return names

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"it must have at least {MIN_SECRET_CHARACTERS} characters")
        return key

    @field_validator("http_allowed_hosts")
    @classmethod
    def _names(cls, hosts: frozenset[str]) -> frozenset[str]:
        for host in hosts:
            if urlsplit(f"//{host}").netloc != host or "*" in host or "@" in host:
                raise ValueError("it must be names like mcp.example.com or mcp.example.com:8443, without * or /")
        return hosts

    @field_validator("http_allowed_origins")
    @classmethod
    def _origins(cls, origins: frozenset[str]) -> frozenset[str]:
        for origin in origins:
            scheme, _, netloc = origin.partition("://")
            if not scheme or not netloc or "*" in origin or urlsplit(origin).netloc != netloc:
                raise ValueError("it must be origins like https://app.example.com, without *, null or a path")
        return origins

    @field_validator("proxy_dialect", "proxy_auth", "log_level", "log_format", "image_format", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def has_key(self) -> bool:
        """Whether a key is set."""
        return bool(self.api_key.get_secret_value())

    @property
    def token_file(self) -> Path:
        """The path of the token file of `serve --http`."""
        return self.http_tokens or self.data_dir / "tokens.json"

    @property
    def archive_folder(self) -> Path:
        """The folder of the originals; with a bucket, of the local copies."""
        parts = urlsplit(self.archive_url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else self.data_dir / "archive"

    @property
    def bucket_url(self) -> str:
        """`s3://bucket/prefix`, or "" if there is none."""
        return self.archive_url if urlsplit(self.archive_url).scheme == "s3" else ""

    @property
    def bucket_over_http(self) -> bool:
        """Whether the operator's endpoint has no TLS. If several are set, the library uses the first."""
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
        return next(filter(None, map(os.environ.get, names)), "").lower().startswith("http://")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must never leave this process."""
        key = [self.secret_key.get_secret_value()] if self.secret_key else []
        bucket = [found for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN") if (found := os.environ.get(name))]
        api_key = [self.api_key.get_secret_value()] if self.has_key else []
        return (*api_key, *key, *bucket, *passwords_in(self.database_url.get_secret_value()))

    @property
    def account(self) -> str:
        """The name of the account. It does not reveal the key. Tasks of two accounts never mix."""
        text = f"{self.base_url}\n{self.api_key.get_secret_value()}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_settings(**overrides: Any) -> Settings:  # noqa: ANN401 - the fields of Settings
    """The settings from the environment; `overrides` win.

    Raises:
        SettingsError: variables are not valid; it names each. The values are never shown.
    """
    try:
        return Settings(**overrides)
    except ValidationError as failure:
        errors = failure.errors(include_url=False, include_input=False)
        said = {f"MJ_{str(error['loc'][0]).upper()}": must_be(error) for error in reversed(errors)}
        problems = [f"{variable} is not usable: {words}" for variable, words in reversed(said.items())]
        raise SettingsError(*problems) from None
