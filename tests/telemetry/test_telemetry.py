"""What operators see, on the wire: a real server exports by OTLP/HTTP to a real collector on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, attributes, collecting
from conftest import KEY, LOAD_SECONDS, PROTOCOLS, Caller

from mj_mcp.settings.signals import read_signals
from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

PROMPT = "a canary of glass 7d1e"
SERVER, CLIENT = 2, 3
"""Kinds of spans."""


async def _session(sim: Simulator, spawn: Spawn, collector: Collector, **extra: str) -> list[dict[str, Any]]:
    """One picture bought and seen to its end, one submit refused, one in doubt; the log of all that."""
    async with spawn(sim, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **extra) as caller:
        bought = await caller.task("generate_image", prompt=PROMPT, wait_seconds=0)
        sim.finish(bought["task_id"])
        done = await caller.task("get_task", task_id=bought["task_id"], wait_seconds=30, include_image=False)
        assert done["status"] == "succeeded"
        sim.inject("submit", faults.code(24))
        assert (await caller.error("generate_image", prompt=f"{PROMPT} again"))["code"] == "prompt_refused"
        sim.inject("submit", faults.reset_after_accept())
        assert (await caller.error("generate_image", prompt=f"{PROMPT} lost"))["code"] == "unconfirmed"
    assert sim.faults_left() == 0
    return caller.logged()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_call_and_what_it_asks_of_the_proxy_are_one_trace_with_the_logs_call_id(
    sim: Simulator, spawn: Spawn, protocol: str
) -> None:
    with collecting() as collector:
        log = await _session(sim, spawn, collector, protocol=protocol)
    calls = [line for line in log if line["event"] == "tool_call" and line["tool"] == "generate_image"]
    tools = [span for span in collector.spans if span.name == "tools/call generate_image"]
    tools.sort(key=lambda span: span.start_time_unix_nano)
    ids = [line["call_id"] for line in calls]
    assert [attributes(span.attributes)["mj_mcp.call_id"] for span in tools] == ids
    for tool, call_id in zip(tools, ids, strict=True):
        below = [span for span in collector.spans if span.trace_id == tool.trace_id and span.kind == CLIENT]
        assert [span.parent_span_id for span in below if span.name == "POST /mj/submit/imagine"] == [tool.span_id]
        assert {attributes(span.attributes)["mj_mcp.call_id"] for span in below} == {call_id}
    # The task was polled in the trace of the call that bought it, though that call had long answered.
    bought = [span for span in collector.spans if span.trace_id == tools[0].trace_id]
    assert any(span.name == "GET /mj/task/{id}/fetch" for span in bought)
    # Each request that the log tells of is one span, and the other way round.
    requests = [line for line in log if line["event"] == "upstream_request"]
    assert len(requests) == sum(span.kind == CLIENT for span in collector.spans)
    traced = {
        (seen.get("http.response.status_code"), seen.get("mj_mcp.proxy_code"), seen.get("error.type"))
        for span in collector.spans
        if span.kind == CLIENT
        for seen in [attributes(span.attributes)]
    }
    assert traced == {(line["status"], line["code"], line["failure"]) for line in requests}
    assert {resource["service.name"] for resource in collector.resources} == {"mj-mcp"}


async def test_the_numbers_are_those_of_what_happened(sim: Simulator, spawn: Spawn) -> None:
    with collecting() as collector:
        log = await _session(sim, spawn, collector, OTEL_SERVICE_NAME="pictures")
    submits = {
        (seen["kind"], seen["outcome"], seen.get("error.type")): point.as_int
        for seen, point in collector.points("mj_mcp.submits")
    }
    assert submits == {
        ("imagine", "accepted", None): 1,
        ("imagine", "refused", "prompt_refused"): 1,
        ("imagine", "unconfirmed", "unconfirmed"): 1,
    }
    assert [(seen, point.as_int) for seen, point in collector.points("mj_mcp.spend")] == [({"identity": "local"}, 1)]
    [(seen, job)] = collector.points("mj_mcp.job.duration")
    assert (seen, job.count) == ({"kind": "imagine", "status": "succeeded"}, 1)
    [(_, delay)] = collector.points("mj_mcp.notice.delay")
    assert delay.count == 1
    assert 0 <= delay.sum <= job.sum + 0.001 < 30
    calls = {(seen["tool"], seen["outcome"], seen.get("error.type")): p.count for seen, p in _calls(collector)}
    assert calls == {
        ("generate_image", "ok", None): 1,
        ("generate_image", "error", "prompt_refused"): 1,
        ("generate_image", "error", "unconfirmed"): 1,
        ("get_task", "ok", None): 1,
    }
    logged = sum(line["ms"] for line in log if line["event"] == "tool_call") / 1000
    assert sum(point.sum for _, point in _calls(collector)) == pytest.approx(logged, abs=0.001)
    assert _load(collector) == {"mj_mcp.tasks.open": 0, "mj_mcp.waiters": 0}
    assert {resource["service.name"] for resource in collector.resources} == {"pictures"}


async def test_open_tasks_and_waiters_are_counted_while_they_last(sim: Simulator, spawn: Spawn) -> None:
    with collecting() as collector:
        often = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
        async with spawn(sim, **often) as caller:
            bought = await caller.task("generate_image", prompt=PROMPT, wait_seconds=0)
            ask = {"task_id": bought["task_id"], "wait_seconds": 30}
            waiting = [asyncio.create_task(caller.task("get_task", **ask)) for _ in range(2)]
            await collector.until(lambda: _load(collector) == {"mj_mcp.tasks.open": 1, "mj_mcp.waiters": 2})
            sim.finish(bought["task_id"])
            await asyncio.gather(*waiting)
            await collector.until(lambda: _load(collector) == {"mj_mcp.tasks.open": 0, "mj_mcp.waiters": 0})


async def test_no_prompt_key_or_link_leaves_in_telemetry(sim: Simulator, spawn: Spawn) -> None:
    with collecting() as collector:
        log = await _session(sim, spawn, collector)
        async with spawn(sim, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as caller:
            with pytest.raises(Exception, match="canary"):
                await caller.client.read_resource("mj://canary/7d1e")
    sent = b"".join(collector.bodies)
    assert log
    assert b"mj_mcp.call_id" in sent
    for secret in (PROMPT, "canary", KEY, "Bearer", sim.url, "/cdn/", ".png"):
        assert secret.encode() not in sent, secret


async def test_without_an_endpoint_nothing_beyond_the_api_is_imported(
    sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    async with spawn(sim, PYTHONPROFILEIMPORTTIME="1") as caller:
        await caller.task("generate_image", prompt=PROMPT, wait_seconds=0)
    imported = (tmp_path / "server.log").read_text()
    assert "opentelemetry.trace" in imported
    assert "opentelemetry.sdk" not in imported
    assert "opentelemetry.exporter" not in imported
    assert "opentelemetry.metrics" not in imported


async def test_without_the_extra_the_server_says_so_and_serves(sim: Simulator, spawn: Spawn, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n")
    with collecting() as collector:
        async with spawn(sim, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, PYTHONPATH=str(hidden)) as caller:
            assert (await caller.task("generate_image", prompt=PROMPT, wait_seconds=0))["status"] == "queued"
    [line] = caller.logged("telemetry_unavailable")
    assert "[otel]" in line["reason"]
    assert collector.bodies == []


@pytest.mark.slow
async def test_a_collector_that_hangs_holds_no_stop_up_for_long(sim: Simulator, spawn: Spawn) -> None:
    with collecting() as collector:
        collector.hang = threading.Event()
        async with spawn(sim, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as caller:
            await caller.task("generate_image", prompt=PROMPT, wait_seconds=0)
            caller.stop()
            began = time.monotonic()
            await collector.until(lambda: bool(collector.bodies))
            await collector.until(lambda: bool(caller.logged("telemetry_not_flushed")))
            assert time.monotonic() - began < 5 + LOAD_SECONDS
        collector.hang.set()


def test_the_standard_variables_say_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"traces", "metrics"}
    shared, one = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    cases: list[tuple[dict[str, str], set[str]]] = [
        ({}, set()),
        ({shared: ""}, set()),
        ({shared: "http://127.0.0.1:4318"}, both),
        ({one: "http://127.0.0.1:4318/v1/traces"}, {"traces"}),
        ({shared: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "True"}, set()),
        ({shared: "http://127.0.0.1:4318", "OTEL_METRICS_EXPORTER": "none"}, {"traces"}),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, set()),
    ]
    for variables, signals in cases:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            assert read_signals() == signals, variables


def _calls(collector: Collector) -> list[tuple[dict[str, Any], Any]]:
    return collector.points("mj_mcp.call.duration")


def _load(collector: Collector) -> dict[str, int]:
    names = {"mj_mcp.tasks.open", "mj_mcp.waiters"} & collector.metrics.keys()
    return {name: point.as_int for name in names for _, point in collector.points(name)}
