"""The archive's folder: it gives back what it was given, and stays under its ceiling."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from folders import names

from mj_mcp.archive.folder import SHEET, Archive


def test_the_archive_gives_back_what_it_was_given(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", 10**6)
    assert archive.get("sub", 1) is None
    path = archive.put("sub", 1, b"one", "webp")
    assert archive.get("sub", 1) == path
    assert path.read_bytes() == b"one"
    assert archive.get("sub", 2) is None
    assert archive.get("sub", SHEET) is None
    sheet = archive.put("sub", SHEET, b"sheet", "webp")
    assert archive.get("sub", SHEET) == sheet
    assert Archive(tmp_path / "archive", 10**6).get("sub", 1) == path


def test_a_second_put_replaces_also_under_another_extension(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 10**6)
    archive.put("sub", 1, b"old", "png")
    path = archive.put("sub", 1, b"new", "jpg")
    assert archive.get("sub", 1) == path
    assert names(tmp_path) == ["sub+1.jpg"]


def test_the_least_recently_used_is_dropped_first(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 300)
    for used, name in enumerate("abc"):
        os.utime(archive.put(name, 1, bytes(100), "png"), (used, used))
    assert archive.get("a", 1)
    archive.put("d", 1, bytes(100), "png")
    assert [name for name in "abcd" if archive.get(name, 1)] == ["a", "c", "d"]


def test_the_picture_just_kept_survives_even_a_tiny_ceiling(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 10)
    archive.put("a", 1, bytes(100), "png")
    path = archive.put("b", 1, bytes(100), "png")
    assert names(tmp_path) == [path.name]


def test_foreign_files_are_neither_counted_nor_dropped(tmp_path: Path) -> None:
    foreign = ["notes.txt", "holiday.png", "x+1.png.json", "+1.png", "x+1.exe"]
    for name in foreign:
        (tmp_path / name).write_bytes(bytes(10_000))
    (tmp_path / "dir+1.png").mkdir()
    (tmp_path / "link+1.png").symlink_to(tmp_path / "notes.txt")
    archive = Archive(tmp_path, 100)
    archive.put("a", 1, bytes(60), "png")
    archive.put("b", 1, bytes(60), "png")
    assert set(foreign) | {"dir+1.png", "link+1.png", "b+1.png"} == set(names(tmp_path))
    assert archive.get("link", 1) is None
    assert archive.get("dir", 1) is None


def test_files_that_vanish_are_missing_and_no_error(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", 10**6)
    archive.put("a", 1, b"x", "png").unlink()
    assert archive.get("a", 1) is None
    shutil.rmtree(tmp_path / "archive")
    assert archive.get("a", 1) is None
    assert archive.put("a", 1, b"x", "png").exists()


def test_ids_that_are_alike_on_disk_do_not_share_a_file(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 10**6)
    ids = ["a:b", "a_b", "a/b", "../a", "x" * 300, "x" * 301]
    for number, one in enumerate(ids):
        archive.put(one, 1, b"%d" % number, "png")
    found = [path.read_bytes() for one in ids if (path := archive.get(one, 1))]
    assert found == [b"%d" % number for number in range(len(ids))]
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))


def test_only_our_formats_are_archived(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 'svg'"):
        Archive(tmp_path, 1).put("a", 1, b"x", "svg")
