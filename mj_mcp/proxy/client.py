"""The client of the Midjourney Proxy: submit, fetch, and look up a submit.

Owns every request to the proxy. Knows nothing of the journal, of waiting or of MCP.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from mj_mcp.errors import Busy, Unauthorized, UpstreamError, UpstreamUnreachable
from mj_mcp.proxy.detection import REFUSED, Detection, Found
from mj_mcp.proxy.dialects import Dialect
from mj_mcp.proxy.dialects.gateway import GATEWAY
from mj_mcp.proxy.fetched import read_fetch
from mj_mcp.proxy.http import Answer, Auth, Fields, Http, HttpRequest, NoAnswer
from mj_mcp.proxy.orders import Change, Imagine, Order, Post, Press
from mj_mcp.proxy.outcomes import (
    Accepted,
    FetchResult,
    Outcome,
    OutcomeUnknown,
    Refused,
    Trouble,
    Unknown,
    read_code,
    read_submit,
)
from mj_mcp.proxy.text import Redact, check_task_id, is_task_id
from mj_mcp.tasks import Failure, WarningCode

SUBMIT_SECONDS = 90.0
"""The total time for the answer to a submit."""

FETCH_SECONDS = 15.0

CHECK_SECONDS = 5.0

ASKS = 21
"""The code of an answer that waits for a dialog."""

_CHANGING = re.compile(rb"[0-9a-fA-F]{4,}|[0-9]+")
"""What differs between two answers with the same meaning: ids, times, numbers."""


class Proxy:
    """What you can do with a Midjourney Proxy: submit, fetch, and check that it works."""

    def __init__(
        self, http: Http, redact: Redact, detection: Detection, *, submit_seconds: float = SUBMIT_SECONDS
    ) -> None:
        """`redact` removes the key from everything that the proxy sends back."""
        self._http = http
        self._redact = redact
        self._detection = detection
        self._submit_seconds = submit_seconds
        parts = urlsplit(http.base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"

    async def submit(self, order: Order, state: str) -> Outcome:
        """Post once. Never raises for an error of the proxy or the network: an unknown outcome is a value too.

        `state` is our submission id; a proxy that stores it lets `find` look the submit up. Before the POST there may
        be free requests: which dialect it is, and which buttons the parent has.
        """
        dialect = await self._detection.known(FETCH_SECONDS)
        if isinstance(dialect, Found):
            shown = read_fetch(dialect.answer, self._redact)
            if isinstance(shown, Trouble) and not isinstance(order, Imagine):
                return _not_sent("the proxy does not show of which kind it is", shown)
            dialect = GATEWAY
        auth = self._detection.auth_for(dialect)
        parent = await self._parent(order, dialect, auth)
        if isinstance(parent, Refused):
            return parent
        post = dialect.post(order, state, parent)
        if isinstance(post, Failure):
            return Refused(replace(post, message=self._redact(post.message)))
        answer = await self._post(post, auth)
        outcome = dialect.read_submit(answer, self._redact)
        if dialect.dialog and isinstance(outcome, Accepted) and _asks(post, answer):
            opened = await self._answer_dialog(order, dialect.dialog, outcome, auth)
            # Where another code than the dialog's answered, the job may run already, whatever became of the dialog.
            may_run = isinstance(opened, Refused) and isinstance(answer, Answer) and read_code(answer) != ASKS
            return outcome if may_run else opened
        if isinstance(outcome, Accepted) and isinstance(order, Press) and order.prompt:
            return replace(outcome, warnings=(*outcome.warnings, WarningCode.PROMPT_UNUSED))
        return outcome

    async def fetch(self, task_id: str, seconds: float = FETCH_SECONDS) -> FetchResult:
        """Fetch the current state of the task, within `seconds`.

        Raises:
            InvalidRequest: `task_id` would change the URL.
        """
        check_task_id(task_id)
        return read_fetch(await self._task(task_id, seconds), self._redact, self._origin)

    async def find(self, state: str, seconds: float = FETCH_SECONDS) -> str | None:
        """The id of the task that was submitted with this `state`, in a list that some proxies have.

        None is not "never created": most proxies have no list, and one shows its newest 100 tasks only.
        """
        dialect = await self._detection.known(seconds)
        if isinstance(dialect, Found) or dialect.list_path is None:
            return None
        answer = await self._get(dialect.list_path, dialect.list_path, seconds, self._detection.auth_for(dialect))
        listed = answer.json if isinstance(answer, Answer) else None
        tasks = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        ids = {str(task.get("id")) for task in tasks if task.get("state") == state}
        return next((one for one in ids if is_task_id(one)), None) if len(ids) == 1 else None

    async def check(self, seconds: float = CHECK_SECONDS) -> FetchResult:
        """Fetch a task that cannot exist. It is free, and returns `Unknown` if the proxy works and accepts the key.

        A 404 may also mean that the path of the base URL is wrong. So the answer is compared with the one to a path
        that cannot exist. If both are the same, this returns `Trouble`.
        """
        return (await self.identify(seconds))[1]

    async def identify(self, seconds: float = CHECK_SECONDS) -> tuple[Found, FetchResult]:
        """Like `check`, with what it showed of the proxy. What was remembered before does not count."""
        found = await self._detection.find(seconds)
        answer = found.answer
        fetched = read_fetch(answer, self._redact)
        if isinstance(fetched, Unknown) and isinstance(answer, Answer) and answer.status == 404:
            nowhere = f"/mj/check-{uuid.uuid4().hex}"
            other = await self._get(nowhere, "/mj/check", seconds, found.auth)
            if isinstance(other, Answer) and _without(found.path, answer) == _without(nowhere, other):
                said = "HTTP 404 as for a path that does not exist: the path of MJ_BASE_URL is wrong or missing"
                return found, Trouble(UpstreamError.code, said)
        return found, fetched

    async def refuses_key(self) -> bool:
        """Whether the proxy refuses the key or the account now. Calls `check`."""
        fetched = await self.check()
        return isinstance(fetched, Trouble) and fetched.code == Unauthorized.code

    async def _parent(self, order: Order, dialect: Dialect, auth: Auth) -> Fields | Refused | None:
        """The task that the order is made from, as the proxy has it now; None where it does not matter."""
        if not dialect.has_buttons or not isinstance(order, Change | Press):
            return None
        answer = await self._get(dialect.fetch_path(order.parent_id), dialect.fetch, FETCH_SECONDS, auth)
        match read_fetch(answer, self._redact):
            case Unknown():
                return Refused(Failure("task_not_found", f"the proxy does not know task {order.parent_id} any more"))
            case Trouble() as trouble:
                return _not_sent(f"task {order.parent_id} could not be fetched", trouble)
            case _:
                return answer.fields if isinstance(answer, Answer) else None

    async def _answer_dialog(
        self, order: Order, dialog: Callable[[str, str | None], Post], asked: Accepted, auth: Auth
    ) -> Outcome:
        """The job waits for a prompt, and starts with it, under the same id or a new one.

        If the answer is lost, polls of the waiting task tell whether it started.
        """
        prompt = order.prompt if isinstance(order, Press) else None
        answered = read_submit(await self._post(dialog(asked.task_id, prompt), auth), self._redact)
        return Accepted(asked.task_id) if isinstance(answered, OutcomeUnknown) else answered

    async def _post(self, post: Post, auth: Auth) -> Answer | NoAnswer:
        return await self._http.request(
            HttpRequest(
                method="POST",
                path=post.path,
                json=post.body,
                seconds=self._submit_seconds,
                auth=auth,
                code_of=read_code,
            )
        )

    async def _task(self, task_id: str, seconds: float) -> Answer | NoAnswer:
        try:
            async with asyncio.timeout(seconds):
                dialect = await self._detection.known(seconds)
                if isinstance(dialect, Found):
                    return dialect.answer
                path, auth = dialect.fetch_path(task_id), self._detection.auth_for(dialect)
                answer = await self._get(path, dialect.fetch, seconds, auth)
        except TimeoutError:
            return NoAnswer(sent=True, reason=f"no complete answer within {seconds:g} s")
        if isinstance(answer, Answer) and answer.status in REFUSED:
            self._detection.doubt()
        return answer

    async def _get(self, path: str, route: str, seconds: float, auth: Auth) -> Answer | NoAnswer:
        return await self._http.request(HttpRequest(method="GET", path=path, route=route, seconds=seconds, auth=auth))


def _not_sent(what: str, trouble: Trouble) -> Refused:
    """The refusal of an order that was not posted."""
    code = trouble.code if trouble.code in {Unauthorized.code, Busy.code} else UpstreamUnreachable.code
    return Refused(Failure(code, f"{what}: {trouble.message}", trouble.retry_after))


def _asks(post: Post, answer: Answer | NoAnswer) -> bool:
    """Whether the job waits for a dialog: by the code, or by what an account with remix says, whatever the code."""
    if not isinstance(answer, Answer):
        return False
    properties = (answer.fields or {}).get("properties")
    remixes = isinstance(properties, dict) and properties.get("remix") is True
    return remixes or (post.may_ask and read_code(answer) == ASKS)


def _without(path: str, answer: Answer) -> tuple[int, bytes]:
    """An answer without the parts that repeat its own request."""
    return answer.status, _CHANGING.sub(b"", answer.body.replace(path.encode(), b""))
