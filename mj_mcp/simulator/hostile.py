"""Pictures as a hostile or broken host would serve them, by name.

Owns the table of kinds. Does not know tasks, or which picture of which task is replaced.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from mj_mcp.simulator import drawing
from mj_mcp.simulator.drawing import Drawing
from mj_mcp.simulator.listener import Reply

FOREIGN_LINKS: Final = {
    "private": "http://10.0.0.1/x.png",
    "metadata": "http://169.254.169.254/latest/x.png",
}
"""Kinds whose link redirects elsewhere."""

_REDIRECTS: Final = {
    "redirect-private": "http://10.0.0.1/x.png",
    "redirect-metadata": "http://169.254.169.254/latest/x.png",
    "redirect-loop": "/hostile/redirect-loop",
    "redirect-ok": "/hostile/png",
}

ENDLESS_BYTES: Final = 200 * 1024 * 1024
DRIP_SECONDS: Final = 0.2
_BLOCK: Final = 64 * 1024
_CACHED: Final = 128


@dataclass(frozen=True, slots=True)
class _Made:
    """A body that is computed once, and the media type that it claims."""

    make: Callable[[Drawing], bytes]
    media_type: str = "image/png"
    encoding: str | None = None
    pace: float = 0.0


def _page(_drawing: Drawing) -> bytes:
    return b"<!DOCTYPE html><html><body><script>alert(1)</script>This link has expired.</body></html>"


_MADE: Final = {
    "png": _Made(drawing.png),
    "jpeg": _Made(drawing.jpeg, "image/jpeg"),
    "webp": _Made(drawing.webp, "image/webp"),
    "gif": _Made(drawing.gif, "image/gif"),
    "wrong-extension": _Made(drawing.jpeg),
    "html": _Made(_page),
    "truncated": _Made(drawing.truncated),
    "noise": _Made(drawing.noise),
    "dark": _Made(drawing.dark),
    "light": _Made(drawing.light),
    "pixel-bomb": _Made(drawing.pixel_bomb),
    "gzip-bomb": _Made(drawing.gzip_bomb, encoding="gzip"),
    "drip": _Made(drawing.png, pace=DRIP_SECONDS),
}
_SIZELESS: Final = frozenset({"pixel-bomb", "gzip-bomb", "html"})

KINDS: Final = frozenset({*FOREIGN_LINKS, *_REDIRECTS, *_MADE, "missing", "endless"})
"""Every name that `PictureServer.serve` knows."""


class PictureServer:
    """Serves pictures by kind. Drawn pictures are cached, up to a limit, and drawn off the event loop."""

    def __init__(self) -> None:
        self._drawn: LRUCache[tuple[str, Drawing | None], asyncio.Task[bytes]] = LRUCache(_CACHED)

    async def serve(self, kind: str, what: Drawing, base: str) -> Reply:
        """Return the reply for one kind; `base` is the address that relative redirects start from."""
        if kind in FOREIGN_LINKS:
            return _moved(FOREIGN_LINKS[kind])
        if kind in _REDIRECTS:
            target = _REDIRECTS[kind]
            return _moved(base + target if target.startswith("/") else target)
        if kind == "missing":
            return Reply(404, b"no such picture", (("Content-Type", "text/plain"),))
        if kind == "endless":
            return Reply(200, _endless, (("Content-Type", "image/png"),))
        made = _MADE[kind]
        body = await self._body(kind, made, what)
        headers = [("Content-Type", made.media_type), ("Cache-Control", "private, max-age=0")]
        if made.encoding:
            headers.append(("Content-Encoding", made.encoding))
        return Reply(200, body, tuple(headers), way="drip" if made.pace else "whole", pace=made.pace)

    async def _body(self, kind: str, made: _Made, what: Drawing) -> bytes:
        key = (kind, None if kind in _SIZELESS else what)
        task = self._drawn.get(key)
        if task is None:
            task = self._drawn[key] = asyncio.create_task(asyncio.to_thread(made.make, what))
        return await asyncio.shield(task)  # another request may wait for the same drawing

    async def close(self) -> None:
        """Wait for running drawings, since a thread cannot be cancelled."""
        await asyncio.gather(*self._drawn.values(), return_exceptions=True)


def _moved(target: str) -> Reply:
    return Reply(302, b"", (("Location", target),))


def _endless() -> Iterator[bytes]:
    dice = random.Random(0)  # noqa: S311  # repeatable, no secret
    block = dice.randbytes(_BLOCK)
    yield drawing.endless_start()
    for _ in range(ENDLESS_BYTES // _BLOCK):
        yield block
