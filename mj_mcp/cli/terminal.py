"""Helpers of all commands: read the settings or print what is wrong with them, and exit with an error."""

from __future__ import annotations

import sys
from typing import NoReturn

from mj_mcp.settings import Settings, SettingsError, read_settings

EXIT_SETTINGS = 2


def settings_or_exit(*, needs_key: bool = True) -> Settings:
    """The settings from the environment."""
    try:
        settings = read_settings()
    except SettingsError as failure:
        fail(f"{failure}. The README lists the settings.", EXIT_SETTINGS)
    if needs_key and not settings.has_key:
        fail("MJ_API_KEY is not set. `mj-mcp demo` works without a key.", EXIT_SETTINGS)
    return settings


def fail(line: str, code: int) -> NoReturn:
    """Print one line to stderr, and exit."""
    print(f"mj-mcp: {line}", file=sys.stderr)
    sys.exit(code)
