"""Files are whole or absent, on a full disk and after a kill too."""

from __future__ import annotations

import errno
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
from folders import names, original, posix

from mj_mcp.archive.folder import Archive
from mj_mcp.errors import StorageUnavailable
from mj_mcp.files import TEMPORARY, new_file, sweep_leftovers, write_new, write_whole
from mj_mcp.pictures import save_originals

KILLS = int(os.environ.get("MJ_TEST_KILLS", "10"))


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
@pytest.mark.slow
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
