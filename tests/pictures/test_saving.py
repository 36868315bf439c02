"""Originals are saved inside the folder only, under names we make, and never over another file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from pathlib import Path

import pytest
from folders import names, original, posix
from hypothesis import given, settings
from hypothesis import strategies as st

from mj_mcp.errors import InvalidRequest
from mj_mcp.files import safe_name
from mj_mcp.pictures import Original, save_originals
from mj_mcp.pictures.saving import open_folder


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


def test_two_ids_that_are_alike_on_disk_keep_their_own_files(tmp_path: Path) -> None:
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


def test_a_file_that_has_the_folders_name_is_refused(tmp_path: Path) -> None:
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
