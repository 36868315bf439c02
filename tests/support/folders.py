"""Originals to write, and what lies in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mj_mcp.pictures import Original

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, modes and links")


def original(task_id: str = "1700000000000001", index: int = 1, data: bytes = b"picture", **more: str) -> Original:
    return Original(task_id, index, data, "png", "image/png", **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
