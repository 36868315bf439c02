"""What became of a submit: every code, every reason, every form of an id, and all that cannot be read."""

from __future__ import annotations

import json

import pytest
from answers import CODES, DEEP, ID, KEY, PAGE, answer, redact, refused, submitted
from hypothesis import given
from hypothesis import strategies as st

from mj_mcp.logs import redactor
from mj_mcp.proxy.http import NoAnswer
from mj_mcp.proxy.outcomes import Accepted, OutcomeUnknown, Refused, read_code, read_submit
from mj_mcp.proxy.text import check_task_id
from mj_mcp.tasks import Failure

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
def test_the_position_in_the_queue_is_a_warning_when_it_is_one(properties: object, warnings: tuple[str, ...]) -> None:
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
