"""Views of pictures for a model and a person: the numbered contact sheet, and one picture by itself.

Owns layout, numbers and byte budgets; must not know tasks, files, links or MCP. Everything here is plain
computation on bytes and runs on the threads of a `Darkroom`. Views carry no metadata.
"""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mj_mcp.errors import ImageUnavailable, InvalidRequest
from mj_mcp.pictures.measure import damage_is_unavailable, open_picture

if TYPE_CHECKING:
    from PIL import Image

SHEET_EDGE: Final = 768
SHEET_BYTES: Final = 200 * 1024
VIEW_BYTES: Final = 650 * 1024
"""As base64 in a result, with all that stands around it: under 900 KB."""
VIEW_EDGES: Final = range(256, 2049)

_GAP = 6
_BACKGROUND = (24, 24, 26)
_EMPTY = (62, 62, 66)
_PALE = (214, 214, 218)
_QUALITIES = (82, 68, 50, 32)
_SMALLER = 0.8
_SMALLEST = 16
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> Pillow's Transpose (by number: Pillow is not imported yet)."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A view: encoded bytes and what they are. `missing` names the tiles without a picture, counted from 1."""

    data: bytes
    media_type: str
    width: int
    height: int
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Grid:
    columns: int
    rows: int
    cell: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        width = self.columns * (self.cell[0] + _GAP) - _GAP
        return width, self.rows * (self.cell[1] + _GAP) - _GAP

    def corner(self, place: int) -> tuple[int, int]:
        row, column = divmod(place, self.columns)
        return column * (self.cell[0] + _GAP), row * (self.cell[1] + _GAP)


def contact_sheet(
    pictures: Sequence[bytes | None], max_edge: int = SHEET_EDGE, max_bytes: int = SHEET_BYTES
) -> Rendered:
    """All pictures of a task on one sheet, numbered from 1; a single one as itself, without a number.

    None, and bytes that are no picture, become an empty numbered tile.

    Raises ImageUnavailable when not one of the pictures can be had.
    """
    shapes = [shape for data in pictures if (shape := _shape(data))]
    if not shapes:
        raise ImageUnavailable("the picture cannot be had" if len(pictures) == 1 else "none of the pictures can be had")
    if len(pictures) == 1 and pictures[0]:
        return _encode(_shrunk(pictures[0], (max_edge, max_edge)), max_bytes)
    grid = _grid(len(pictures), statistics.median_low(shapes), max_edge)
    tiles = [_tile(data, grid.cell) for data in pictures]
    missing = tuple(number for number, tile in enumerate(tiles, 1) if tile is None)
    if len(missing) == len(tiles):
        raise ImageUnavailable("none of the pictures can be had")
    return _encode(_draw(tiles, grid), max_bytes, missing)


def single_view(data: bytes, max_edge: int = 1024, max_bytes: int = VIEW_BYTES) -> Rendered:
    """One picture, its longer edge at most `max_edge` (256 to 2048); never enlarged.

    Raises InvalidRequest for another `max_edge`, ImageUnavailable when the bytes are no picture.
    """
    if max_edge not in VIEW_EDGES:
        raise InvalidRequest("max_edge", max_edge, f"between {VIEW_EDGES[0]} and {VIEW_EDGES[-1]}")
    return _encode(_shrunk(data, (max_edge, max_edge)), max_bytes)


def _shape(data: bytes | None) -> float | None:
    """Width / height by the header, or None when there is no picture."""
    try:
        with damage_is_unavailable():
            info = open_picture(data or b"").info
    except ImageUnavailable:
        return None
    return info.width / info.height


def _tile(data: bytes | None, cell: tuple[int, int]) -> Image.Image | None:
    """The picture as large as the cell allows, also when that enlarges it: tiles are compared side by side."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - start-up does not pay for Pillow

    try:
        return ImageOps.contain(_shrunk(data or b"", cell), cell, Image.Resampling.LANCZOS)
    except ImageUnavailable:
        return None


def _shrunk(data: bytes, box: tuple[int, int]) -> Image.Image:
    """The picture upright, in RGB on white, inside the box, without metadata; never enlarged."""
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    with damage_is_unavailable():
        opened = open_picture(data)
        image: Image.Image = opened.image
        turns = _TURNS.get(opened.orientation)
        if (opened.info.width, opened.info.height) != image.size:
            box = box[1], box[0]
        opened.image.draft("RGB", (box[0] * 2, box[1] * 2))  # a JPEG may come smaller: decoding is the slow part
        opened.image.load()
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip instead of scale
            image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
            image.info.pop("transparency", None)  # one of 65,536 greys, which means nothing any more
        if image.has_transparency_data:
            image = image.convert("RGBA")
        elif image.mode != "RGB":
            image = image.convert("RGB")
        image.thumbnail(box, Image.Resampling.LANCZOS, reducing_gap=2.0)
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        if turns is not None:
            image = image.transpose(Image.Transpose(turns))
    image.info = {}
    return image


def _grid(count: int, shape: float, max_edge: int) -> _Grid:
    """The grid with the largest tiles of this shape (width / height) whose longer edge is `max_edge`."""

    def cell(columns: int) -> tuple[float, float]:
        rows = math.ceil(count / columns)
        by_width = (max_edge - (columns - 1) * _GAP) / columns / shape
        by_height = (max_edge - (rows - 1) * _GAP) / rows
        height = min(by_width, by_height)
        return height * shape, height

    def merit(columns: int) -> tuple[float, int]:
        return round(cell(columns)[1]), -(columns * math.ceil(count / columns) - count)

    columns = max(range(count, 0, -1), key=merit)
    width, height = cell(columns)
    return _Grid(columns, math.ceil(count / columns), (max(1, int(width)), max(1, int(height))))


def _draw(tiles: Sequence[Image.Image | None], grid: _Grid) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    sheet = Image.new("RGB", grid.size, _BACKGROUND)
    for place, tile in enumerate(tiles):
        left, top = grid.corner(place)
        if tile is None:
            sheet.paste(_empty_tile(grid.cell), (left, top))
        else:
            inset = (grid.cell[0] - tile.width) // 2, (grid.cell[1] - tile.height) // 2
            sheet.paste(tile, (left + inset[0], top + inset[1]))
        badge = _badge(place + 1, grid.cell)
        margin = max(2, badge.height // 7)
        sheet.paste(badge, (left + margin, top + margin), badge)
    return sheet


def _badge(number: int, cell: tuple[int, int]) -> Image.Image:
    """A white number on a dark plate with a light rim and a dark edge around it: it reads on anything."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - start-up does not pay for Pillow

    fine = 4  # drawn larger and shrunk: Pillow does not smooth rounded corners
    height = min(max(22, min(56, min(cell) // 5)), max(8, min(cell))) * fine
    text, font = str(number), ImageFont.load_default(size=height * 0.74)
    width = max(height, int(font.getlength(text) + height * 0.5))
    plate = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(plate)
    edge, radius = max(fine, height // 26), height // 4
    box = (0, 0, width - 1, height - 1)
    draw.rounded_rectangle(box, radius, fill=(0, 0, 0, 255))
    inner = (edge, edge, width - 1 - edge, height - 1 - edge)
    draw.rounded_rectangle(inner, radius - edge, fill=(14, 14, 16, 255), outline="white", width=edge * 2)
    draw.text(
        (width / 2, height / 2), text, font=font, anchor="mm", fill="white", stroke_width=fine // 2, stroke_fill="white"
    )
    return plate.resize((width // fine, height // fine), Image.Resampling.LANCZOS)


def _empty_tile(cell: tuple[int, int]) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - start-up does not pay for Pillow

    tile = Image.new("RGB", cell, _EMPTY)
    text = "not available"
    unit = ImageFont.load_default(size=100).getlength(text) / 100
    size = max(8, min(28, cell[0] * 0.8 / unit))
    draw = ImageDraw.Draw(tile)
    draw.text((cell[0] / 2, cell[1] / 2), text, font=ImageFont.load_default(size=size), anchor="mm", fill=_PALE)
    return tile


def _encode(image: Image.Image, max_bytes: int, missing: tuple[int, ...] = ()) -> Rendered:
    """Step quality, then size, down until it fits. WebP, or JPEG where Pillow was built without it."""
    from PIL import Image, features  # noqa: PLC0415 - start-up does not pay for Pillow

    form, options = ("WEBP", {"method": 2}) if features.check("webp") else ("JPEG", {"optimize": True})
    while True:
        for quality in _QUALITIES:
            out = io.BytesIO()
            image.save(out, form, quality=quality, **options)
            if out.tell() <= max_bytes or max(image.size) <= _SMALLEST:
                return Rendered(out.getvalue(), f"image/{form.lower()}", image.width, image.height, missing)
            if out.tell() > 4 * max_bytes:
                break  # no quality will do
        smaller = (max(1, int(image.width * _SMALLER)), max(1, int(image.height * _SMALLER)))
        image = image.resize(smaller, Image.Resampling.LANCZOS)
