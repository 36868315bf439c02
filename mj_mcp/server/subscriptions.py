"""Subscriptions to `mj://tasks` and `mj://tasks/{task_id}`: who has one, and how changes are sent.

Owns the open streams of this process, in both generations of the protocol. Replicas need nothing more: each learns of
every change through the shared journal and notifies its own subscribers. Does not know how a change is found.

Callers are notified of their own tasks only. A subscription does not check whether the task exists, so another owner's
task looks like one that does not exist: no notification ever comes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from anyio import BrokenResourceError, ClosedResourceError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.server.subscriptions import ResourceUpdated, ServerEvent
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from mj_mcp.server.identity import caller
from mj_mcp.tasks import Task

log = structlog.get_logger("mj_mcp.subscriptions")

MAX_URIS = 1_000
"""The most URIs that one connection of the older generation may subscribe to."""

_LISTENABLE = re.compile(r"mj://tasks(/[^/\s]{1,128})?")

Listener = Callable[[ServerEvent], None]


class Bus:
    """The SDK's `SubscriptionBus`, in which each listener belongs to the caller who opened it."""

    def __init__(self) -> None:
        """Starts without listeners."""
        self._listeners: dict[object, tuple[str, Listener]] = {}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Notify `listener` of the caller's tasks until the returned function is called."""
        token = object()
        self._listeners[token] = (caller().owner, listener)
        return lambda: self._forget(token)

    def notify(self, task: Task) -> None:
        """`task` has changed: notify its owner's listeners of each of its URIs."""
        listeners = [listener for owner, listener in self._listeners.values() if owner == task.owner]
        for handle in filter(None, (task.task_id, task.submission_id)) if listeners else ():
            self._deliver(listeners, ResourceUpdated(f"mj://tasks/{handle}"))
        self._deliver(listeners, ResourceUpdated("mj://tasks"))

    async def publish(self, event: ServerEvent) -> None:
        """Events that a call publishes through the SDK go to its own caller."""
        self._deliver([listener for owner, listener in self._listeners.values() if owner == caller().owner], event)

    def _deliver(self, listeners: list[Listener], event: ServerEvent) -> None:
        for listener in listeners:
            listener(event)

    def _forget(self, token: object) -> None:
        self._listeners.pop(token, None)


class _Subscriber:
    """A connection of the older generation: its subscriptions, and the notifications still to send."""

    def __init__(self, session: ServerSession, bus: Bus) -> None:
        self.uris: set[str] = set()
        self._session = session
        self._changed: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._leave = bus.subscribe(self._enqueue)
        self._sending = asyncio.create_task(self._notify())

    async def aclose(self) -> None:
        """The connection is closed."""
        self._leave()
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)

    def _enqueue(self, event: ServerEvent) -> None:
        if isinstance(event, ResourceUpdated) and event.uri in self.uris:
            self._changed[event.uri] = None
            self._wake.set()

    async def _notify(self) -> None:
        """One notification per URI, however often it changed while a slow client received the last one."""
        with suppress(BrokenResourceError, ClosedResourceError):
            while await self._wake.wait():
                self._wake.clear()
                while self._changed:
                    uri = next(iter(self._changed))
                    del self._changed[uri]
                    await self._notify_of(uri)

    async def _notify_of(self, uri: str) -> None:
        """An error loses this notification only; the next one is sent."""
        try:
            await self._session.send_resource_updated(uri)
        except (BrokenResourceError, ClosedResourceError):
            raise
        except Exception:
            log.exception("subscriber_not_notified", uri=uri)


def serve_older(server: Server[Any], bus: Bus) -> None:
    """Serve `resources/subscribe` and `resources/unsubscribe`. The SDK itself serves only `subscriptions/listen`."""

    async def subscribe(ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        if not _LISTENABLE.fullmatch(params.uri):
            raise MCPError(
                INVALID_PARAMS,
                f"uri: you can subscribe to mj://tasks and mj://tasks/{{task_id}}, not {params.uri[:200]}",
            )
        connection = ctx.session._connection  # noqa: SLF001 - the SDK has no public way to a connection's end
        subscriber = connection.state.get(_SUBSCRIBER)
        if subscriber is None:
            subscriber = connection.state[_SUBSCRIBER] = _Subscriber(ctx.session, bus)
            connection.exit_stack.push_async_callback(subscriber.aclose)
        if len(subscriber.uris) >= MAX_URIS and params.uri not in subscriber.uris:
            raise MCPError(INVALID_PARAMS, f"uri: this connection has {MAX_URIS} subscriptions, the most allowed")
        subscriber.uris.add(params.uri)
        return EmptyResult()

    async def unsubscribe(ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams) -> EmptyResult:
        if subscriber := ctx.session._connection.state.get(_SUBSCRIBER):  # noqa: SLF001 - as above
            subscriber.uris.discard(params.uri)
        return EmptyResult()

    server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


_SUBSCRIBER = "mj_mcp.subscriber"
