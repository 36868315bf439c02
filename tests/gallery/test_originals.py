"""What is kept is checked by its digest, held in memory a few at a time, and read off the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from galleries import Alive, Clock, Host, Opened, Weighed, opened, png, task

from mj_mcp.gallery.sheets import FETCHES_AT_ONCE, SHEET_READS_AT_ONCE
from mj_mcp.tasks import Task

pytestmark = pytest.mark.anyio


async def kept(at: Opened, number: int = 1) -> Task:
    """A task that has just been archived."""
    await at.add(task(number, 1_800_000_000.0))
    await at.gallery._sheets.make(task(number, 1_800_000_000.0))
    at.workers.inspected = 0
    return await at.row(f"sub_{number}")


async def test_a_kept_original_is_checked_by_its_digest_and_not_decoded(tmp_path: Path) -> None:
    host = Host()
    async with opened(tmp_path, host, Clock()) as at:
        done = await kept(at)
        (image,) = done.images
        assert (image.size, len(image.sha256 or "")) == (len(host.picture), 64)
        picture = await at.gallery.original(done, 1)
        assert (picture.data, picture.info.width) == (host.picture, 32)
        file = await at.gallery.file(done, 1)
        assert (file.content, file.sha256, file.media_type) == (Path(image.path or ""), image.sha256, "image/png")
        assert at.workers.inspected == 0
        assert len(host.asked) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: data[:40] + b"damage" + data[46:]])
async def test_a_damaged_original_is_fetched_anew(damage: Any, tmp_path: Path) -> None:
    host = Host()
    async with opened(tmp_path, host, Clock()) as at:
        done = await kept(at)
        path = Path(done.images[0].path or "")
        path.write_bytes(damage(host.picture))
        assert (await at.gallery.file(done, 1)).content == path
        assert path.read_bytes() == host.picture
        assert len(host.asked) == 2


async def test_an_original_of_an_older_version_is_decoded_once_and_known_from_then_on(tmp_path: Path) -> None:
    host = Host()
    async with opened(tmp_path, host, Clock()) as at:
        done = await kept(at)

        def older(known: Task) -> Task:
            return replace(known, images=tuple(replace(image, size=None, sha256=None) for image in known.images))

        old = await at.journal.update(done.submission_id, older)
        for _ in range(3):
            file = await at.gallery.file(await at.row(old.submission_id), 1)
            assert file.content == Path(done.images[0].path or "")
        assert at.workers.inspected == 1
        assert await at.row(old.submission_id) == done
        assert len(host.asked) == 1


async def test_another_whole_picture_of_its_name_is_taken_for_it_and_its_digest_noted(tmp_path: Path) -> None:
    """Two processes may have fetched different bytes of one picture: what was paid for is never thrown away."""
    host = Host()
    async with opened(tmp_path, host, Clock()) as at:
        done = await kept(at)
        Path(done.images[0].path or "").write_bytes(png(200, 64))
        picture = await at.gallery.original(done, 1)
        assert (picture.data, picture.info.width) == (png(200, 64), 64)
        (image,) = (await at.row(done.submission_id)).images
        assert (image.width, image.size, image.sha256) == (64, len(picture.data), picture.sha256)
        assert len(host.asked) == 1


async def test_of_sixty_tasks_that_end_together_a_few_originals_are_held_at_once(tmp_path: Path) -> None:
    clock = Clock()
    tasks = [task(number, clock.now, pictures=4) for number in range(1, 61)]
    async with opened(tmp_path, Weighed(), clock) as at:
        await at.add(*tasks)
        for one in tasks:
            at.gallery.keep(one)
        await asyncio.wait([at.gallery._sheets.make(one) for one in tasks])
        assert len(await at.archived()) == 60
        assert FETCHES_AT_ONCE <= Alive.most <= FETCHES_AT_ONCE + SHEET_READS_AT_ONCE
        assert Alive.now <= 1


async def test_which_files_are_gone_is_never_asked_on_the_event_loop_and_seldom_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, Host(), Clock()) as at:
        done = await kept(at)
        path = str(done.images[0].path)
        asked: list[bool] = []
        stat = os.stat

        def watched(file: Any, *rest: Any, **more: Any) -> os.stat_result:
            if str(file) == path:
                asked.append(threading.current_thread() is threading.main_thread())
            return stat(file, *rest, **more)

        monkeypatch.setattr(os, "stat", watched)
        for _ in range(100):
            assert await at.gallery.present(done) == done
        assert len(asked) in range(1, 20)
        assert not any(asked)


async def test_the_path_of_a_file_that_is_gone_is_not_shown(tmp_path: Path) -> None:
    async with opened(tmp_path, Host(), Clock()) as at:
        done = await kept(at)
        Path(done.images[0].path or "").unlink()
        assert [image.path for image in (await at.gallery.present(done)).images] == [None]
