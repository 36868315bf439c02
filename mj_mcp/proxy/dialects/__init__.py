"""What each kind of proxy is sent and answers, one module each. Nothing above `proxy/` knows which one is used.

Owns what a dialect is: `Dialect` is the table of what one can do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mj_mcp.proxy.http import Answer, Auth, Fields
from mj_mcp.proxy.orders import Order, Post
from mj_mcp.tasks import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of proxy: how the key is sent, how a submit is posted, and what its answer to a free fetch looks like.

    Fetch answers are read by their own shape, whatever the dialect.
    """

    name: str
    """The value of `MJ_PROXY_DIALECT`."""
    title: str
    auth: Auth
    is_unknown: Callable[[Answer], bool]
    """Whether this is its answer to the fetch of a task that cannot exist."""
    post: Callable[[Order, str, Fields | None], Post | Failure]
    """The POST for an order, with our submission id, and the fetched parent if the order has one.

    A `Failure` where it cannot be done: nothing is sent.
    """
    fetch_path: Callable[[str], str]
    has_buttons: bool = False
    """Whether a parent is fetched before a follow-up, because its buttons decide the request."""
    list_path: str | None = None
    """Where its newest tasks are listed with the `state` that each submit gave."""
    dialog: Callable[[str, str | None], Post] | None = None
    """The POST that answers a dialog, for a task id and a prompt."""
