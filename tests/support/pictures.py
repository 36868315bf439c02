"""Pictures drawn for a test, and what a sheet of them shows."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import Format, Rendered, Tile
from mj_mcp.pictures import contact_sheet as drawn
from mj_mcp.pictures import tile as tiled

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


WHOLE = {form: encoded(noise(48, 48), form) for form in ("PNG", "JPEG", "WEBP", "GIF")}
WHOLE["PROGRESSIVE"] = encoded(noise(48, 48), "JPEG", progressive=True)
