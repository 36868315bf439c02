"""What a picture is by its bytes, the contact sheet, and the view of one picture."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw, PngImagePlugin

from mj_mcp.errors import ImageUnavailable, InvalidRequest
from mj_mcp.pictures import Format, PictureInfo, PictureWorkers, Rendered, Tile, inspect, labelled_sheet, single_view
from mj_mcp.pictures import contact_sheet as drawn
from mj_mcp.pictures import tile as tiled
from mj_mcp.pictures.decode import damage_is_unavailable, open_picture
from mj_mcp.pictures.sheet import converted

RED, BLUE, WHITE = (200, 30, 30), (30, 30, 200), (255, 255, 255)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def flat(width: int, height: int, colour: Any = RED, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height), colour)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))


def shown(rendered: Any) -> Image.Image:
    image = Image.open(io.BytesIO(rendered.data))
    image.load()
    assert image.size == (rendered.width, rendered.height)
    assert f"image/{(image.format or '').lower()}" == rendered.media_type
    return image


def tiles_of(pictures: Sequence[bytes | None]) -> list[Tile | None]:
    """A tile for each picture that can be had."""

    def tile(data: bytes | None) -> Tile | None:
        try:
            return tiled(data or b"", len(pictures))
        except ImageUnavailable:
            return None

    return [tile(data) for data in pictures]


def contact_sheet(pictures: Sequence[bytes | None], form: Format = "webp", **bounds: int) -> Rendered:
    return drawn(tiles_of(pictures), form, **bounds)


def near(found: Any, wanted: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 24 for one, other in zip(found[:3], wanted, strict=True))


def png_of(width: int, height: int, pixels: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- measure


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
    with pytest.raises(ImageUnavailable, match="not a PNG, JPEG, WebP or GIF"):
        inspect(data)


WHOLE = {form: encoded(noise(48, 48), form) for form in ("PNG", "JPEG", "WEBP", "GIF")}
WHOLE["PROGRESSIVE"] = encoded(noise(48, 48), "JPEG", progressive=True)


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
    for place, value in changes:
        broken[place % len(broken)] = value
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


# ---------------------------------------------------------------- the sheet


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        ((1024, 1024), 1, (768, 768)),
        ((1024, 1024), 2, (768, 381)),
        ((1024, 1024), 3, (768, 768)),
        ((1024, 1024), 4, (768, 768)),
        ((1456, 816), 1, (768, 431)),
        ((1456, 816), 4, (768, 432)),
        ((816, 1456), 1, (430, 768)),
        ((816, 1456), 4, (432, 768)),
    ],
)
def test_a_sheet_has_768_pixels_on_its_longer_edge(
    size: tuple[int, int], count: int, expected: tuple[int, int]
) -> None:
    sheet = shown(contact_sheet([encoded(flat(*size))] * count))
    assert sheet.size == expected


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)) | st.none(), min_size=1, max_size=9),
    st.integers(200, 900),
)
def test_any_number_of_any_pictures_fits_the_sheet(sizes: list[tuple[int, int] | None], edge: int) -> None:
    pictures = [None if size is None else encoded(flat(*size)) for size in sizes]
    if not any(pictures):
        with pytest.raises(ImageUnavailable):
            contact_sheet(pictures, max_edge=edge)
        return
    rendered = contact_sheet(pictures, max_edge=edge)
    assert max(rendered.width, rendered.height) <= edge


FORMATS: list[Format] = ["webp", "jpeg", "png"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_sheet_of_noise_stays_under_200_kib_in_every_format(form: Format) -> None:
    rendered = contact_sheet([encoded(noise(1024, 1024, seed)) for seed in range(4)], form)
    assert len(rendered.data) <= 200 * 1024
    assert rendered.media_type == f"image/{form}"
    assert max(shown(rendered).size) >= 384  # still large enough to choose from


def test_a_png_that_fits_is_exact() -> None:
    picture = flat(300, 200)
    ImageDraw.Draw(picture).rectangle((50, 50, 99, 99), fill=(1, 2, 3))
    sheet = shown(contact_sheet([encoded(picture)], "png"))
    assert sheet.mode == "RGB"
    assert sheet.tobytes() == picture.tobytes()


@pytest.mark.parametrize("form", FORMATS)
def test_a_sheet_of_another_format_is_converted_and_one_of_the_same_is_left_alone(form: Format) -> None:
    sheet = contact_sheet([encoded(flat(200, 100))] * 4)
    again = converted(sheet.data, form)
    assert (again.media_type, shown(again).size) == (f"image/{form}", shown(sheet).size)
    assert (again.data == sheet.data) is (form == "webp")
    with pytest.raises(ImageUnavailable):
        converted(sheet.data[:-20], form)


def test_quality_and_size_step_down_until_it_fits() -> None:
    rendered = contact_sheet([encoded(noise(600, 600))] * 4, max_bytes=9000)
    assert len(rendered.data) <= 9000
    assert rendered.width < 768
    shown(rendered)


def test_the_tiles_stand_in_reading_order() -> None:
    colours = [(220, 20, 20), (20, 160, 20), (20, 20, 220), (220, 220, 20)]
    sheet = shown(contact_sheet([encoded(flat(500, 500, colour)) for colour in colours]))
    places = [(250, 250), (650, 250), (250, 650), (650, 650)]
    assert all(near(sheet.getpixel(place), colour) for place, colour in zip(places, colours, strict=True))


BACKGROUNDS = {
    "black": flat(700, 700, (0, 0, 0)),
    "white": flat(700, 700, WHITE),
    "grey": flat(700, 700, (128, 128, 128)),
    "noise": noise(700, 700),
}


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_numbers_stand_out_on_any_background(name: str) -> None:
    sheet = shown(contact_sheet([encoded(BACKGROUNDS[name])] * 4)).convert("L")
    badges = [
        sheet.crop((left, top, left + 50, top + 50)) for left, top in ((10, 10), (397, 10), (10, 397), (397, 397))
    ]
    for badge in badges:
        inside = badge.crop((8, 8, 42, 42))
        darkest, lightest = inside.getextrema()
        assert isinstance(darkest, int)
        assert isinstance(lightest, int)
        assert darkest < 40
        assert lightest > 215
        assert sum(inside.histogram()[:70]) > 0.5 * 34 * 34  # the plate is solid: nothing of the picture shines through
    strokes = [badge.crop((10, 10, 40, 40)).point(lambda value: 255 * (value > 128)) for badge in badges]
    for one, other in itertools.combinations(strokes, 2):
        assert ImageChops.difference(one, other).histogram()[255] > 60  # another number


def test_a_single_picture_is_shown_as_itself_without_a_number() -> None:
    sheet = shown(contact_sheet([encoded(flat(300, 200))]))
    assert sheet.size == (300, 200)
    assert all(near(sheet.getpixel(place), RED) for place in ((0, 0), (10, 10), (30, 30), (299, 199)))


def test_a_picture_that_cannot_be_had_is_an_empty_numbered_tile() -> None:
    picture = encoded(flat(500, 500))
    rendered = contact_sheet([picture, None, b"<html>", picture])
    sheet = shown(rendered)
    assert near(sheet.getpixel((650, 300)), (62, 62, 66))
    assert near(sheet.getpixel((250, 300)), RED)


@pytest.mark.parametrize("pictures", [[], [None], [b"junk"], [None, None, b"x"], [WHOLE["PNG"][:-20]] * 4])
def test_a_sheet_without_a_single_picture_is_unavailable(pictures: list[bytes | None]) -> None:
    with pytest.raises(ImageUnavailable):
        contact_sheet(pictures)


def test_mixed_shapes_are_letterboxed_and_keep_their_shape() -> None:
    square, wide = encoded(flat(600, 600)), encoded(flat(900, 300, BLUE))
    sheet = shown(contact_sheet([square, square, square, wide])).convert("RGB")
    column = [sheet.getpixel((570, row)) for row in range(390, 766)]
    blue = sum(near(pixel, BLUE) for pixel in column)
    assert 117 <= blue <= 137  # a third of the cell's 381


# ---------------------------------------------------------------- labelled sheets


def grouped(*groups: Sequence[tuple[str, Image.Image | None]]) -> list[list[tuple[str, Tile | None]]]:
    """Tiles as a sheet of these groups needs them."""
    return [
        [(label, tiled(encoded(image), len(groups) * len(group)) if image else None) for label, image in group]
        for group in groups
    ]


def box_of(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The smallest box that holds every pixel of about this colour."""
    distance = ImageChops.difference(sheet.convert("RGB"), Image.new("RGB", sheet.size, colour))
    far = [band.point(lambda value: 255 * (value > 24)) for band in distance.split()]
    box = ImageChops.invert(ImageChops.lighter(ImageChops.lighter(far[0], far[1]), far[2])).getbbox()
    assert box is not None, f"nothing on the sheet is {colour}"
    return box


TASKS = [(200, 30, 30), (30, 160, 30), (30, 30, 200), (200, 200, 30)]


@pytest.mark.parametrize("form", FORMATS)
def test_the_pictures_of_a_task_stand_together_whatever_their_shapes(form: Format) -> None:
    sizes = [(1024, 576), (1024, 1024), (683, 1024), (1024, 683)]
    counts = [4, 4, 4, 1]
    groups = [
        [(f"{letter}{number}", flat(*size, colour)) for number in range(1, count + 1)]
        for letter, size, colour, count in zip("ABCD", sizes, TASKS, counts, strict=True)
    ]
    sheet = shown(labelled_sheet(grouped(*groups), form))
    boxes = [box_of(sheet, colour) for colour in TASKS]
    for (left, top, right, bottom), (x, y, far, low) in itertools.combinations(boxes, 2):
        assert right <= x or far <= left or bottom <= y or low <= top
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    assert sum(areas) > 0.6 * sheet.width * sheet.height


def test_two_pictures_stand_next_to_each_other() -> None:
    sheet = shown(labelled_sheet(grouped([("1", flat(800, 800))], [("2", flat(800, 800, BLUE))])))
    assert sheet.size == (1024, 503)
    assert near(sheet.getpixel((250, 400)), RED)
    assert near(sheet.getpixel((770, 400)), BLUE)


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)) | st.none(), min_size=1, max_size=20),
        min_size=1,
        max_size=4,
    )
    | st.lists(
        st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)) | st.none(), min_size=1, max_size=1),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(FORMATS),
)
def test_any_groups_of_any_shapes_fit_one_sheet(groups: list[list[tuple[int, int] | None]], form: Format) -> None:
    tiles = grouped(*[[("A9", None if size is None else flat(*size)) for size in group] for group in groups])
    if not any(tile for group in tiles for _, tile in group):
        with pytest.raises(ImageUnavailable):
            labelled_sheet(tiles, form)
        return
    rendered = labelled_sheet(tiles, form)
    assert max(shown(rendered).size) <= 1024
    assert len(rendered.data) <= 200 * 1024


@pytest.mark.parametrize("form", FORMATS)
def test_eighty_pictures_of_noise_stay_under_200_kib(form: Format) -> None:
    picture = noise(256, 256)
    groups = [[(f"{letter}{number}", picture) for number in range(1, 21)] for letter in "ABCD"]
    rendered = labelled_sheet(grouped(*groups), form)
    assert len(rendered.data) <= 200 * 1024
    assert max(shown(rendered).size) >= 512


@settings(max_examples=25)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 80))
def test_the_tiles_of_a_sheet_hold_three_mib_in_all(width: int, height: int, share: int) -> None:
    image = tiled(encoded(flat(width, height, 0, "1")), share).image
    rounding = 2 * max(image.size)
    assert (image.width * image.height - rounding) * 3 * share <= 3 * 2**20
    assert max(image.size) <= 1024


def test_a_label_is_at_the_top_or_at_the_foot_of_its_tile() -> None:
    tiles = grouped([("A", flat(800, 800))], [("B", flat(800, 800))])
    for foot in (False, True):
        sheet = shown(labelled_sheet(tiles, "png", foot=foot)).convert("L")
        top, bottom = sheet.crop((10, 10, 62, 62)), sheet.crop((10, 441, 62, 493))
        labelled, plain = (bottom, top) if foot else (top, bottom)
        assert labelled.getextrema()[1] == 255
        assert plain.getextrema()[0] == plain.getextrema()[1]
        other = sheet.crop((531, 441, 583, 493) if foot else (531, 10, 583, 62))
        assert sum(ImageChops.difference(labelled, other).histogram()[128:]) > 60  # another letter


def test_a_tile_without_a_picture_is_empty_and_labelled() -> None:
    sheet = shown(labelled_sheet(grouped([("A1", flat(500, 500)), ("A2", None)], [("B1", None)])))
    assert near(sheet.getpixel((1000, 400)), (62, 62, 66))
    assert sheet.crop((521, 0, 620, 60)).convert("L").getextrema()[1] == 255  # its label


# ---------------------------------------------------------------- odd pictures


def turned(orientation: int) -> bytes:
    """Red above blue for a person, stored as the orientation wants it."""
    upright = flat(60, 100)
    ImageDraw.Draw(upright).rectangle((0, 50, 60, 100), fill=BLUE)
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_honoured_and_dropped(orientation: int) -> None:
    data = turned(orientation)
    assert (inspect(data).width, inspect(data).height) == (60, 100)
    view = shown(single_view(data))
    assert view.size == (60, 100)
    assert near(view.getpixel((30, 10)), RED)
    assert near(view.getpixel((30, 90)), BLUE)
    assert not view.getexif()


def test_metadata_is_stripped() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", "SECRET")
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    for data in (
        encoded(flat(300, 300), "PNG", pnginfo=text, exif=exif, icc_profile=b"SECRET"),
        encoded(flat(300, 300), "JPEG", exif=exif, comment=b"SECRET", icc_profile=b"SECRET"),
        encoded(flat(300, 300), "WEBP", exif=exif, xmp=b"SECRET", icc_profile=b"SECRET"),
    ):
        assert any(name in data for name in (b"SECRET", b"iCCP"))
        for rendered in (single_view(data), contact_sheet([data]), contact_sheet([data, data])):
            assert b"SECRET" not in rendered.data
            assert not {"exif", "xmp", "icc_profile", "comment"} & shown(rendered).info.keys()


def alpha() -> Image.Image:
    return flat(64, 64, (0, 0, 0, 0), "RGBA")


def animated() -> bytes:
    return encoded(flat(64, 64), "GIF", save_all=True, append_images=[flat(64, 64, BLUE)])


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encoded(alpha()), WHITE),
        (encoded(alpha(), "WEBP", lossless=True), WHITE),
        (encoded(flat(64, 64, 128, "L")), (128, 128, 128)),
        (encoded(flat(64, 64, (0, 0), "LA")), WHITE),
        (encoded(flat(64, 64, 1, "1")), WHITE),
        (encoded(flat(64, 64).quantize(4)), RED),
        (encoded(alpha().quantize(4), "PNG", transparency=0), WHITE),
        (encoded(flat(64, 64), "PNG", transparency=RED), WHITE),
        (encoded(flat(64, 64, 32768, "I;16")), (128, 128, 128)),
        (encoded(flat(64, 64, 32768, "I;16"), "PNG", transparency=7), (128, 128, 128)),
        (encoded(flat(64, 64).convert("CMYK"), "JPEG", quality=95), RED),
        (encoded(flat(64, 64, 77, "L"), "JPEG"), (77, 77, 77)),
        (animated(), RED),
        (encoded(flat(64, 64), "WEBP", save_all=True, append_images=[flat(64, 64, BLUE)], lossless=True), RED),
        (encoded(flat(64, 64), "PNG", save_all=True, append_images=[flat(64, 64, BLUE)]), RED),
        (png_of(64, 64, zlib.compress((b"\0" + b"\x80\x00\x40\x00\xc0\x00" * 64) * 64), depth=16), (128, 64, 192)),
    ],
    ids=[
        "alpha",
        "webp-alpha",
        "grey",
        "grey-alpha",
        "bits",
        "palette",
        "palette-alpha",
        "keyed",
        "grey16",
        "grey16-keyed",
        "cmyk",
        "grey-jpeg",
        "gif",
        "webp",
        "apng",
        "rgb16",
    ],
)
def test_every_kind_of_pixel_is_shown_as_a_person_would_see_it(data: bytes, colour: tuple[int, int, int]) -> None:
    assert near(shown(single_view(data)).getpixel((32, 32)), colour)
    assert near(shown(contact_sheet([data])).getpixel((32, 32)), colour)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3000, 20)])
def test_extreme_shapes_do_not_vanish(size: tuple[int, int]) -> None:
    data = encoded(flat(*size))
    assert min(shown(single_view(data)).size) >= 1
    assert max(shown(contact_sheet([data] * 4)).size) <= 768


# ---------------------------------------------------------------- one picture


@pytest.mark.parametrize(("edge", "expected"), [(256, (256, 128)), (1024, (1024, 512)), (2048, (1600, 800))])
def test_a_view_is_as_large_as_asked_and_never_enlarged(edge: int, expected: tuple[int, int]) -> None:
    assert shown(single_view(encoded(flat(1600, 800)), edge)).size == expected


@pytest.mark.parametrize("edge", [0, 255, 2049, -1])
def test_an_edge_out_of_range_is_refused(edge: int) -> None:
    with pytest.raises(InvalidRequest, match="max_edge"):
        single_view(WHOLE["PNG"], edge)


@pytest.mark.parametrize("form", FORMATS)
def test_a_view_of_noise_stays_under_650_kib_in_every_format(form: Format) -> None:
    rendered = single_view(encoded(noise(1500, 1500)), 2048, form)
    assert len(rendered.data) <= 650 * 1024
    assert max(shown(rendered).size) >= 768


# ---------------------------------------------------------------- the picture workers


async def test_the_workers_give_the_same_answers_off_the_event_loop() -> None:
    async with PictureWorkers() as workers:
        assert await workers.inspect(WHOLE["PNG"]) == inspect(WHOLE["PNG"])
        assert await workers.tile(WHOLE["PNG"], 4) == tiled(WHOLE["PNG"], 4)
        tiles = tiles_of([WHOLE["PNG"]])
        assert await workers.contact_sheet(tiles) == drawn(tiles)
        assert await workers.labelled_sheet([[("A", tiles[0])]]) == labelled_sheet([[("A", tiles[0])]])
        assert await workers.single_view(WHOLE["PNG"]) == single_view(WHOLE["PNG"])
        with pytest.raises(ImageUnavailable):
            await workers.inspect(b"junk")


@pytest.mark.parametrize("form", FORMATS)
async def test_the_workers_have_one_format_for_every_sheet_and_view(form: Format) -> None:
    async with PictureWorkers(form) as workers:
        (tile,) = tiles_of([WHOLE["PNG"]])
        sheet = await workers.contact_sheet([tile, tile])
        for rendered in (
            sheet,
            await workers.labelled_sheet([[("A", tile)]]),
            await workers.single_view(WHOLE["PNG"]),
            await workers.converted(contact_sheet([WHOLE["PNG"]]).data),
        ):
            assert rendered.media_type == f"image/{form}"


async def test_at_most_two_pictures_are_decoded_at_once_even_when_calls_are_cancelled() -> None:
    running = most = 0
    lock, gate, begun = threading.Lock(), threading.Event(), threading.Semaphore(0)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        begun.release()
        gate.wait(30)
        with lock:
            running -= 1

    async with PictureWorkers() as workers:
        tasks = [asyncio.create_task(workers._run(work)) for _ in range(6)]
        for _ in range(2):
            assert await asyncio.to_thread(begun.acquire, timeout=30)
        for task in tasks[:3]:
            task.cancel()
        assert not await asyncio.to_thread(begun.acquire, timeout=0.2), "a cancelled call's thread works on"
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 2
