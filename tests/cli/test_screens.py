"""docs/screens.md is what the commands print."""

from __future__ import annotations

import sys

import pytest
from screens import PAGE, page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the page was written on Linux, with its folders"),
]


async def test_the_page_shows_what_the_commands_print() -> None:
    assert await page() == PAGE.read_text(encoding="utf-8"), "`make screens` writes it anew"
