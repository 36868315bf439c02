"""What the commands of every file share: the settings, or a line that says what is wrong with them, and the way out."""

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
        fail("MJ_API_KEY is not set. `mj-mcp demo` shows everything without a key.", EXIT_SETTINGS)
    return settings


def fail(line: str, code: int) -> NoReturn:
    """Say what is wrong in one line, and end."""
    print(f"mj-mcp: {line}", file=sys.stderr)
    sys.exit(code)
