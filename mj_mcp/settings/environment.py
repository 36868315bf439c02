"""Which `MJ_...` variables are set, known or not, and which variables move the configuration of a host.

Owns the reading. Does not know what the hosts are.
"""

from __future__ import annotations

import os

from mj_mcp.settings import Settings

VARIABLE_PREFIX = "MJ_"

_FOLDERS = ("APPDATA", "XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME")


def variables() -> dict[str, str]:
    """Every setting that is set, by the name of its variable, in the order of the settings."""
    names = [f"{VARIABLE_PREFIX}{field.upper()}" for field in Settings.model_fields]
    found = {name.upper(): value for name, value in os.environ.items() if value}
    return {name: found[name] for name in names if name in found}


def unknown_variables() -> dict[str, str]:
    """Every `MJ_...` variable that is no setting, with the name of the nearest setting or ""."""
    import difflib  # noqa: PLC0415 - only who misspelt something pays for it

    known = [f"{VARIABLE_PREFIX}{field.upper()}" for field in Settings.model_fields]
    odd = sorted(name for name in os.environ if name.upper().startswith(VARIABLE_PREFIX) and name.upper() not in known)
    return {name: next(iter(difflib.get_close_matches(name.upper(), known, 1)), "") for name in odd}


def folders() -> dict[str, str]:
    """The variables that move the configuration of a host, where they are set."""
    return {name: value for name in _FOLDERS if (value := os.environ.get(name))}
