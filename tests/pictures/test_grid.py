"""A grid of four is cut into its four pictures: all of it, once, and with nothing changed."""

from __future__ import annotations

import io

import pytest
from picture_hosts import OWN, PUBLIC, Names, Recorder
from pictures import encoded, flat, near, noise
from PIL import Image, ImageCms

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import PictureClient, part_of
from mj_mcp.pictures.grid import open_grid, part_from
from mj_mcp.urls import PARTS, with_part

COLOURS = ((200, 30, 30), (30, 160, 40), (30, 30, 200), (230, 200, 40))
LINK = "https://cdn.example/a/grid.png?sig=a%2Fb"


def grid(width: int, height: int) -> Image.Image:
    """A picture whose quarters have four colours; of an odd size, the right and the lower ones are larger."""
    image = flat(width, height, COLOURS[3])
    x, y = width // 2, height // 2
    image.paste(COLOURS[0], (0, 0, x, y))
    image.paste(COLOURS[1], (x, 0, width, y))
    image.paste(COLOURS[2], (0, y, x, height))
    return image


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def parts_of(image: Image.Image, form: str = "PNG", **options: object) -> list[Image.Image]:
    grid = open_grid(encoded(image, form, **options))
    parts = [part_from(grid, number) for number in (1, 2, 3, 4)]
    found = [opened(part.data) for part in parts]
    assert [(one.width, one.height) for one in found] == [(part.info.width, part.info.height) for part in parts]
    assert {(part.info.media_type, part.info.extension) for part in parts} == {("image/png", "png")}
    return found


def test_a_link_names_each_part_in_reading_order_and_opens_the_whole() -> None:
    links = [with_part(LINK, number) for number in (1, 2, 3, 4)]
    assert links[1] == f"{LINK}#xywh=percent:50,0,50,50"
    assert [part_of(link) for link in links] == [(LINK, 1), (LINK, 2), (LINK, 3), (LINK, 4)]
    assert with_part(links[0], 4) == with_part(f"{LINK}#top", 4) == links[3]


@pytest.mark.parametrize("fragment", ["", "#", "#top", "#xywh=percent:0,0,100,100", f"#{PARTS[0]}&t=1"])
def test_any_other_link_means_the_whole_picture(fragment: str) -> None:
    assert part_of(LINK + fragment) == (LINK + fragment, None)


async def test_the_name_of_a_part_is_never_sent() -> None:
    recorder = Recorder()
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), recorder) as client:
        await client.fetch(with_part(LINK, 2))
    request = b"".join(sent for sent in recorder.log if isinstance(sent, bytes))
    assert request.startswith(b"GET /a/grid.png?sig=a%2Fb HTTP/1.1\r\nHost: cdn.example\r\n")
    assert b"#" not in request
    assert b"xywh" not in request


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_parts_are_the_quarters_in_reading_order(form: str) -> None:
    for part, colour in zip(parts_of(grid(64, 48), form), COLOURS, strict=True):
        assert part.size == (32, 24)
        shown = part.convert("RGB")
        assert near(shown.getpixel((16, 12)), colour)


@pytest.mark.parametrize("size", [(65, 48), (64, 49), (65, 49), (2, 2), (3, 3), (1025, 5)])
def test_the_parts_cover_a_picture_of_any_size_and_never_overlap(size: tuple[int, int]) -> None:
    image = noise(*size)
    parts = parts_of(image)
    x, y = size[0] // 2, size[1] // 2
    assert [part.size for part in parts] == [(x, y), (size[0] - x, y), (x, size[1] - y), (size[0] - x, size[1] - y)]
    again = Image.new("RGB", size)
    for part, corner in zip(parts, [(0, 0), (x, 0), (0, y), (x, y)], strict=True):
        again.paste(part, corner)
    assert again.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_part_keeps_the_kind_of_its_pixels(mode: str) -> None:
    image = noise(32, 32).convert("L").convert("I;16") if mode == "I;16" else noise(32, 32).convert(mode)
    for part, box in zip(parts_of(image), [(0, 0, 16, 16), (16, 0, 32, 16)], strict=False):
        assert part.mode == mode
        assert part.tobytes() == image.crop(box).tobytes()


def test_what_a_png_cannot_hold_becomes_rgb() -> None:
    for part, colour in zip(parts_of(grid(64, 64).convert("CMYK"), "JPEG", icc_profile=b"cmyk"), COLOURS, strict=True):
        assert (part.mode, part.info.get("icc_profile")) == ("RGB", None)
        assert near(part.getpixel((16, 16)), colour)


def test_a_part_keeps_the_colour_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert [part.info["icc_profile"] for part in parts_of(grid(8, 8), icc_profile=profile)] == [profile] * 4


def test_a_turned_grid_is_cut_as_it_is_displayed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    stored = grid(64, 33).transpose(Image.Transpose.ROTATE_90)
    parts = parts_of(stored, exif=exif)
    assert [part.size for part in parts] == [(32, 16), (32, 16), (32, 17), (32, 17)]
    assert [part.getpixel((8, 8)) for part in parts] == list(COLOURS)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded(noise(64, 64))[:-40], "cut off or damaged"),
        (b"junk", "is not a PNG"),
        (encoded(flat(1, 8)), "1 x 8 pixels, too few"),
    ],
)
def test_what_cannot_be_cut_is_said(data: bytes, said: str) -> None:
    with pytest.raises(ImageUnavailable, match=said):
        open_grid(data)
