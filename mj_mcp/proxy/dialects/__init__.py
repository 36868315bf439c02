"""What each kind of proxy is sent and answers, one module each. Nothing above `proxy/` knows which one is used.

Owns what a dialect is: `Dialect` is the table of what one can do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from mj_mcp.proxy.http import Answer, Auth, Fields, NoAnswer
from mj_mcp.proxy.orders import Order, Post
from mj_mcp.proxy.outcomes import Outcome, read_submit
from mj_mcp.proxy.text import Redact, check_task_id
from mj_mcp.tasks import Failure, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of proxy: how the key is sent, how a submit is posted, and how its answers are read."""

    name: str
    """The value of `MJ_PROXY_DIALECT`."""
    title: str
    auth: Auth
    post: Callable[[Order, str, Fields | None], Post | Failure]
    """The POST for an order, with our submission id, and the fetched parent if the order has one.

    A `Failure` where it cannot be done: nothing is sent.
    """
    read_task: Callable[[Fields, Redact, str], Observation | None]
    """The task of a fetch answer in its shape, with the proxy's origin; None for any other shape.

    The shapes of all dialects are tried, whichever it is: see `table.read_task`.
    """
    read_submit: Callable[[Answer | NoAnswer, Redact], Outcome] = read_submit
    """The outcome of a submit; by the family's codes where nothing else is set."""
    fetch: str = "/mj/task/{id}/fetch"
    """Where a task is fetched."""
    is_unknown: Callable[[Answer], bool] | None = None
    """Whether this is its answer to the fetch of a task that cannot exist; None where that does not tell it."""
    has_buttons: bool = False
    """Whether a parent is fetched before a follow-up, because its buttons decide the request."""
    list_path: str | None = None
    """Where its newest tasks are listed with the `state` that each submit gave."""
    dialog: Callable[[str, str | None], Post] | None = None
    """The POST that answers a dialog, for a task id and a prompt."""

    def fetch_path(self, task_id: str) -> str:
        """The path of a fetch.

        Raises:
            InvalidRequest: `task_id` would change the URL.
        """
        return self.fetch.format(id=quote(check_task_id(task_id), safe=""))
