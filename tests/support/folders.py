"""Originals to write, and what lies in a folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mj_mcp.pictures import Original

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, modes and links")


def original(task_id: str = "1700000000000001", index: int = 1, data: bytes = b"picture", **more: str) -> Original:
    return Original(task_id, index, data, "png", "image/png", **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond `limit` bytes: writes stop half way, as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits of processes are of POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
