"""Files are whole or absent, inside the folder, under names we make; the archive stays under its ceiling."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mj_mcp.archive.folder import SHEET, Archive
from mj_mcp.errors import InvalidRequest, StorageUnavailable
from mj_mcp.files import TEMPORARY, new_file, safe_name, sweep_leftovers, write_new, write_whole
from mj_mcp.pictures import Original, save_originals
from mj_mcp.pictures.saving import open_folder

KILLS = int(os.environ.get("MJ_TEST_KILLS", "10"))
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, modes and links")


def original(task_id: str = "1700000000000001", index: int = 1, data: bytes = b"picture", **more: str) -> Original:
    return Original(task_id, index, data, "png", "image/png", **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- whole or absent


def test_a_file_is_written_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.bin"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["x.bin"]


@posix
def test_files_are_for_the_person_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.bin"
    write_whole(path, b"x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700


def test_a_new_file_never_replaces(tmp_path: Path) -> None:
    assert write_new(tmp_path / "x", b"first")
    assert not write_new(tmp_path / "x", b"second")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert not write_new(tmp_path / "dangling", b"third")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert names(tmp_path) == ["dangling", "x"]


def test_of_many_writers_of_one_name_one_wins(tmp_path: Path) -> None:
    barrier, won = threading.Barrier(8), []

    def write(who: int) -> None:
        barrier.wait()
        if write_new(tmp_path / "x", b"%d" % who):
            won.append(who)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() == b"%d" % won[0]
    assert len(won) == 1
    assert names(tmp_path) == ["x"]


def test_a_file_that_is_not_filled_is_never_seen(tmp_path: Path) -> None:
    def fill() -> None:
        with new_file(tmp_path / "x") as draft:
            draft.write_bytes(b"half")
            assert not (tmp_path / "x").exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert names(tmp_path) == []


def test_a_name_that_is_taken_while_the_file_is_filled_is_left_alone(tmp_path: Path) -> None:
    def fill() -> None:
        with new_file(tmp_path / "x") as draft:
            draft.write_bytes(b"second")
            (tmp_path / "x").write_bytes(b"first")

    with pytest.raises(FileExistsError):
        fill()
    assert (tmp_path / "x").read_bytes() == b"first"
    assert names(tmp_path) == ["x"]


def test_a_file_system_without_hard_links_still_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert write_new(tmp_path / "x", b"first")
    assert not write_new(tmp_path / "x", b"second")
    assert names(tmp_path) == ["x"]


def test_the_name_appears_only_after_the_bytes_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    real = os.fsync

    def poller(handle: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "file"
        seen.append((kind, [name for name in names(tmp_path) if not name.startswith(TEMPORARY)]))
        real(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell files from folders")
    monkeypatch.setattr(os, "fsync", poller)
    write_whole(tmp_path / "x", b"data")
    assert seen == [("file", []), ("folder", ["x"])]


def test_leftovers_are_swept_when_they_are_old_and_nothing_else_is(tmp_path: Path) -> None:
    old, young, foreign = tmp_path / f"{TEMPORARY}1", tmp_path / f"{TEMPORARY}2", tmp_path / "keep.png"
    for path in (old, young, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (1, 1))
    assert sweep_leftovers(tmp_path) == 1
    assert names(tmp_path) == [young.name, "keep.png"]
    assert sweep_leftovers(tmp_path / "missing") == 0


WRITER = """
import sys
from pathlib import Path
from mj_mcp.archive.folder import Archive
from mj_mcp.pictures import Original, save_originals
root, start = Path(sys.argv[1]), int(sys.argv[2])
archive = Archive(root / "archive", 3_000_000)
print("ready", flush=True)
for number in range(start, start + 10_000):
    data = number.to_bytes(8, "big") * 40_000
    archive.put(str(number), 1, data, "png")
    save_originals(root / "out", "folder", [Original(str(number), 1, data, "png", "image/png", prompt="p" * 500)])
"""


def whole(path: Path) -> bool:
    if path.suffix == ".json":
        return isinstance(json.loads(path.read_bytes()), dict)
    found = path.read_bytes()
    number = int(re.match(r"\d+", path.name)[0])  # type: ignore[index]
    return found == number.to_bytes(8, "big") * 40_000


@posix
def test_a_killed_writer_leaves_whole_files_only(tmp_path: Path) -> None:
    luck, finished = random.Random(7), 0
    for kill in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(kill * 10_000)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        with child, child.stdout:
            assert child.stdout.readline() == b"ready\n"
            time.sleep(luck.uniform(0.005, 0.12))
            child.send_signal(signal.SIGKILL)
        files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(TEMPORARY)]
        assert all(whole(path) for path in files)
        finished += len(files)
    for folder in (tmp_path / "archive", tmp_path / "out" / "folder"):
        sweep_leftovers(folder, older_than_seconds=-1)
        assert not [name for name in names(folder) if name.startswith(TEMPORARY)]
    assert finished > 0


def tmpfs(folder: Path) -> Iterator[Path]:
    """One MiB of disk."""
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root; the file size limit below stands in")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this machine lets even root mount no tmpfs; the file size limit below stands in")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from tmpfs(tmp_path / "disk")


def test_on_a_full_disk_files_are_whole_or_absent(small_disk: Path) -> None:
    data = [bytes([number]) * 300_000 for number in range(6)]
    archive = Archive(small_disk / "archive", 10**9)
    archive.put("0", 1, data[0], "png")
    with pytest.raises(OSError, match="No space"):  # noqa: PT012 - which of them is the first without room is open
        for number in range(1, 6):
            archive.put(str(number), 1, data[number], "png")
    with pytest.raises(StorageUnavailable, match="No space"):
        save_originals(small_disk / "out", None, [original(data=data[5])])
    assert names(small_disk / "out") == []
    kept = names(small_disk / "archive")
    assert kept[:2] == ["0+1.png", "1+1.png"]
    for number, name in enumerate(kept):
        assert (small_disk / "archive" / name).read_bytes() == data[number]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from mj_mcp.files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write_whole(Path(sys.argv[1]) / "small", b"s" * 50_000)
write_whole(Path(sys.argv[1]) / "replaced", b"old")
for name in ("large", "replaced"):
    try:
        write_whole(Path(sys.argv[1]) / name, b"l" * 200_000)
    except OSError:
        print("refused")
"""


@posix
def test_when_the_system_stops_a_write_half_way_nothing_is_left_of_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["refused", "refused"]
    assert names(tmp_path) == ["replaced", "small"]
    assert (tmp_path / "replaced").read_bytes() == b"old"


# ---------------------------------------------------------------- saving


def test_originals_are_saved_under_names_we_make_with_a_sidecar(tmp_path: Path) -> None:
    first = original(data=b"one", prompt="a fox 🦊", parent_id="99", kind="upscale", url_host="cdn.example")
    saved = save_originals(tmp_path, "trip/day 1", [first, original(index=2, data=b"two")])
    folder = tmp_path.resolve() / "trip" / "day 1"
    assert [one.path for one in saved] == [folder / "1700000000000001-1.png", folder / "1700000000000001-2.png"]
    assert saved[0].path.read_bytes() == b"one"
    assert (saved[0].index, saved[0].bytes, saved[0].media_type) == (1, 3, "image/png")
    assert saved[0].sha256 == hashlib.sha256(b"one").hexdigest()
    assert json.loads((folder / "1700000000000001-1.png.json").read_bytes()) == {
        "task_id": "1700000000000001",
        "index": 1,
        "kind": "upscale",
        "parent_id": "99",
        "prompt": "a fox 🦊",
        "url_host": "cdn.example",
        "media_type": "image/png",
        "bytes": 3,
        "sha256": hashlib.sha256(b"one").hexdigest(),
    }


def test_the_same_picture_twice_is_one_file(tmp_path: Path) -> None:
    once, again = save_originals(tmp_path, None, [original()]), save_originals(tmp_path, None, [original()])
    assert once == again
    assert len(names(tmp_path)) == 2


def test_a_different_picture_never_overwrites(tmp_path: Path) -> None:
    paths = [save_originals(tmp_path, None, [original(data=data)])[0].path.name for data in (b"a", b"b", b"c", b"b")]
    assert paths == ["1700000000000001-1.png", "1700000000000001-1-2.png", "1700000000000001-1-3.png", paths[1]]
    assert (tmp_path / paths[0]).read_bytes() == b"a"


def test_two_ids_that_look_alike_on_disk_keep_their_own_files(tmp_path: Path) -> None:
    saved = save_originals(tmp_path, None, [original("a:b"), original("a_b"), original("a:b")])
    assert [one.path.name for one in saved] == ["a_b-1.png", "a_b-1-2.png", "a_b-1.png"]
    assert json.loads((tmp_path / "a_b-1-2.png.json").read_bytes())["task_id"] == "a_b"


def test_a_saver_that_died_before_its_sidecar_is_completed(tmp_path: Path) -> None:
    path = save_originals(tmp_path, None, [original()])[0].path
    path.with_name(path.name + ".json").unlink()
    assert save_originals(tmp_path, None, [original()])[0].path == path
    assert path.with_name(path.name + ".json").exists()


def test_a_link_or_folder_that_has_the_name_is_left_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"picture")
    out = tmp_path / "out"
    out.mkdir()
    (out / "1700000000000001-1.png").symlink_to(secret)
    (out / "1700000000000001-1-2.png").mkdir()
    saved = save_originals(out, None, [original()])
    assert saved[0].path.name == "1700000000000001-1-3.png"
    assert secret.read_bytes() == b"picture"


def test_many_savers_of_one_picture_make_one_file(tmp_path: Path) -> None:
    barrier, paths = threading.Barrier(6), []

    def save() -> None:
        barrier.wait()
        paths.append(save_originals(tmp_path, "x", [original()])[0].path)

    threads = [threading.Thread(target=save) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 6
    assert len(set(paths)) == 1


BAD_FOLDERS = [
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "./a",
    "a/./b",
    "/etc",
    "//server/share",
    "C:\\x",
    "C:",
    "a\\b",
    "..\\x",
    "~",
    "~root/x",
    "$HOME",
    "%TEMP%",
    "a//b",
    "a\0b",
    "a\nb",
    "a\u202eb",
    "a\u200b",
    "con",
    "NUL",
    "aux.txt",
    "a/com1",
    "LPT9.x",
    "lpt¹",
    ".ssh",
    "a/.git",
    "-rf",
    " a",
    "a ",
    "a.",
    "a:b",
    "a|b",
    "a*b",
    'a"b',
    "x" * 121,
    "/".join("abcdefghi"),
    "\ud800",
]


@pytest.mark.parametrize("folder", BAD_FOLDERS, ids=ascii)
def test_a_folder_that_is_not_plainly_inside_is_refused(tmp_path: Path, folder: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(InvalidRequest, match="folder"):
        save_originals(out, folder, [original()])
    assert not [path for path in tmp_path.rglob("*") if path != out]


@pytest.mark.parametrize("folder", [None, "", ".", "a", "a/", "a/b c/d_1-(2).x", "Überraschung", "写真"])
def test_plain_folders_are_made(tmp_path: Path, folder: str | None) -> None:
    path = save_originals(tmp_path, folder, [original()])[0].path
    assert path.is_relative_to(tmp_path.resolve())
    assert path.exists()


@settings(max_examples=300)
@given(st.text(st.sampled_from("ab./\\:~ -\0é…"), max_size=12))
def test_no_text_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, folder: str) -> None:
    root = tmp_path_factory.getbasetemp() / "root"
    with contextlib.suppress(InvalidRequest):
        assert open_folder(root, folder).is_relative_to(root.resolve())


@posix
def test_links_may_lead_inside_and_not_out(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / "real").mkdir(parents=True)
    elsewhere.mkdir()
    (out / "in").symlink_to(out / "real")
    (out / "away").symlink_to(elsewhere)
    (out / "up").symlink_to("..")
    (out / "nowhere").symlink_to(tmp_path / "nowhere")
    assert save_originals(out, "in", [original()])[0].path.parent == (out / "real").resolve()
    for folder in ("away", "up", "nowhere", "away/deep", "in/../../x"):
        with pytest.raises(InvalidRequest):
            save_originals(out, folder, [original()])
    assert names(elsewhere) == []
    assert not (tmp_path / "nowhere").exists()


@posix
def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert save_originals(tmp_path / "out", "a", [original()])[0].path.parent == (tmp_path / "disk" / "a").resolve()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"x")
    with pytest.raises(InvalidRequest):
        save_originals(tmp_path, "taken", [original()])


@given(st.text(max_size=200))
def test_any_task_id_makes_a_plain_file_name(task_id: str) -> None:
    name = safe_name(task_id)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", name)


def test_the_extension_is_ours_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="saved as"):
        save_originals(tmp_path, None, [Original("1", 1, b"x", "../../x", "image/png")])


# ---------------------------------------------------------------- the archive


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


def test_ids_that_look_alike_on_disk_do_not_share_a_place(tmp_path: Path) -> None:
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
