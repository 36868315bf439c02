"""Outcomes by the words of relays and vendors: success under other names, lost answers, odd wrappings."""

from __future__ import annotations

import codecs
import json

import pytest
from answers import CODES, ID, KEY, PAGE, answer, doubtful, redact, refused, submitted, vendor

from mj_mcp.errors import ERRORS
from mj_mcp.proxy.outcomes import REFUSALS, UNKNOWN_OUTCOMES, Accepted, OutcomeUnknown, Refused, read_code, read_submit
from mj_mcp.tasks import Failure

# --- success under other names

ELSEWHERE: list[object] = [
    {"code": 200, "data": [{"task_id": ID}]},
    {"code": 200, "data": {"task_id": ID}},
    {"code": 200, "data": {"taskId": ID, "status": "queued"}},
    {"code": 200, "data": {"result": ID}},
    {"code": 200, "data": {"result": [int(ID)]}},
    {"code": "200", "data": {"task_id": int(ID)}},
    {"code": 200, "result": ID},
    {"code": 200, "result": {"task_id": ID}},
    {"code": 200, "task": {"task_id": ID}, "task_id": ID},
    {"code": 0, "taskId": ID},
    {"code": 0, "task_id": ID, "message": "success"},
    {"code": 0, "data": {"taskId": ID}, "request_id": "r-1"},
    {"code": 1, "task_id": ID},
    {"code": 22, "result": {"taskId": ID}},
    {"success": True, "data": {"task_id": ID}},
    {"status": "success", "task_id": ID},
    {"code": "success", "data": {"task_id": ID}},
    {"ok": True, "result": ID},
]


@pytest.mark.parametrize("body", ELSEWHERE, ids=json.dumps)
def test_an_id_under_another_name_is_taken_where_there_is_one_and_the_answer_says_success(body: object) -> None:
    assert submitted(body) == Accepted(ID)


IN_DOUBT: list[object] = [
    {"code": 200},
    {"code": 201, "message": "created"},
    {"code": 200, "message": "no"},
    {"code": 200, "data": [{"task_id": "1"}, {"task_id": "2"}]},
    {"code": 200, "task_id": "1", "taskId": "2"},
    {"code": 200, "data": {"task_id": ID}, "success": False},
    {"code": 0, "taskId": ID, "error": "the parent has not finished"},
    {"code": 200, "data": {"task_id": KEY}},
    {"code": 200, "result": "ok"},
    {"code": 0, "id": ID},
    {"code": 0, "message": "success"},
    {"code": 0, "msg": "提交成功"},
    {"code": 0, "success": True},
    {"code": 77, "result": ID},
    {"code": 77, "data": {"job": {"jobId": ID}}},
    {"code": 77, "taskId": ID},
    {"code": 77, "message": "OK"},
    {"code": 77, "data": {"accepted": 1}},
    {"code": 409, "data": {"task_id": ID}},
    {"code": 500, "message": "internal error"},
    {"task_id": ID},
    {"result": ID},
    {"id": ID, "object": "job"},
    {"success": True},
    {"data": ID},
    [{"code": 1, "result": ID}],
]


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("body", IN_DOUBT, ids=lambda body: json.dumps(body)[:40])
def test_a_2xx_that_is_like_a_success_is_never_a_refusal(body: object, status: int) -> None:
    assert KEY not in doubtful(body, status)


@pytest.mark.parametrize(
    "body",
    [
        {"code": 77, "message": "no credit", "requestId": "r-1", "trace_id": "t-1"},
        {"code": 77, "success": False, "data": None, "result": ""},
        {"code": 77, "message": "unsuccessful"},
        {"code": 0, "message": "no", "data": {}},
        {"code": 4, "result": ID, "message": "success"},
    ],
    ids=json.dumps,
)
def test_a_2xx_that_is_nothing_like_a_success_is_a_refusal(body: object) -> None:
    assert refused(body).code == "rejected"


@pytest.mark.parametrize(
    "body",
    [{"code": 0, "taskId": ID}, {"code": 200, "data": {"task_id": ID}}, {"success": True, "task_id": ID}],
    ids=json.dumps,
)
@pytest.mark.parametrize("status", [400, 404, 422])
def test_outside_a_2xx_an_id_under_another_name_may_be_the_parents(body: object, status: int) -> None:
    assert refused(body, status).code == "rejected"


def test_a_deep_answer_is_searched_whole() -> None:
    deep = b'{"code": 77, "x": ' + b"[" * 500 + b'{"taskId": "1"}' + b"]" * 500 + b"}"
    doubtful(deep)


# --- what a relay or a vendor says by name

LOST = ["do_request_failed ", "read_response_body_failed ", "unmarshal_response_body_failed ", "", "whatever"]


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        *((5, words) for words in LOST),
        (4, "insert_midjourney_task_failed "),
        (4, "copy_response_body_failed "),
        (4, "close_response_body_failed "),
    ],
)
def test_a_relay_that_lost_its_upstreams_answer_is_doubt(code: int, words: str, status: int) -> None:
    said = doubtful({"description": words, "type": "upstream_error", "code": code}, status)
    assert said.startswith(f"the proxy lost track of it with code {code}")
    assert words.strip() in said


@pytest.mark.parametrize(
    ("body", "ours"),
    [
        ({"description": "quota_not_enough ", "type": "upstream_error", "code": 4}, "unauthorized"),
        ({"description": "task_not_found ", "type": "upstream_error", "code": 4}, "rejected"),
        ({"description": "index_is_required ", "type": "upstream_error", "code": 4}, "rejected"),
        ({"description": "internal", "code": 5}, "rejected"),
        ({"description": "internal", "type": "upstream_error", "code": 5, "result": ID}, "rejected"),
    ],
    ids=json.dumps,
)
def test_a_relay_that_sent_nothing_on_refuses(body: object, ours: str) -> None:
    assert refused(body, 400).code == ours


VENDOR = {
    "ILLEGAL_PROMPT": (400, "prompt_refused"),
    "ILLEGAL_IMAGE_CONTENT": (400, "rejected"),
    "INVALID_REQUEST_BODY": (400, "rejected"),
    "MISSING_API_KEY": (400, "unauthorized"),
    "BILLING_BALANCE_NOT_ENOUGH": (400, "unauthorized"),
    "INVALID_API_KEY": (403, "unauthorized"),
    "API_NOT_ALLOWED": (403, "unauthorized"),
    "NEED_REAL_NAME_VERIFY": (403, "unauthorized"),
    "BILLING_AUTH_FAILED": (403, "unauthorized"),
    "TASK_NOT_FOUND": (404, "rejected"),
    "API_NOT_FOUND": (404, "rejected"),
    "PATH_NOT_FOUND": (404, "rejected"),
    "RATE_LIMIT_EXCEEDED": (429, "busy"),
}


@pytest.mark.parametrize("always_200", [False, True])
@pytest.mark.parametrize(("reason", "code", "ours"), [(name, *row) for name, row in VENDOR.items()])
def test_the_vendors_reasons_keep_their_kind_and_their_words(
    reason: str, code: int, ours: str, always_200: bool
) -> None:
    failure = refused(vendor(reason, code), 200 if always_200 else code)
    assert failure.code == ours
    assert failure.message.startswith(f"the proxy refused it with {reason}: the vendor's words")
    assert ("MJ_BASE_URL" in failure.message) == (reason in {"API_NOT_FOUND", "PATH_NOT_FOUND"})


@pytest.mark.parametrize("reason", ["CREATE_TASK_FAILED", "GET_RESULT_FAILED", "TASK_FAILED", "BILLING_FAILED"])
@pytest.mark.parametrize(("code", "status"), [(500, 500), (500, 200), (500, 400), (400, 400)])
def test_the_vendors_failures_on_its_own_side_are_doubt(reason: str, code: int, status: int) -> None:
    assert doubtful(vendor(reason, code), status) == f"the proxy lost track of it with {reason}: the vendor's words"
    assert "the vendor's words" in doubtful(vendor("NEW", 500), status)


def test_a_reason_of_the_vendor_that_we_do_not_know_is_judged_by_its_code() -> None:
    assert refused(vendor("NEW", 400), 400) == Failure(
        "rejected", "the proxy refused it with code 400: the vendor's words"
    )
    assert refused(vendor("NEW", 402), 200).code == "unauthorized"
    assert refused(vendor("", 400, message=""), 400).message == "the proxy refused it with code 400"


def test_every_name_and_code_of_the_tables_is_in_a_test() -> None:
    assert {name for name in REFUSALS if isinstance(name, str)} == {*VENDOR, "quota_not_enough"}
    assert {code for code in REFUSALS if isinstance(code, int)} == set(CODES)
    assert not REFUSALS.keys() & UNKNOWN_OUTCOMES
    assert all(kind.code in ERRORS for kind in REFUSALS.values())


# --- what is about the account


@pytest.mark.parametrize(
    ("body", "status", "about"),
    [
        (b"", 401, 401),
        (b"", 402, 402),
        (b"", 403, 403),
        (PAGE, 403, 403),
        ({"code": 4}, 401, 401),
        ({"code": 401, "message": "invalid token"}, 200, 401),
        ({"code": 401, "message": "invalid token"}, 400, 401),
        (vendor("INVALID_API_KEY", 403), 403, 403),
        # Another, cheaper request may still be paid for.
        (vendor("BILLING_BALANCE_NOT_ENOUGH", 400), 400, None),
        ({"description": "quota_not_enough ", "type": "upstream_error", "code": 4}, 400, None),
        ({"code": 23}, 401, None),
        ({"code": 24}, 403, None),
        (b"", 429, None),
        (b"", 404, None),
    ],
    ids=lambda it: json.dumps(it)[:30] if not isinstance(it, bytes) else it[:9].decode(),
)
def test_a_refusal_tells_the_status_when_it_may_be_about_the_account(
    body: object, status: int, about: int | None
) -> None:
    outcome = submitted(body, status)
    assert isinstance(outcome, Refused)
    assert outcome.status == about


# --- odd wrappings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_before_the_json_does_not_matter(encoding: str) -> None:
    body = json.dumps({"code": 1, "result": ID}).encode(encoding)
    assert body.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE))
    assert submitted(body) == Accepted(ID)
    assert read_code(answer(body)) == 1
    assert "web page" in doubtful(codecs.BOM_UTF8 + PAGE)
    assert "empty" in doubtful(codecs.BOM_UTF8)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (
            "https://www.example.com/api/mj/submit/imagine?x=1",
            "redirects to https://www.example.com/api: set MJ_BASE_URL to that address",
        ),
        (
            "https://www.example.com/login?next=1",
            "redirects to https://www.example.com/login, which is not this API: check MJ_BASE_URL",
        ),
        (f"https://www.example.com/?key={KEY}", "redirects elsewhere: check MJ_BASE_URL"),
        (None, "redirects elsewhere: check MJ_BASE_URL"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_doubt_and_says_where_it_leads(location: str | None, said: str, status: int) -> None:
    outcome = read_submit(answer(b"", status, location=location), redact)
    assert outcome == OutcomeUnknown(f"HTTP {status} {said}")


@pytest.mark.parametrize(("body", "status"), [(b"", 404), ({"detail": "Not Found"}, 404), (b"no", 405)])
def test_a_path_that_is_not_there_names_the_setting(body: object, status: int) -> None:
    assert "the path of MJ_BASE_URL may be wrong" in refused(body, status).message
