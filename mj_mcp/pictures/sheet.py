"""Views of pictures for a model or a person: labelled sheets, the numbered contact sheet, and one picture.

Owns layout, labels, formats and size limits. Does not know tasks, files, links or MCP. Everything here is computation
on bytes and runs on the threads of `PictureWorkers`. Views carry no metadata.

A sheet is drawn from tiles, not originals: a tile holds a few hundred KB, an original up to 64 MiB.
"""

from __future__ import annotations

import io
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from mj_mcp.errors import ImageUnavailable, InvalidRequest
from mj_mcp.pictures.decode import OpenedPicture, PictureInfo, damage_is_unavailable, decode, open_picture, upright

if TYPE_CHECKING:
    from PIL import Image

Format = Literal["webp", "jpeg", "png"]

SHEET_EDGE: Final = 768
LABELLED_EDGE: Final = 1024
SHEET_BYTES: Final = 200 * 1024
VIEW_BYTES: Final = 650 * 1024
"""With base64 and the rest of the result: under 900 KB."""
VIEW_EDGES: Final = range(256, 2049)

_GAP = 6
_GROUP_GAP = 18
_BACKGROUND = (24, 24, 26)
_EMPTY = (62, 62, 66)
_PALE = (214, 214, 218)
_QUALITIES = (82, 68, 50, 32)
_SMALLER = 0.8
_SMALLEST = 16


@dataclass(frozen=True, slots=True)
class Rendered:
    """A view: encoded bytes and their format."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture, small enough for a sheet, and the format and size of its original."""

    info: PictureInfo
    image: Image.Image


Labelled = tuple[str, Tile | None]
"""A tile and its label; None is drawn as an empty tile."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """One group: equal cells, `_GAP` apart."""

    columns: int
    rows: int
    cell: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        width = self.columns * (self.cell[0] + _GAP) - _GAP
        return width, self.rows * (self.cell[1] + _GAP) - _GAP

    def corner(self, position: int) -> tuple[int, int]:
        row, column = divmod(position, self.columns)
        return column * (self.cell[0] + _GAP), row * (self.cell[1] + _GAP)


def tile(data: bytes, share: int = 1) -> Tile:
    """The whole picture decoded, and scaled to the size at which a sheet of `share` pictures can show it.

    All tiles of a sheet together hold at most 3 MiB. Raises ImageUnavailable if the bytes are not a picture.
    """
    with damage_is_unavailable():
        opened = open_picture(data)
        area, shape = LABELLED_EDGE**2 / share, opened.info.width / opened.info.height
        box = math.sqrt(area * shape), math.sqrt(area / shape)
        image = _shrunk(opened, (min(LABELLED_EDGE, math.ceil(box[0])), min(LABELLED_EDGE, math.ceil(box[1]))))
    return Tile(opened.info, image)


def contact_sheet(
    tiles: Sequence[Tile | None], form: Format = "webp", max_edge: int = SHEET_EDGE, max_bytes: int = SHEET_BYTES
) -> Rendered:
    """All pictures of a task on one sheet, numbered from 1. A single picture has no number.

    Raises ImageUnavailable if there is no picture at all.
    """
    if len(tiles) == 1 and tiles[0] is not None:
        return _encode(_within(tiles[0].image, max_edge), form, max_bytes)
    numbered = [(str(number), tile) for number, tile in enumerate(tiles, 1)]
    return labelled_sheet([numbered], form, max_edge, max_bytes)


def labelled_sheet(
    groups: Sequence[Sequence[Labelled]],
    form: Format = "webp",
    max_edge: int = LABELLED_EDGE,
    max_bytes: int = SHEET_BYTES,
    *,
    foot: bool = False,
) -> Rendered:
    """Groups of labelled tiles on one sheet. Each group is a block, and all blocks have the same size.

    `foot` puts the labels at the bottom of the tiles, for tiles that are numbered sheets themselves.

    Raises ImageUnavailable if there is no picture at all.
    """
    shapes = [[tile.image.width / tile.image.height for _, tile in group if tile] for group in groups]
    known = [shape for group in shapes for shape in group]
    if not known:
        raise ImageUnavailable("none of the pictures is available")
    sizes = [(len(group), statistics.median_low(shape or known)) for group, shape in zip(groups, shapes, strict=True)]
    return _encode(_draw(groups, _layout(sizes, max_edge), foot=foot), form, max_bytes)


def single_view(data: bytes, max_edge: int = 1024, form: Format = "webp", max_bytes: int = VIEW_BYTES) -> Rendered:
    """One picture, its longer edge at most `max_edge` (256 to 2048). Never enlarged.

    Raises InvalidRequest for another `max_edge`, ImageUnavailable if the bytes are not a picture.
    """
    if max_edge not in VIEW_EDGES:
        raise InvalidRequest("max_edge", max_edge, f"between {VIEW_EDGES[0]} and {VIEW_EDGES[-1]}")
    with damage_is_unavailable():
        image = _shrunk(open_picture(data), (max_edge, max_edge))
    return _encode(image, form, max_bytes)


def converted(data: bytes, form: Format) -> Rendered:
    """A sheet that was made earlier, in this format. If it has the format already, it is not encoded again."""
    with damage_is_unavailable():
        opened = open_picture(data)
        if opened.info.media_type == f"image/{form}":
            decode(opened, (1, 1))
            return Rendered(data, opened.info.media_type, opened.info.width, opened.info.height)
        image = _shrunk(opened, (SHEET_EDGE, SHEET_EDGE))
    return _encode(image, form, SHEET_BYTES)


def _shrunk(opened: OpenedPicture, box: tuple[int, int]) -> Image.Image:
    """The picture upright, in RGB on white, inside the box, without metadata. Never enlarged."""
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    image: Image.Image = opened.image
    if (opened.info.width, opened.info.height) != image.size:
        box = box[1], box[0]
    decode(opened, (box[0] * 2, box[1] * 2))
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip instead of scale
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        image.info.pop("transparency", None)  # one of 65,536 greys, meaningless after the conversion
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode != "RGB":
        image = image.convert("RGB")
    image.thumbnail(box, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = upright(image, opened.orientation)
    image.info = {}
    return image


def _within(image: Image.Image, edge: int) -> Image.Image:
    """The picture, at most this large. Never enlarged."""
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    smaller = image.copy()
    smaller.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return smaller


def _grid(count: int, shape: float, box: tuple[float, float]) -> _Grid:
    """The grid with the largest cells of this shape (width / height) that fits into the box."""

    def cell(columns: int) -> tuple[float, float]:
        rows = math.ceil(count / columns)
        by_width = (box[0] - (columns - 1) * _GAP) / columns / shape
        by_height = (box[1] - (rows - 1) * _GAP) / rows
        height = min(by_width, by_height)
        return height * shape, height

    def merit(columns: int) -> tuple[float, int]:
        return round(cell(columns)[1]), -(columns * math.ceil(count / columns) - count)

    columns = max(range(count, 0, -1), key=merit)
    width, height = cell(columns)
    return _Grid(columns, math.ceil(count / columns), (max(1, int(width)), max(1, int(height))))


@dataclass(frozen=True, slots=True)
class _Layout:
    """The positions: one grid per group, and the groups side by side in `columns`."""

    grids: tuple[_Grid, ...]
    columns: int

    def lines(self) -> tuple[list[int], list[int]]:
        """The start of each column and row of groups. The last value is the end of the sheet."""
        starts = range(0, len(self.grids), self.columns)
        widths = [max(grid.size[0] for grid in self.grids[column :: self.columns]) for column in range(self.columns)]
        heights = [max(grid.size[1] for grid in self.grids[start : start + self.columns]) for start in starts]
        return _sums(widths), _sums(heights)


def _sums(lengths: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(length + _GROUP_GAP for length in lengths)]


def _layout(groups: Sequence[tuple[int, float]], edge: int) -> _Layout:
    """The layout of groups of (tiles, shape) with the largest pictures; among equals, the widest."""

    def layout(columns: int) -> _Layout:
        rows = math.ceil(len(groups) / columns)
        box = (edge + _GROUP_GAP) / columns - _GROUP_GAP, (edge + _GROUP_GAP) / rows - _GROUP_GAP
        return _Layout(tuple(_grid(count, shape, box) for count, shape in groups), columns)

    def merit(layout: _Layout) -> tuple[int, int]:
        shown = sum(count * math.prod(grid.cell) for (count, _), grid in zip(groups, layout.grids, strict=True))
        return round(100 * shown / edge**2), layout.lines()[0][-1]

    return max((layout(columns) for columns in range(1, len(groups) + 1)), key=merit)


def _draw(groups: Sequence[Sequence[Labelled]], layout: _Layout, *, foot: bool) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    across, down = layout.lines()
    sheet = Image.new("RGB", (across[-1] - _GROUP_GAP, down[-1] - _GROUP_GAP), _BACKGROUND)
    for position, (group, grid) in enumerate(zip(groups, layout.grids, strict=True)):
        row, column = divmod(position, layout.columns)
        for number, (label, tile) in enumerate(group):
            left, top = grid.corner(number)
            _paste(sheet, (across[column] + left, down[row] + top), grid.cell, (label, tile), foot=foot)
    return sheet


def _paste(
    sheet: Image.Image, corner: tuple[int, int], cell: tuple[int, int], labelled: Labelled, *, foot: bool
) -> None:
    """Draw one cell. The picture fills it, even if that enlarges it, because tiles are compared."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - start-up does not pay for Pillow

    (left, top), (label, tile) = corner, labelled
    picture = _empty_tile(cell) if tile is None else ImageOps.contain(tile.image, cell, Image.Resampling.LANCZOS)
    sheet.paste(picture, (left + (cell[0] - picture.width) // 2, top + (cell[1] - picture.height) // 2))
    badge = _badge(label, cell)
    margin = max(2, badge.height // 7)
    down = cell[1] - margin - badge.height if foot else margin
    sheet.paste(badge, (left + margin, top + down), badge)


def _badge(text: str, cell: tuple[int, int]) -> Image.Image:
    """A white label on a dark plate with a light rim and a dark edge, readable on any picture."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - start-up does not pay for Pillow

    fine = 4  # drawn larger and shrunk: Pillow does not smooth rounded corners
    height = min(max(22, min(56, min(cell) // 5)), max(8, min(cell))) * fine
    font = ImageFont.load_default(size=height * 0.74)
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


def _encode(image: Image.Image, form: Format, max_bytes: int) -> Rendered:
    """Lower the quality, then the size, until it fits."""
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    while True:
        for data in _encodings(image, form):
            if len(data) <= max_bytes or max(image.size) <= _SMALLEST:
                return Rendered(data, f"image/{form}", image.width, image.height)
            if len(data) > 4 * max_bytes:
                break  # no quality is small enough
        smaller = (max(1, int(image.width * _SMALLER)), max(1, int(image.height * _SMALLER)))
        image = image.resize(smaller, Image.Resampling.LANCZOS)


def _encodings(image: Image.Image, form: Format) -> Iterator[bytes]:
    """Encodings of the same picture, the best quality first."""
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    if form == "png":
        yield _saved(image, form)
        # 10 times as fast as Pillow's other methods to find a palette, and as small.
        yield _saved(image.quantize(256, Image.Quantize.FASTOCTREE), form)
        return
    options = {"method": 2} if form == "webp" else {"optimize": True}
    for quality in _QUALITIES:
        yield _saved(image, form, quality=quality, **options)


def _saved(image: Image.Image, form: Format, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
