"""What a person at this machine asks for by a command, and no tool offers: describe and blend.

Owns what such a request is in the journal. Knows nothing of commands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from mj_mcp.proxy import Order
from mj_mcp.proxy.orders import Blend, Describe
from mj_mcp.studio.call import Call
from mj_mcp.studio.references import References
from mj_mcp.studio.result import Purchase, Result
from mj_mcp.tasks import Kind, Task


class ByHand:
    """The requests of a person. Each picture is a file, or `ID#N`."""

    def __init__(
        self,
        references: References,
        new: Callable[[Call, Kind | None], Task],
        submit: Callable[[Call, Task, Order, Purchase], Awaitable[Result]],
        wait: Callable[[Call, Result], Awaitable[Result]],
    ) -> None:
        """`new` makes the row of a request. The others are the studio's."""
        self._references = references
        self._new = new
        self._submit = submit
        self._wait = wait

    async def describe(self, picture: str, wait_seconds: float, *, allow_duplicate: bool = False) -> Result:
        """Buy four prompts that describe a picture, and wait for them. They become the prompt of the task.

        Raises like `Studio.imagine`.
        """
        (upload,) = await self._references.uploads([picture])
        purchase = Purchase(allow_duplicate=allow_duplicate)
        return await self._bought(None, f"describe {upload.key}", Describe(upload.url), wait_seconds, purchase)

    async def blend(self, pictures: Sequence[str], wait_seconds: float, *, allow_duplicate: bool = False) -> Result:
        """Buy a grid made of two to five pictures, and wait for it. Raises like `Studio.imagine`."""
        uploads = await self._references.uploads(pictures)
        words = " ".join(["blend", *(upload.key for upload in uploads)])
        order = Blend(tuple(upload.url for upload in uploads))
        return await self._bought(Kind.IMAGINE, words, order, wait_seconds, Purchase(allow_duplicate=allow_duplicate))

    async def _bought(
        self, kind: Kind | None, words: str, order: Order, wait_seconds: float, purchase: Purchase
    ) -> Result:
        """`words` name the pictures. They stand for the prompt in the row, and make two requests identical."""
        call = Call(wait_seconds=wait_seconds)
        task = replace(self._new(call, kind), prompt=words)
        return await self._wait(call, await self._submit(call, task, order, purchase))
