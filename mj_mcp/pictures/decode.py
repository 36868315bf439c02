"""What a picture is, judged by its bytes only.

Owns the formats, the limits and the full decode. Does not know where the bytes came from, what they were called, or
what is done with them.

Pillow's plugins are opened directly, so only the four formats below can be reached. Nothing is decoded before its size
was read from the header and is within the limit. That limit is far below the one at which Pillow warns of a
decompression bomb (a warning is process-wide state, which threads cannot safely turn into an error).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mj_mcp.errors import ImageUnavailable

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MAX_PIXELS: Final = 50_000_000
MAX_SCANS: Final = 40
"""A progressive JPEG draws the whole picture once per scan. Ordinary ones have about ten scans."""
_DAMAGED = "the picture is cut off or damaged"
_TURNED = range(5, 9)
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation to Pillow's Transpose, by number, since Pillow is not imported yet."""
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """Format and size. Width and height are as displayed: EXIF may rotate the stored picture by 90 degrees."""

    media_type: str
    extension: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class OpenedPicture:
    """A picture opened by Pillow. `orientation` is EXIF's value, 1 to 8, not applied yet."""

    info: PictureInfo
    image: ImageFile.ImageFile
    orientation: int


def _png_is_whole(data: bytes) -> bool:
    return b"IEND\xaeB`\x82" in data


def _jpeg_is_whole(data: bytes) -> bool:
    return b"\xff\xd9" in data[-65536:] and data.count(b"\xff\xda") <= MAX_SCANS


def _webp_is_whole(data: bytes) -> bool:
    return len(data) >= 8 + int.from_bytes(data[4:8], "little")


def _gif_is_whole(data: bytes) -> bool:
    return data.rstrip(b"\0\r\n").endswith(b";")


_FORMATS: Final[dict[str, tuple[re.Pattern[bytes], str, Callable[[bytes], bool]]]] = {
    "png": (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png", _png_is_whole),
    "jpg": (re.compile(rb"\xff\xd8\xff"), "image/jpeg", _jpeg_is_whole),
    "webp": (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp", _webp_is_whole),
    "gif": (re.compile(rb"GIF8[79]a"), "image/gif", _gif_is_whole),
}
"""By extension: the first bytes, the media type, and the check that the end is there."""
EXTENSIONS: Final = frozenset(_FORMATS)
EXTENSION_OF: Final = {media_type: extension for extension, (_, media_type, _) in _FORMATS.items()}


def media_type_of(data: bytes) -> str | None:
    """The media type by the first bytes, or None. Does not say whether the file is complete."""
    return next((kind for start, kind, _ in _FORMATS.values() if start.match(data)), None)


def inspect(data: bytes) -> PictureInfo:
    """Format and size of a picture, after decoding all of it."""
    with damage_is_unavailable():
        opened = open_picture(data)
        decode(opened, (1, 1))
    return opened.info


def decode(opened: OpenedPicture, size: tuple[int, int]) -> None:
    """Decode the whole picture. Call it inside `damage_is_unavailable`.

    A JPEG is read to its end too, but may be decoded smaller, down to `size`: decoding is the slow part.
    """
    opened.image.draft("RGB", size)
    opened.image.load()
    _check_size(opened.image.size)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The decoded picture as EXIF's `orientation` (1 to 8) displays it."""
    from PIL import Image  # noqa: PLC0415 - start-up does not pay for Pillow

    turns = _TURNS.get(orientation)
    return image if turns is None else image.transpose(Image.Transpose(turns))


def open_picture(data: bytes) -> OpenedPicture:
    """Read the header of a picture; nothing is decoded yet. Call it inside `damage_is_unavailable`.

    Raises ImageUnavailable if the bytes are not a PNG, JPEG, WebP or GIF, have no end, or hold too many pixels.
    """
    for extension, (start, media_type, is_whole) in _FORMATS.items():
        if not start.match(data):
            continue
        if extension == "webp":
            _check_size(_webp_size(data))
        if not is_whole(data):
            raise ImageUnavailable(_DAMAGED)
        image = _decoder(extension)(io.BytesIO(data))
        _check_size(image.size)
        width, height = image.size
        orientation = int(image.getexif().get(_ORIENTATION) or 1)
        if orientation in _TURNED:
            width, height = height, width
        return OpenedPicture(PictureInfo(media_type, extension, width, height), image, orientation)
    raise ImageUnavailable("the file behind the link is not a PNG, JPEG, WebP or GIF")


@contextmanager
def damage_is_unavailable() -> Iterator[None]:
    """Pillow's decoders raise a dozen kinds of errors on damaged bytes. All of them become ImageUnavailable."""
    try:
        yield
    except ImageUnavailable:
        raise
    except Exception:  # noqa: BLE001 - see above
        raise ImageUnavailable(_DAMAGED) from None


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageUnavailable(f"the picture has {size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}")


def _webp_size(data: bytes) -> tuple[int, int]:
    """The size of the canvas, before libwebp allocates it (RFC 9649, sections 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _decoder(extension: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """Imported on first use, so that Pillow does not slow the start."""
    from PIL.GifImagePlugin import GifImageFile  # noqa: PLC0415 - see above
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415 - see above
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 - see above
    from PIL.WebPImagePlugin import WebPImageFile  # noqa: PLC0415 - see above

    decoders = {"png": PngImageFile, "jpg": JpegImageFile, "webp": WebPImageFile, "gif": GifImageFile}
    return decoders[extension]
