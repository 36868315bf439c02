"""Stores of originals with a folder and a bucket, and a picture to put in.

A plugin of pytest: its fixtures are there for every test.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from buckets import BucketServer
from conftest import Caller
from PIL import Image

from mj_mcp.archive.bucket import Bucket, open_bucket
from mj_mcp.archive.store import UPLOAD_RETRY_SECONDS, Store
from mj_mcp.background import Background
from mj_mcp.pictures import PictureWorkers
from mj_mcp.simulator import Simulator

PATIENCE = 20.0
ROOM = 10**8


def png(shade: int, edge: int = 16) -> bytes:
    data = io.BytesIO()
    Image.new("L", (edge, edge), shade).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def bucket_name(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, which this process can open too."""
    for name, value in bucket_server.environment().items():
        monkeypatch.setenv(name, value)
    return bucket_server.new()


@asynccontextmanager
async def store(
    folder: Path, bucket: Bucket | None = None, room: int = ROOM, retry_seconds: float = UPLOAD_RETRY_SECONDS
) -> AsyncIterator[Store]:
    async with (
        PictureWorkers() as workers,
        Store(folder, room, workers=workers, bucket=bucket, retry_seconds=retry_seconds) as opened,
        Background() as background,
    ):
        if bucket is not None:
            background.start("archive", opened.send)
        yield opened


def at(bucket_name: str, **seconds: float) -> Bucket:
    return open_bucket(f"s3://{bucket_name}/some/where", over_http=True, **seconds)


def unsent(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "unsent").glob("*+*"))


async def finished(sim: Simulator, caller: Caller) -> dict[str, Any]:
    """A grid that has succeeded, as its caller sees it."""
    task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
    sim.finish(task["task_id"])
    return await caller.task("get_task", task_id=task["task_id"], wait_seconds=15)
