"""What became of a submit: every code, every reason, every form of an id, and all that cannot be read."""

from __future__ import annotations

import codecs
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mj_mcp.errors import ERRORS
from mj_mcp.logs import redactor
from mj_mcp.proxy.http import Answer, NoAnswer
from mj_mcp.proxy.outcomes import (
    REFUSALS,
    UNKNOWN_OUTCOMES,
    Accepted,
    Outcome,
    OutcomeUnknown,
    Refused,
    read_code,
    read_submit,
)
from mj_mcp.proxy.text import check_task_id
from mj_mcp.tasks import Failure

KEY = "sk-canary/5f1b+77"
ID = "1234567890123456"

redact = redactor(KEY)

PAGE = b"<!DOCTYPE html><html><body>Checking your browser <script>secret()</script></body></html>"
DEEP = b"[" * 100_000 + b"]" * 100_000


def answer(body: object, status: int = 200, retry_after: float | None = None, location: str | None = None) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after, location)


def submitted(body: object, status: int = 200, retry_after: float | None = None) -> Outcome:
    return read_submit(answer(body, status, retry_after), redact)


def refused(body: object, status: int = 200, retry_after: float | None = None) -> Failure:
    outcome = submitted(body, status, retry_after)
    assert isinstance(outcome, Refused), outcome
    return outcome.failure


def doubtful(body: object, status: int = 200) -> str:
    outcome = submitted(body, status)
    assert isinstance(outcome, OutcomeUnknown), outcome
    return outcome.reason


# --- submits: every code seen in the family


@pytest.mark.parametrize("status", [200, 201, 400, 404, 429, 500, 502, 503])
@pytest.mark.parametrize(
    ("code", "warnings"),
    [(1, ()), (0, ()), (22, ()), (21, ("existed",))],
)
def test_a_code_of_success_with_an_id_is_accepted_whatever_the_status(
    status: int, code: int, warnings: tuple[str, ...]
) -> None:
    assert submitted({"code": code, "result": ID}, status) == Accepted(ID, warnings)


CODES = {
    3: "rejected",
    4: "rejected",
    5: "rejected",
    9: "rejected",
    23: "busy",
    24: "prompt_refused",
    30: "busy",
}


@pytest.mark.parametrize("status", [200, 400, 404, 422, 500, 502, 503, 504])
@pytest.mark.parametrize(("code", "ours"), CODES.items())
def test_a_listed_code_of_refusal_is_a_refusal_whatever_the_status(status: int, code: int, ours: str) -> None:
    assert refused({"code": code, "description": "so it is"}, status, 7.0) == Failure(
        ours, f"the proxy refused it with code {code}: so it is", 7.0
    )


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        (401, 4, "unauthorized"),
        (402, 4, "unauthorized"),
        (403, 3, "unauthorized"),
        (429, 4, "busy"),
        (429, 30, "busy"),
        (429, 24, "prompt_refused"),
        (401, 23, "busy"),
        (401, 77, "unauthorized"),
        (429, 77, "busy"),
    ],
)
def test_where_the_body_says_less_the_status_says_more(status: int, code: int, ours: str) -> None:
    assert refused({"code": code, "description": "no"}, status, 7.0) == Failure(
        ours, f"the proxy refused it with code {code}: no", 7.0
    )


@pytest.mark.parametrize("result", [None, {}, [], "", 0, False, True, 1.5, ["1", "2"], {"id": 1}], ids=json.dumps)
@pytest.mark.parametrize(("code", "ours"), CODES.items())
def test_a_refusal_is_read_whatever_stands_beside_it(code: int, ours: str, result: object) -> None:
    assert refused({"code": code, "result": result, "properties": 1, "description": {"odd": 1}}) == Failure(
        ours, f"the proxy refused it with code {code}"
    )


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize("code", [0, 2, 7, 99, -1, 404])
def test_an_unlisted_code_that_can_be_read_is_a_refusal(status: int, code: int) -> None:
    assert refused({"code": code, "description": "no"}, status).code == "rejected"


@pytest.mark.parametrize("status", [301, 302, 408, 425, 499, 500, 502, 503, 504])
@pytest.mark.parametrize("code", [0, 2, 77, 500, 504])
def test_an_unlisted_code_from_a_server_in_trouble_is_doubt(status: int, code: int) -> None:
    body = {"code": code, "message": "gateway timeout"}
    assert submitted(body, status) == OutcomeUnknown(f"HTTP {status} with code {code}: gateway timeout")


def test_a_banned_word_is_named() -> None:
    body = {
        "code": 24,
        "description": "banned",
        "properties": {"bannedWord": "<b>bl\u202eood</b>", "promptEn": "a prompt"},
    }
    assert refused(body) == Failure("prompt_refused", "the proxy refused it with code 24: banned (banned word: blood)")


@pytest.mark.parametrize(
    ("properties", "warnings"),
    [
        ({"numberOfQueues": 3}, ("queued_behind:3",)),
        *(({"numberOfQueues": odd}, ()) for odd in (0, -1, 10**9, "3", True, 1.5, None, [3], {"x": 1})),
        (None, ()),
        ([], ()),
        ("x", ()),
    ],
)
def test_the_place_in_the_queue_is_told_when_it_is_one(properties: object, warnings: tuple[str, ...]) -> None:
    assert submitted({"code": 22, "result": ID, "properties": properties}) == Accepted(ID, warnings)


# --- submits: the id


@pytest.mark.parametrize(
    ("raw", "task_id"),
    [
        (b'"1234567890123456"', ID),
        (b"1234567890123456", ID),
        (b"9007199254740993", "9007199254740993"),
        (b"9999999999999999", "9999999999999999"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        (b'["1234567890123456"]', ID),
        (b"[1234567890123456]", ID),
        (b"[9007199254740993]", "9007199254740993"),
        (b'"a.b_c:d-e"', "a.b_c:d-e"),
    ],
)
def test_an_id_arrives_exactly_in_every_form(raw: bytes, task_id: str) -> None:
    assert submitted(b'{"code": 1, "result": ' + raw + b"}") == Accepted(task_id)


NO_IDS = [
    b"null",
    b"true",
    b"false",
    b"0",
    b"-1",
    b"1234567890123456.0",
    b"1.234567890123456e15",
    b'""',
    b'" "',
    b"[]",
    b'["1", "2"]',
    b"[null]",
    b"[[1]]",
    b"[true]",
    b"[1.0]",
    b"{}",
    b'{"job": "1"}',
    b'"\\ud800"',
    b'"../../admin"',
    b'"1?x=1"',
    b'"1\\n2"',
    b'"1\\u0000"',
    b'"<b>1</b>"',
    b'"' + b"9" * 129 + b'"',
    b"9" * 129,
    b"9" * 4000,
    b"9" * 5000,
    json.dumps(KEY).encode(),
    b"NaN",
    b"Infinity",
    DEEP,
]


@pytest.mark.parametrize("raw", NO_IDS, ids=lambda raw: raw[:20].decode())
@pytest.mark.parametrize("code", [1, 21, 22])
def test_success_without_a_usable_id_is_doubt(code: int, raw: bytes) -> None:
    outcome = submitted(b'{"code": %d, "result": %s}' % (code, raw))
    assert isinstance(outcome, OutcomeUnknown), outcome
    assert KEY not in outcome.reason


@pytest.mark.parametrize("code", [1, 21, 22])
def test_success_with_the_id_left_out_is_doubt(code: int) -> None:
    assert submitted({"code": code}) == OutcomeUnknown(f"the proxy answered code {code} without a usable task id")


@pytest.mark.parametrize("result", [None, 0, "", [], False])
def test_code_0_without_an_id_is_a_refusal(result: object) -> None:
    assert refused({"code": 0, "result": result}).code == "rejected"


def test_a_task_id_that_carries_the_key_is_no_id() -> None:
    key = "plain-key-77"
    body = answer({"code": 1, "result": f"x-{key}"})
    assert read_submit(body, redactor(key)) == OutcomeUnknown("the proxy answered code 1 without a usable task id")


# --- submits: what cannot be read

UNREADABLE = {
    "empty": b"",
    "spaces": b" \r\n ",
    "null": b"null",
    "object": b"{}",
    "list": b"[]",
    "text": b'"ok"',
    "html": PAGE,
    "half": b'{"code": 1, "result": "12345678',
    "bytes": b"\xff\xfe\x00",
    "deep": DEEP,
    "nan": b"NaN",
    "nan code": b'{"code": NaN, "result": "1"}',
    "code text": b'{"code": "x", "result": "1"}',
    "code null": b'{"code": null, "result": "1"}',
    "code fraction": b'{"code": 1.5, "result": "1"}',
    "code huge": b'{"code": 1e400, "result": "1"}',
}


@pytest.mark.parametrize("status", [200, 202, 204, 301, 302, 307, 408, 425, 499, 500, 502, 503, 504, 520, 530])
@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_answer_of_a_server_that_may_have_worked_is_doubt(name: str, status: int) -> None:
    outcome = submitted(UNREADABLE[name], status)
    assert isinstance(outcome, OutcomeUnknown), outcome
    assert outcome.reason.startswith(f"HTTP {status} ")
    assert "<" not in outcome.reason
    assert "secret" not in outcome.reason


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        (400, "rejected"),
        (401, "unauthorized"),
        (402, "unauthorized"),
        (403, "unauthorized"),
        (404, "rejected"),
        (405, "rejected"),
        (413, "rejected"),
        (422, "rejected"),
        (429, "busy"),
    ],
)
@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_refusal_is_judged_by_its_status(name: str, status: int, ours: str) -> None:
    failure = refused(UNREADABLE[name], status, 12.0)
    assert failure.code == ours
    assert failure.retry_after_seconds == 12.0
    assert "<" not in failure.message


def test_a_web_page_is_named_as_the_likely_mistake_and_never_shown() -> None:
    assert submitted(b"\n " + PAGE) == OutcomeUnknown(
        "HTTP 200 with a web page instead of JSON: MJ_BASE_URL may lack a path, or a gateway answers instead"
    )


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no credit"}},
        {"error": "no credit"},
        {"message": "no credit"},
        {"detail": "no credit"},
        {"description": "no credit"},
        {"msg": "no credit"},
        {"err_detail": "no credit"},
        {"reason": "no credit"},
        {"detail": [{"loc": ["body"], "msg": "no credit"}]},
        {"description": "", "message": "no credit", "reason": "X"},
        {"error": {"message": ["odd"]}, "detail": "no <i>credit</i>"},
    ],
)
def test_the_words_of_a_gateway_are_passed_on(body: object) -> None:
    assert refused(body, 402) == Failure("unauthorized", "HTTP 402: no credit")


@pytest.mark.parametrize("sent", [True, False])
def test_no_answer_is_doubt_only_when_the_request_left(sent: bool) -> None:
    outcome = read_submit(NoAnswer(sent=sent, reason="gone"), redact)
    assert outcome == (OutcomeUnknown("gone") if sent else Refused(Failure("upstream_unreachable", "gone")))


@pytest.mark.parametrize(
    ("body", "code"),
    [({"code": 24}, 24), ({"code": 1, "result": {"odd": 1}}, 1), (b"", None), (PAGE, None), (DEEP, None)],
)
def test_the_code_for_the_log_is_read_where_there_is_one(body: object, code: int | None) -> None:
    assert read_code(answer(body)) == code


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


def vendor(reason: str, code: int, **more: object) -> dict[str, Any]:
    return {"code": code, "reason": reason, "message": "the vendor's words", "metadata": {"trace_id": "t1"}} | more


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


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.sampled_from([200, 204, 302, 400, 401, 404, 408, 429, 500, 502])


@given(
    STATUSES,
    st.binary(max_size=60)
    | ANY_JSON
    | st.fixed_dictionaries(
        {"code": st.sampled_from([0, 1, 3, 21, 22, 23, 24, 77]) | ANY_JSON},
        optional={"result": ANY_JSON, "properties": ANY_JSON, "description": ANY_JSON},
    ),
)
def test_nothing_that_a_proxy_can_answer_to_a_submit_raises(status: int, body: object) -> None:
    outcome = submitted(body, status)
    if isinstance(outcome, Accepted):
        assert check_task_id(outcome.task_id)
    elif isinstance(outcome, Refused):
        assert outcome.failure.code in {"rejected", "busy", "prompt_refused", "unauthorized"}
