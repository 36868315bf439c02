"""One request to the proxy, over real HTTP: its deadline, its cap, its retry, and where the key goes."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import stamina
from conftest import LOAD_SECONDS
from connections import listening
from hypothesis import given
from hypothesis import strategies as st
from stamina.instrumentation import RetryDetails, set_on_retry_hooks
from structlog.testing import capture_logs

from mj_mcp import __version__
from mj_mcp.logs import redactor
from mj_mcp.proxy import Accepted, Change, Detection, Imagine, OutcomeUnknown, Proxy, Refused, Trouble
from mj_mcp.proxy.http import Answer, Http, HttpRequest, NoAnswer
from mj_mcp.proxy.transport import (
    MAX_BODY_BYTES,
    MAX_RETRY_AFTER,
    TRANSPORT_FAILURES,
    TRIES_BEFORE_SENDING,
    read_retry_after,
)
from mj_mcp.simulator import Simulator, faults
from mj_mcp.tasks import Failure, Kind, Observation, Status

pytestmark = pytest.mark.anyio

KEY = "test-key-canary-5f1b"
BODY = {"prompt": "a red mug"}


@pytest.fixture(autouse=True)
def _tries_without_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=TRIES_BEFORE_SENDING, cap=True):
        yield


@pytest.fixture
async def http(sim: Simulator) -> AsyncIterator[Http]:
    client = Http(sim.url, KEY)
    yield client
    await client.aclose()


@pytest.fixture
def proxy(http: Http) -> Proxy:
    return Proxy(http, redactor(KEY), Detection(http, dialect="gateway"))


def post(seconds: float = 5.0) -> HttpRequest:
    return HttpRequest(method="POST", path="/mj/submit/imagine", json=BODY, seconds=seconds)


def get(seconds: float = 5.0) -> HttpRequest:
    return HttpRequest(method="GET", path="/mj/task/77/fetch", seconds=seconds)


# --- the table of transport failures


def concrete(kind: type[Exception]) -> set[type[Exception]]:
    """The classes below this one that have none below themselves: what is really raised."""
    below = kind.__subclasses__()
    return set().union(*map(concrete, below)) if below else {kind}


NEVER_RAISED = {httpx.HTTPStatusError}
"""Raised by `raise_for_status` alone, which this client never calls."""

MISUSE = {httpx.CookieConflict, httpx.StreamError}
"""No word about the request: this program misusing httpx."""


def test_every_failure_of_httpx_has_a_row_and_every_row_a_failure() -> None:
    assert set(TRANSPORT_FAILURES) == concrete(httpx.HTTPError) - NEVER_RAISED | {httpx.InvalidURL}


def test_httpx_has_no_exception_that_nobody_thought_of() -> None:
    exported = {kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)}
    roots = {kind for kind in exported if kind.__mro__[1] in {Exception, RuntimeError}}
    assert roots == {httpx.HTTPError, httpx.InvalidURL, *MISUSE}


def test_only_what_comes_before_the_first_byte_counts_as_never_left() -> None:
    assert {kind for kind, (fate, _) in TRANSPORT_FAILURES.items() if fate == "never left"} == {
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
    }


@pytest.mark.parametrize("kind", TRANSPORT_FAILURES, ids=lambda kind: kind.__name__)
async def test_each_row_decides_whether_a_request_is_sent_again(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only here is httpx replaced: half of these failures cannot be provoked over a loopback socket."""
    tries = []

    @asynccontextmanager
    async def stream(*_: object, **__: object) -> AsyncIterator[httpx.Response]:
        tries.append(1)
        raise kind("with the key in it " + KEY)
        yield

    monkeypatch.setattr(httpx.AsyncClient, "stream", stream)
    fate, reason = TRANSPORT_FAILURES[kind]
    http = Http("http://127.0.0.1:9", KEY)
    assert await http.request(post()) == NoAnswer(sent=fate == "maybe sent", reason=reason)
    assert len(tries) == (1 if fate == "maybe sent" else 3)
    await http.aclose()


# --- before the request leaves


async def test_a_refused_connection_is_tried_three_times_and_never_left(sim: Simulator, http: Http) -> None:
    await sim.stop_listening()
    with capture_logs() as lines:
        assert await http.request(post()) == NoAnswer(sent=False, reason="no connection could be made")
    assert [line["attempt"] for line in lines if line["event"] == "upstream_request"] == [1, 2, 3]
    assert sim.requests == []


async def test_a_connection_that_can_be_made_the_second_time_is_used_once(sim: Simulator, http: Http) -> None:
    await sim.stop_listening()
    listening: list[asyncio.Task[None]] = []

    def listen(details: RetryDetails) -> None:
        listening.append(asyncio.create_task(sim.start_listening()))

    with stamina.set_testing(False):
        set_on_retry_hooks([listen])
        try:
            assert isinstance(await http.request(post()), Answer)
        finally:
            set_on_retry_hooks(None)
    await asyncio.gather(*listening)
    assert len(sim.ledger) == 1


@pytest.mark.parametrize("url", ["http://mj-mcp.invalid", "http://[", "gopher://127.0.0.1", "http://"])
async def test_an_address_that_leads_nowhere_never_left(url: str) -> None:
    http = Http(url, KEY)
    outcome = await http.request(post())
    assert isinstance(outcome, NoAnswer)
    assert not outcome.sent
    await http.aclose()


async def test_what_never_left_is_a_refusal_that_cost_nothing(sim: Simulator, proxy: Proxy) -> None:
    await sim.stop_listening()
    assert await proxy.submit(Imagine("a red mug"), "sub_1") == Refused(
        Failure("upstream_unreachable", "no connection could be made")
    )
    assert await proxy.fetch("77") == Trouble("upstream_unreachable", "no connection could be made")


# --- after it left


@pytest.mark.parametrize(
    ("fault", "charged"),
    [
        (faults.reset_before_accept(), 0),
        (faults.reset_after_accept(), 1),
        (faults.close_before_accept(), 0),
        (faults.close_after_accept(), 1),
        (faults.half_body(), 1),
        (faults.status(502, accept=True), 1),
        (faults.status(302, headers={"Location": "/elsewhere"}, accept=True), 1),
        (faults.html(accept=True), 1),
    ],
    ids=lambda it: getattr(it, "name", it),
)
async def test_a_submit_whose_answer_is_lost_is_sent_once_and_in_doubt(
    sim: Simulator, proxy: Proxy, fault: faults.Fault, charged: int
) -> None:
    sim.inject("imagine", fault)
    outcome = await proxy.submit(Imagine("a red mug"), "sub_1")
    assert isinstance(outcome, OutcomeUnknown), outcome
    assert sim.fired[fault.name] == 1
    assert (len(sim.requests), len(sim.ledger)) == (1, charged)


@pytest.mark.parametrize("call", [post(0.4), get(0.4)], ids=["submit", "fetch"])
@pytest.mark.parametrize(
    "fault", [faults.drip_body(0.3), faults.hang(), faults.delay(60.0)], ids=lambda fault: fault.name
)
async def test_the_deadline_is_for_the_whole_request(
    sim: Simulator, http: Http, call: HttpRequest, fault: faults.Fault
) -> None:
    sim.unknown_answer = "404"
    sim.inject("submit" if call.method == "POST" else "fetch", fault)
    began = time.monotonic()
    outcome = await http.request(call)
    passed = time.monotonic() - began
    assert isinstance(outcome, NoAnswer)
    assert outcome.sent
    assert 0.3 < passed < 0.4 + LOAD_SECONDS
    assert sim.fired[fault.name] == 1
    assert len(sim.requests) == 1


async def test_a_cancelled_request_ends_at_once_and_is_not_repeated(sim: Simulator, http: Http) -> None:
    sim.inject("submit", faults.hang())
    request = asyncio.create_task(http.request(post(60.0)))
    await sim.until(lambda: sim.fired["hang"] == 1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(request, LOAD_SECONDS)
    assert len(sim.requests) == 1


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_body_is_read_up_to_the_cap(sim: Simulator, http: Http, extra: int) -> None:
    sim.inject("fetch", faults.status(200, b" " * (MAX_BODY_BYTES + extra), name="huge"))
    outcome = await http.request(get())
    if extra:
        assert outcome == NoAnswer(sent=True, reason=f"the answer is larger than {MAX_BODY_BYTES} bytes")
    else:
        assert outcome == Answer(200, b" " * MAX_BODY_BYTES)
    assert len(sim.requests) == 1


async def test_a_body_without_an_end_is_cut_at_the_cap(sim: Simulator, http: Http) -> None:
    outcome = await http.request(HttpRequest(method="GET", path="/hostile/endless", seconds=20.0))
    assert outcome == NoAnswer(sent=True, reason=f"the answer is larger than {MAX_BODY_BYTES} bytes")


async def test_a_packed_bomb_is_cut_at_the_cap(sim: Simulator, http: Http) -> None:
    outcome = await http.request(HttpRequest(method="GET", path="/hostile/gzip-bomb", seconds=20.0))
    assert outcome == NoAnswer(sent=True, reason=f"the answer is larger than {MAX_BODY_BYTES} bytes")


async def test_a_lie_about_the_encoding_is_no_answer(sim: Simulator, http: Http) -> None:
    sim.inject("fetch", faults.status(200, b"no gzip", {"Content-Encoding": "gzip"}))
    outcome = await http.request(get())
    assert outcome == NoAnswer(sent=True, reason="the answer's content encoding was broken")
    assert sim.fired["status_200"] == 1


# --- where the key goes


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", [post(), get()], ids=["submit", "fetch"])
async def test_a_redirect_is_not_followed_and_the_key_stays(
    sim: Simulator, http: Http, call: HttpRequest, code: int
) -> None:
    async with Simulator(key=KEY, job_seconds=None) as target:
        fault = faults.status(code, headers={"Location": f"{target.url}{call.path}"})
        sim.inject("submit" if call.method == "POST" else "fetch", fault)
        assert await http.request(call) == Answer(code, b"", location=f"{target.url}{call.path}")
        assert sim.fired[fault.name] == 1
        assert target.requests == []
    assert [seen.headers["authorization"] for seen in sim.requests] == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "location",
    ["http://[", "http://", "//", "http://127.0.0.1:99999/", "javascript:alert(1)", "mailto:a@b", "gopher://x/", "%zz"],
)
async def test_a_redirect_to_nonsense_breaks_nothing(sim: Simulator, proxy: Proxy, location: str) -> None:
    fault = faults.status(302, headers={"Location": location})
    sim.inject("imagine", fault)
    assert isinstance(await proxy.submit(Imagine("a red mug"), "sub_1"), OutcomeUnknown)
    sim.inject("fetch", fault)
    assert isinstance(await proxy.fetch("77"), Trouble)
    assert sim.fired["status_302"] == 2


async def test_the_environment_cannot_route_the_key_elsewhere(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(key=KEY, job_seconds=None) as other:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        http = Http(sim.url, KEY)
        assert isinstance(await http.request(post()), Answer)
        await http.aclose()
        assert other.requests == []
    assert len(sim.requests) == 1


# --- what is sent


async def test_a_request_names_us_and_carries_exactly_the_documented_fields(sim: Simulator, proxy: Proxy) -> None:
    parent = await proxy.submit(Imagine("a red mug --ar 3:2"), "sub_1")
    assert isinstance(parent, Accepted)
    sim.finish(parent.task_id)
    for request in (
        Change(Kind.UPSCALE, parent.task_id, 1),
        Change(Kind.VARIATION, parent.task_id, 4),
        Change(Kind.REROLL, parent.task_id, None),
        Change(Kind.UPSCALE, parent.task_id, 2, shorthand=True),
        Change(Kind.VARIATION, parent.task_id, 3, shorthand=True),
        Change(Kind.REROLL, parent.task_id, None, shorthand=True),
    ):
        assert isinstance(await proxy.submit(request, "sub_1"), Accepted)
    seen = await proxy.fetch(parent.task_id)
    assert isinstance(seen, Observation)
    assert (seen.status, len(seen.images)) == (Status.SUCCEEDED, 4)

    bodies: list[tuple[str, str, Any]] = [
        (sent.method, sent.path, sent.json if sent.body else None) for sent in sim.requests
    ]
    assert bodies == [
        ("POST", "/mj/submit/imagine", {"prompt": "a red mug --ar 3:2"}),
        ("POST", "/mj/submit/change", {"taskId": parent.task_id, "action": "UPSCALE", "index": 1}),
        ("POST", "/mj/submit/change", {"taskId": parent.task_id, "action": "VARIATION", "index": 4}),
        ("POST", "/mj/submit/change", {"taskId": parent.task_id, "action": "REROLL"}),
        ("POST", "/mj/submit/simple-change", {"content": f"{parent.task_id} U2"}),
        ("POST", "/mj/submit/simple-change", {"content": f"{parent.task_id} V3"}),
        ("POST", "/mj/submit/simple-change", {"content": f"{parent.task_id} R"}),
        ("GET", f"/mj/task/{parent.task_id}/fetch", None),
    ]
    for seen_request in sim.requests:
        assert seen_request.headers["user-agent"] == f"mj-mcp/{__version__}"
        assert seen_request.headers["authorization"] == f"Bearer {KEY}"
        assert seen_request.query == ""
        if seen_request.method == "POST":
            assert seen_request.headers["content-type"] == "application/json"


async def test_the_api_is_joined_below_the_path_of_the_base_url() -> None:
    async with Simulator(key=KEY, job_seconds=None, prefix="/deep/proxy") as sim:
        http = Http(sim.url + "/", KEY)
        assert isinstance(
            await Proxy(http, redactor(KEY), Detection(http, dialect="gateway")).submit(Imagine("a red mug"), "sub_1"),
            Accepted,
        )
        await http.aclose()
        assert [request.path for request in sim.requests] == ["/deep/proxy/mj/submit/imagine"]


async def test_every_submit_has_a_connection_of_its_own_and_fetches_share_one() -> None:
    """Counted by a server that keeps every connection open for ever: only the client can close one."""
    peers: dict[str, list[int]] = {"POST": [], "GET": []}
    closed: asyncio.Queue[int] = asyncio.Queue()
    answer = b'{"code": 4}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                peers[head.split(" ")[0].upper()].append(port)
                await reader.readexactly(
                    int((head + "content-length: 0").split("content-length: ")[1].split("\r\n")[0])
                )
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        except asyncio.IncompleteReadError:
            closed.put_nowait(port)

    async with listening(serve) as own:
        http = Http(f"http://127.0.0.1:{own}", KEY)
        for _ in range(3):
            assert await http.request(post()) == Answer(200, answer)
            assert await http.request(get()) == Answer(200, answer)
        async with asyncio.timeout(5):
            assert {await closed.get() for _ in range(3)} == set(peers["POST"])
        assert (len(peers["POST"]), len(peers["GET"])) == (3, 3)
        assert len(set(peers["GET"])) == 1
        await http.aclose()


async def test_closing_twice_is_closing_once(http: Http) -> None:
    assert isinstance(await http.request(get()), Answer)
    await http.aclose()
    await http.aclose()


# --- Retry-After

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("30", 30.0),
        (" 30 ", 30.0),
        ("2.5", 2.5),
        ("-5", 0.0),
        ("3601", MAX_RETRY_AFTER),
        ("99999999999999999999", MAX_RETRY_AFTER),
        ("1e400", MAX_RETRY_AFTER),
        ("inf", MAX_RETRY_AFTER),
        ("-inf", 0.0),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120.0),
        ("Fri, 15 Jan 2027 08:02:00 +0000", 120.0),
        ("Fri, 15 Jan 2027 08:02:00 -0000", 120.0),
        ("Friday, 15-Jan-27 08:02:00 GMT", 120.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Jan 9999 07:00:00 GMT", MAX_RETRY_AFTER),
        ("Fri, 15 Jan 99999 07:00:00 GMT", None),
        ("soon", None),
        ("30 s", None),
        ("1; 2", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(
    text: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert read_retry_after(text, lambda: NOW) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text() | st.floats().map(str) | st.integers().map(str) | st.just("nan"))
def test_no_retry_after_leaves_the_bounds(text: str) -> None:
    seconds = read_retry_after(text, lambda: NOW)
    assert seconds is None or 0.0 <= seconds <= MAX_RETRY_AFTER


@pytest.mark.parametrize(
    ("header", "seconds"), [("17", 17.0), ("-1", 0.0), ("1e99", MAX_RETRY_AFTER), ("whenever", None)]
)
async def test_a_retry_after_over_http_reaches_who_asked(
    sim: Simulator, proxy: Proxy, header: str, seconds: float | None
) -> None:
    sim.inject("submit", faults.retry_after(header))
    sim.inject("fetch", faults.retry_after(header))
    refused = await proxy.submit(Imagine("a red mug"), "sub_1")
    trouble = await proxy.fetch("77")
    assert refused == Refused(Failure("busy", "HTTP 429 with an empty body", seconds))
    assert trouble == Trouble("busy", "HTTP 429 with an empty body", seconds)
    assert sim.fired["retry_after"] == 2
    assert sim.ledger == []


async def test_a_retry_after_is_also_read_beside_a_code(sim: Simulator, proxy: Proxy) -> None:
    body = json.dumps({"code": 30, "description": "saturated"}).encode()
    sim.inject("submit", faults.status(429, body, {"Retry-After": "9"}))
    assert await proxy.submit(Imagine("a red mug"), "sub_1") == Refused(
        Failure("busy", "the proxy refused it with code 30: saturated", 9.0)
    )
    assert sim.fired["status_429"] == 1
