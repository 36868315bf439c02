"""What one replica keeps another finds, in a shared folder as in a bucket."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from archives import at, png, store
from buckets import BucketServer
from PIL import Image

from mj_mcp.archive.folder import SHEET, What
from mj_mcp.archive.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["folder", "bucket"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], AbstractAsyncContextManager[Store]]:
    """`opened("a")`: the store of replica a. All share a folder, or have one each and share a bucket."""
    if request.param == "folder":
        return lambda _replica: store(tmp_path / "shared")
    for name, value in bucket_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket_name = bucket_server.new()
    return lambda replica: store(tmp_path / replica, at(bucket_name))


Opened = Callable[[str], AbstractAsyncContextManager[Store]]


async def test_what_one_replica_keeps_another_finds(opened: Opened) -> None:
    """The first one has left: a stop sends what is owed."""
    async with opened("a") as ours:
        assert await ours.get("sub", 1) is None
        path = await ours.put("sub", 1, png(1), "png")
        assert path.read_bytes() == png(1)
        await ours.put("sub", SHEET, png(2), "png")
    async with opened("b") as theirs:
        kept: list[tuple[What, bytes]] = [(1, png(1)), (SHEET, png(2))]
        for what, data in kept:
            found = await theirs.get("sub", what)
            assert found is not None
            assert found.data == data
            assert found.path is not None
            assert found.path.read_bytes() == data
            assert (found.info.media_type, found.info.width) == ("image/png", 16)
        assert await theirs.get("sub", 2) is None
        assert await theirs.get("su", 1) is None


async def test_a_later_picture_replaces_an_earlier_one_of_its_id(opened: Opened) -> None:
    gif = io.BytesIO()
    Image.new("L", (8, 8)).save(gif, "GIF")
    for data, extension in ((png(1), "png"), (gif.getvalue(), "gif")):
        async with opened("a") as ours:
            await ours.put("sub", 1, data, extension)
    async with opened("b") as theirs:
        found = await theirs.get("sub", 1)
        assert found is not None
        assert found.info.media_type == "image/gif"


async def test_ids_that_no_file_could_have_stay_apart_and_inside(opened: Opened) -> None:
    ids = ["a/b", "a_b", "../a", ".", "x" * 300, "x" * 301, "é", "a+1"]
    async with opened("a") as ours:
        for number, one in enumerate(ids):
            await ours.put(one, 1, png(number), "png")
    async with opened("b") as theirs:
        for number, one in enumerate(ids):
            found = await theirs.get(one, 1)
            assert found is not None
            assert found.data == png(number)


async def test_a_picture_that_is_none_is_not_found(opened: Opened) -> None:
    async with opened("a") as ours:
        await ours.put("sub", 1, png(1)[:40], "png")
    async with opened("b") as theirs:
        assert await theirs.get("sub", 1) is None
        await theirs.put("sub", 1, png(1), "png")  # as when it was fetched anew
    async with opened("c") as others:
        assert await others.get("sub", 1) is not None
