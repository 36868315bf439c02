"""Pictures: fetched safely, measured, drawn on sheets, saved in full size.

Owns everything between a link and a file or a view. Does not know the proxy's API or its key, the journal, tasks
beyond their ids, MCP, or the environment: what it may do is passed in.

    guard, link   which address may be connected to; which links are acceptable
    fetch         the bytes of one picture, limited in size and time
    decode        what the bytes are, by decoding them
    grid          the four pictures of a 2x2 grid
    sheet         labelled sheets, the numbered contact sheet, and one picture to view
    workers       decode and sheet on threads, off the event loop
    saving        files for a person, inside one folder, under names we make
"""

from mj_mcp.pictures.decode import EXTENSION_OF, PictureInfo, inspect, media_type_of
from mj_mcp.pictures.fetch import MAX_PICTURE_BYTES, LinkExpired, PictureClient
from mj_mcp.pictures.saving import Original, SavedFile, check_name, save_originals
from mj_mcp.pictures.sheet import SHEET_BYTES, Format, Rendered, Tile, contact_sheet, labelled_sheet, single_view, tile
from mj_mcp.pictures.workers import PictureWorkers
from mj_mcp.urls import part_of

__all__ = [
    "EXTENSION_OF",
    "MAX_PICTURE_BYTES",
    "SHEET_BYTES",
    "Format",
    "LinkExpired",
    "Original",
    "PictureClient",
    "PictureInfo",
    "PictureWorkers",
    "Rendered",
    "SavedFile",
    "Tile",
    "check_name",
    "contact_sheet",
    "inspect",
    "labelled_sheet",
    "media_type_of",
    "part_of",
    "save_originals",
    "single_view",
    "tile",
]
