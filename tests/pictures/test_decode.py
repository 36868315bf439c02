"""What a picture is by its bytes, and what is refused before it is decoded."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import WHOLE, contact_sheet, encoded, flat, noise, png_of

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import PictureInfo, inspect, single_view
from mj_mcp.pictures.decode import damage_is_unavailable, open_picture


@pytest.mark.parametrize(
    ("form", "info"),
    [
        ("PNG", PictureInfo("image/png", "png", 40, 30)),
        ("JPEG", PictureInfo("image/jpeg", "jpg", 40, 30)),
        ("WEBP", PictureInfo("image/webp", "webp", 40, 30)),
        ("GIF", PictureInfo("image/gif", "gif", 40, 30)),
    ],
)
def test_a_picture_is_what_its_bytes_say(form: str, info: PictureInfo) -> None:
    assert inspect(encoded(noise(40, 30), form)) == info


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, {"quality": 50, "exact": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_kind_of_webp_is_measured(options: dict[str, Any], mode: str) -> None:
    assert inspect(encoded(noise(41, 29).convert(mode), "WEBP", **options)).width == 41


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"<html><body>not found</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        encoded(flat(8, 8), "BMP"),
        encoded(flat(8, 8), "TIFF"),
        encoded(flat(8, 8), "ICO"),
        encoded(flat(8, 8), "PPM"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
    ],
)
def test_anything_but_the_four_formats_is_refused(data: bytes) -> None:
    with pytest.raises(ImageUnavailable, match="is not a PNG, JPEG, WebP or GIF"):
        inspect(data)


@pytest.mark.parametrize("form", WHOLE)
@settings(max_examples=60)
@given(data=st.data())
def test_a_picture_that_is_cut_off_anywhere_is_refused(form: str, data: st.DataObject) -> None:
    whole = WHOLE[form]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1) | st.integers(len(whole) - 30, len(whole) - 1))]
    with pytest.raises(ImageUnavailable):
        inspect(cut)


@settings(max_examples=200)
@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=20))
def test_damaged_bytes_are_a_picture_or_unavailable_and_nothing_else(form: str, changes: list[tuple[int, int]]) -> None:
    broken = bytearray(WHOLE[form])
    for at, value in changes:
        broken[at % len(broken)] = value
    try:
        inspect(bytes(broken))
        contact_sheet([bytes(broken)])
    except ImageUnavailable:
        pass


def test_50_megapixels_are_the_ceiling() -> None:
    rows = zlib.compress(bytes((10_000 // 8 + 1) * 5000), 9)
    assert inspect(png_of(10_000, 5000, rows, depth=1, colour=0)).width == 10_000
    with pytest.raises(ImageUnavailable, match="more than 50,000,000"):
        inspect(png_of(10_000, 5001, rows, depth=1, colour=0))


@pytest.mark.parametrize(
    "bomb",
    [
        png_of(65_000, 65_000, zlib.compress(bytes(1_000_000))),
        png_of(2**31 - 1, 2**31 - 1),
        b"RIFF\x1a\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + b"\xff\x3f\x00" * 2,
        b"RIFF\x11\x00\x00\x00WEBPVP8L\x05\x00\x00\x00\x2f\xff\xff\xff\x0f\x00",
        b"RIFF\x12\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00\x00\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f",
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02L\x01\x00;",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\xff\x20\xff\x20\x00\x02\x02L\x01\x00;",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x40\x1f\x40\x1f\x00\x02\x02L\x01\x00;",
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xd9",
    ],
    ids=[
        "png",
        "huge png",
        "webp canvas",
        "webp lossless",
        "webp lossy",
        "gif",
        "gif frame beyond canvas",
        "gif under pillow's limit",
        "jpeg",
    ],
)
def test_a_pixel_bomb_is_refused_by_its_header_without_a_warning(bomb: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # refused by us, whatever the process does with warnings
        with pytest.raises(ImageUnavailable, match="more than 50,000,000"), damage_is_unavailable():
            open_picture(bomb)  # which decodes nothing yet
        with pytest.raises(ImageUnavailable):
            inspect(bomb)
        with pytest.raises(ImageUnavailable):
            single_view(bomb)


@pytest.mark.parametrize(
    "data",
    [
        WHOLE["PNG"][:3000] + b"damage" + WHOLE["PNG"][3006:],
        png_of(64, 64, zlib.compress(random.Random(1).randbytes(64 * 193))[:-5000]),
        png_of(64, 64, b"no zlib at all"),
        WHOLE["WEBP"][:20] + bytes(len(WHOLE["WEBP"]) - 20),
        WHOLE["JPEG"][:400] + b"\xff\xd9",
        WHOLE["GIF"][:900] + b"\0;",
    ],
    ids=["png with a flaw", "png without its middle", "png of nothing", "webp of zeros", "jpeg cut and closed", "gif"],
)
def test_a_picture_with_a_good_end_and_a_bad_middle_is_refused(data: bytes) -> None:
    with pytest.raises(ImageUnavailable, match="cut off or damaged"):
        inspect(data)


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    whole = WHOLE["PROGRESSIVE"]
    scan = whole.rindex(b"\xff\xda")
    with pytest.raises(ImageUnavailable):
        inspect(whole[:-2] + whole[scan:-2] * 1000 + whole[-2:])


def test_start_up_does_not_pay_for_pillow() -> None:
    code = "import sys, mj_mcp.pictures; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
