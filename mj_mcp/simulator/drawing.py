"""The pictures: small landscapes whose colours depend on the prompt and whose shapes depend on the task.

Owns how a drawing becomes bytes, correct or malicious. Knows nothing of tasks, links or HTTP. Every function is slow
and pure, and is called off the event loop.
"""

import colorsys
import io
import math
import random
import re
import struct
import textwrap
import zlib
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

Colour = tuple[int, int, int]

_RATIO: Final = re.compile(r"--(?:ar|aspect)[ =]+(\d{1,4}):(\d{1,4})(?!\d)")
_SMALLEST: Final = 16
_LINES: Final = 3
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_ZEROS: Final = bytes(1024 * 1024)
BOMB_EDGE: Final = 30_000
BOMB_MIB: Final = 512


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw: text, colours seeded by `palette`, hills seeded by `shape`, the size in pixels.

    `turn` moves the colours around their circle (0 to 1). With `tiles`, these are drawn instead: two by two in reading
    order, without a gap.
    """

    prompt: str
    caption: str
    palette: str
    shape: str
    size: tuple[int, int]
    turn: float = 0.0
    tiles: "tuple[Drawing, ...]" = ()


def size_for(prompt: str, edge: int) -> tuple[int, int]:
    """Return width and height, the longer one `edge`, by the prompt's `--ar W:H`; square without it."""
    found = _RATIO.search(prompt)
    width, height = (int(found[1]), int(found[2])) if found else (1, 1)
    if not width or not height:
        return edge, edge
    longer = max(width, height)
    return max(_SMALLEST, round(edge * width / longer)), max(_SMALLEST, round(edge * height / longer))


def png(drawing: Drawing) -> bytes:
    """Return the drawing as a PNG."""
    return _encoded(_image(drawing), "PNG")


def jpeg(drawing: Drawing) -> bytes:
    """Return the drawing as a JPEG."""
    return _encoded(_image(drawing), "JPEG")


def webp(drawing: Drawing) -> bytes:
    """Return the drawing as a WebP."""
    return _encoded(_image(drawing), "WEBP")


def gif(drawing: Drawing) -> bytes:
    """Return the drawing as a GIF."""
    return _encoded(_image(drawing), "GIF")


def dark(drawing: Drawing) -> bytes:
    """Return a PNG that is nearly black all over."""
    return _encoded(Image.new("RGB", drawing.size, (4, 4, 6)), "PNG")


def light(drawing: Drawing) -> bytes:
    """Return a PNG that is nearly white all over."""
    return _encoded(Image.new("RGB", drawing.size, (252, 252, 250)), "PNG")


def noise(drawing: Drawing) -> bytes:
    """Return a PNG of random pixels, which cannot be compressed."""
    width, height = drawing.size
    pixels = _dice(drawing.shape).randbytes(width * height * 3)
    return _encoded(Image.frombytes("RGB", drawing.size, pixels), "PNG")


def truncated(drawing: Drawing) -> bytes:
    """Return the first half of a PNG."""
    whole = png(drawing)
    return whole[: len(whole) // 2]


def pixel_bomb(_drawing: Drawing) -> bytes:
    """Return a valid PNG of 30,000 x 30,000 black pixels in about 110 kB (900 MB of RGBA would be 3.6 GB)."""
    row = bytes(1 + BOMB_EDGE // 8)  # one filter byte, then one bit a pixel
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(row) for _ in range(BOMB_EDGE)), packer.flush()])
    return (
        _SIGNATURE + png_head(BOMB_EDGE, BOMB_EDGE, bits=1, colours=0) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    )


def gzip_bomb(_drawing: Drawing) -> bytes:
    """Return about 500 kB of gzip that unpacks to 512 MiB which start like a PNG."""
    start = _SIGNATURE + png_head(1024, 1024, bits=8, colours=2)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    parts = [packer.compress(start), packer.flush(zlib.Z_FULL_FLUSH)]
    block = packer.compress(_ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)  # complete in itself, so it can be repeated
    check = zlib.crc32(start)
    for _ in range(BOMB_MIB):
        check = zlib.crc32(_ZEROS, check)
        parts.append(block)
    length = len(start) + BOMB_MIB * len(_ZEROS)
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    return b"".join([head, *parts, packer.flush(), struct.pack("<II", check, length)])


def png_head(width: int, height: int, *, bits: int, colours: int) -> bytes:
    """Return the chunk that opens every PNG after its signature."""
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))


def endless_start() -> bytes:
    """Return the start of an endless PNG of random bytes."""
    return _SIGNATURE + png_head(1024, 1024, bits=8, colours=2)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _encoded(image: Image.Image, form: str) -> bytes:
    into = io.BytesIO()
    image.save(into, form)
    return into.getvalue()


def _dice(seed: str) -> random.Random:
    return random.Random(seed.encode("utf-8", "replace"))  # noqa: S311  # repeatable, no secret


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _image(drawing: Drawing) -> Image.Image:
    if not drawing.tiles:
        return _landscape(drawing)
    whole = Image.new("RGB", drawing.size)
    width, height = drawing.tiles[0].size
    for number, tile in enumerate(drawing.tiles):
        whole.paste(_landscape(tile), (number % 2 * width, number // 2 * height))
    return whole


def _landscape(drawing: Drawing) -> Image.Image:
    width, height = drawing.size
    hue = _dice(drawing.palette).random() + drawing.turn
    shape = _dice(drawing.shape)
    sky = Image.linear_gradient("L").resize(drawing.size)
    image = ImageOps.colorize(sky, black=_colour(hue, 0.65, 0.75), white=_colour(hue + 0.12, 0.25, 1.0))
    pen = ImageDraw.Draw(image)
    radius = min(width, height) * shape.uniform(0.07, 0.16)
    across, down = width * shape.uniform(0.15, 0.85), height * shape.uniform(0.15, 0.4)
    pen.ellipse((across - radius, down - radius, across + radius, down + radius), fill=_colour(hue + 0.5, 0.35, 1.0))
    for nearness in range(4):
        value = 0.62 - 0.15 * nearness
        pen.polygon(_hill(shape, drawing.size, 0.45 + 0.11 * nearness), fill=_colour(hue + 0.04 * nearness, 0.6, value))
    _label(pen, drawing)
    return image


def _hill(shape: random.Random, size: tuple[int, int], level: float) -> list[tuple[float, float]]:
    width, height = size
    waves = [(shape.uniform(1, 7), shape.uniform(0, math.tau), shape.uniform(0.01, 0.05)) for _ in range(3)]

    def line(at: float) -> float:
        return height * (level + sum(lift * math.sin(turn * at + start) for turn, start, lift in waves))

    step = max(1, width // 256)
    ridge = [(float(x), line(x / width)) for x in range(0, width + step, step)]
    return [(0.0, float(height)), *ridge, (float(width + step), float(height))]


def _label(pen: ImageDraw.ImageDraw, drawing: Drawing) -> None:
    width, height = drawing.size
    points = max(9.0, min(width, height) / 26)
    text, title = ImageFont.load_default(points), ImageFont.load_default(points * 1.5)
    room = max(8, int(width * 0.9 / text.getlength("n")))
    words = "".join(letter if letter.isprintable() else " " for letter in drawing.prompt)
    words = words.encode("utf-8", "replace").decode()
    lines = textwrap.wrap(words, room, max_lines=_LINES, placeholder=" ...")
    left, top = width * 0.05, height - points * (1.4 * len(lines) + 3.2)
    pen.text((left, top), drawing.caption, font=title, fill=(255, 255, 255))
    for number, words_of_line in enumerate(lines):
        pen.text((left, top + points * (2.1 + 1.4 * number)), words_of_line, font=text, fill=(225, 225, 225))
