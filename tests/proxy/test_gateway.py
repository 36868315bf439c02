"""What is sent, and what a poll shows: every form of an answer, and every hostile text in it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mj_mcp.errors import InvalidRequest
from mj_mcp.logs import redactor
from mj_mcp.proxy.dialects.gateway import GATEWAY, MAX_IMAGES, change, simple_change
from mj_mcp.proxy.fetched import read_fetch
from mj_mcp.proxy.http import Answer, NoAnswer
from mj_mcp.proxy.orders import Change, Imagine, Post
from mj_mcp.proxy.outcomes import FetchResult, Trouble, Unknown
from mj_mcp.proxy.text import MAX_TEXT, MAX_URL, check_task_id, clean, clean_url
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status

KEY = "sk-canary/5f1b+77"
ID = "1234567890123456"

redact = redactor(KEY)

PAGE = b"<!DOCTYPE html><html><body>Checking your browser <script>secret()</script></body></html>"
DEEP = b"[" * 100_000 + b"]" * 100_000


def answer(body: object, status: int = 200, retry_after: float | None = None) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after)


def observed(body: object, status: int = 200, retry_after: float | None = None) -> FetchResult:
    return read_fetch(answer(body, status, retry_after), redact)


# --- what is sent


@pytest.mark.parametrize(
    ("request_", "path", "body"),
    [
        (GATEWAY.post(Imagine("a red mug --ar 3:2"), "", None), "imagine", {"prompt": "a red mug --ar 3:2"}),
        (change(Change(Kind.UPSCALE, ID, 1)), "change", {"taskId": ID, "action": "UPSCALE", "index": 1}),
        (change(Change(Kind.VARIATION, ID, 4)), "change", {"taskId": ID, "action": "VARIATION", "index": 4}),
        (change(Change(Kind.REROLL, ID, None)), "change", {"taskId": ID, "action": "REROLL"}),
        (simple_change(Change(Kind.UPSCALE, ID, 2)), "simple-change", {"content": f"{ID} U2"}),
        (simple_change(Change(Kind.VARIATION, ID, 3)), "simple-change", {"content": f"{ID} V3"}),
        (simple_change(Change(Kind.REROLL, ID, None)), "simple-change", {"content": f"{ID} R"}),
    ],
)
def test_a_submit_holds_exactly_the_documented_fields(request_: Post, path: str, body: dict[str, Any]) -> None:
    assert request_ == Post(f"/mj/submit/{path}", body)


@pytest.mark.parametrize(
    ("task_id", "path"),
    [
        (ID, f"/mj/task/{ID}/fetch"),
        ("a.b_c:d-e", "/mj/task/a.b_c%3Ad-e/fetch"),
        ("x" * 128, f"/mj/task/{'x' * 128}/fetch"),
        ("..x", "/mj/task/..x/fetch"),
    ],
)
def test_a_fetch_asks_for_the_quoted_id(task_id: str, path: str) -> None:
    assert GATEWAY.fetch_path(task_id) == path


@pytest.mark.parametrize(
    "task_id",
    ["", ".", "..", "...", "a/b", "../x", "a?b", "a#b", "a%2fb", "a b", "a\n", "a\\b", "a@b", "é", "\u0661", "x" * 129],
)
def test_an_id_that_would_change_the_url_is_refused_everywhere(task_id: str) -> None:
    for use in (
        check_task_id,
        GATEWAY.fetch_path,
        lambda it: change(Change(Kind.UPSCALE, it, 1)),
        lambda it: simple_change(Change(Kind.REROLL, it, None)),
    ):
        with pytest.raises(InvalidRequest, match=r"^`task_id` must be "):
            use(task_id)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.sampled_from([200, 204, 302, 400, 401, 404, 408, 429, 500, 502])


# --- fetches


def fetched(status: object = "TASK_STATUS_PROCESSING", images: object = (), **task: object) -> dict[str, Any]:
    return {
        "extra": {"has_nsfw_contents": []},
        "task": {
            "task_id": ID,
            "task_type": "MIDJOURNEY_TEXT_TO_IMAGE_FAST_MODE",
            "status": status,
            "reason": "",
            "eta": 0,
            "progress_percent": 0,
            **task,
        },
        "images": images,
        "videos": [],
        "audios": [],
    }


def picture(url: object, **fields: object) -> dict[str, object]:
    return {"image_url": url, "image_url_ttl": "0", "image_type": "png", "nsfw_detection_result": None, **fields}


LINK = "https://cdn.example/attachments/1.png?ex=68&is=67&hm=ab%2Fcd==&exp=0"


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("TASK_STATUS_QUEUED", Status.QUEUED),
        ("TASK_STATUS_PROCESSING", Status.PROCESSING),
        ("TASK_STATUS_DREAMING", Status.PROCESSING),
        ("TASK_STATUS_SUCCEEDING", Status.PROCESSING),
        ("TASK_STATUS_", Status.PROCESSING),
        ("queued", Status.QUEUED),
        ("", Status.PROCESSING),
        (None, Status.PROCESSING),
        (7, Status.PROCESSING),
        (["TASK_STATUS_SUCCEED"], Status.PROCESSING),
    ],
)
def test_a_word_that_is_no_end_means_still_open(word: object, status: Status) -> None:
    shown = word if isinstance(word, str) and word else None
    assert observed(fetched(word, [picture(LINK)])) == Observation(status=status, upstream_status=shown)


@pytest.mark.parametrize("prefix", ["TASK_STATUS_", ""])
@pytest.mark.parametrize("word", ["SUCCEED", "SUCCEEDED", "SUCCESS", "COMPLETED", "FINISHED", "DONE", "Success"])
def test_success_has_several_names(prefix: str, word: str) -> None:
    assert observed(fetched(prefix + word, [picture(LINK)])) == Observation(
        status=Status.SUCCEEDED, upstream_status=prefix + word, images=(Image(1, LINK),)
    )


@pytest.mark.parametrize("prefix", ["TASK_STATUS_", ""])
@pytest.mark.parametrize(
    ("word", "code"),
    [
        *((word, "generation_failed") for word in ("FAILED", "FAILURE", "FAIL", "ERROR", "failed")),
        *((word, "canceled") for word in ("CANCELED", "CANCELLED", "CANCEL")),
    ],
)
def test_failure_has_several_names(prefix: str, word: str, code: str) -> None:
    assert observed(fetched(prefix + word, reason="x")) == Observation(
        status=Status.FAILED, upstream_status=prefix + word, failure=Failure(code, "x")
    )


@pytest.mark.parametrize(
    "words",
    [
        {"reason": "too dark", "message": "no"},
        {"err_detail": "too dark"},
        {"reason": "", "err_detail": "too dark"},
        {"fail_reason": "too dark"},
        {"failReason": "too dark"},
        {"message": "too dark"},
        {"error": {"message": "too dark"}},
    ],
    ids=json.dumps,
)
def test_a_failed_task_says_why_under_several_names(words: dict[str, object]) -> None:
    failed = Observation(
        status=Status.FAILED,
        upstream_status="TASK_STATUS_FAILED",
        failure=Failure("generation_failed", "too dark"),
    )
    assert observed({"task": {"status": "TASK_STATUS_FAILED", **words}}) == failed
    assert observed({"task": {"status": "TASK_STATUS_FAILED"}, **words}) == failed


def test_a_byte_order_mark_before_a_task_does_not_matter() -> None:
    body = json.dumps(fetched("TASK_STATUS_QUEUED")).encode("utf-8-sig")
    assert observed(body) == Observation(status=Status.QUEUED, upstream_status="TASK_STATUS_QUEUED")
    assert observed("\ufeff".encode()) == observed("\ufeffnull".encode()) == Unknown()


def test_success_shows_the_pictures_in_their_order() -> None:
    images = [picture(LINK), picture("http://127.0.0.1:8080/2.webp"), picture("HTTPS://x.example/3")]
    assert observed(fetched("TASK_STATUS_SUCCEED", images, progress_percent=100)) == Observation(
        status=Status.SUCCEEDED,
        upstream_status="TASK_STATUS_SUCCEED",
        images=(Image(1, LINK), Image(2, "http://127.0.0.1:8080/2.webp"), Image(3, "HTTPS://x.example/3")),
    )


@pytest.mark.parametrize("ttl", ["0", 0, "3600", 3600, None, "soon", [], {"x": 1}, 1e300])
def test_the_life_of_a_link_may_be_of_any_type(ttl: object) -> None:
    seen = observed(fetched("TASK_STATUS_SUCCEED", [picture(LINK, image_url_ttl=ttl)]))
    assert isinstance(seen, Observation)
    assert seen.images == (Image(1, LINK),)


@pytest.mark.parametrize("images", [None, [], {}, "none", 0, "missing"])
def test_success_without_pictures_says_so(images: object) -> None:
    body = fetched("TASK_STATUS_SUCCEED", images)
    if images == "missing":
        body = {"task": body["task"]}
    assert observed(body) == Observation(
        status=Status.SUCCEEDED,
        upstream_status="TASK_STATUS_SUCCEED",
        warnings=("no_pictures",),
    )


def test_unusable_entries_are_passed_over_and_counted() -> None:
    images = [None, picture("javascript:alert(1)"), picture(LINK), "x", {}]
    assert observed(fetched("TASK_STATUS_SUCCEED", images)) == Observation(
        status=Status.SUCCEEDED,
        upstream_status="TASK_STATUS_SUCCEED",
        images=(Image(3, LINK),),
        warnings=("links_unusable:4:5",),
    )


def test_the_number_of_pictures_is_capped() -> None:
    seen = observed(fetched("TASK_STATUS_SUCCEED", [picture(LINK)] * 10_000))
    assert isinstance(seen, Observation)
    assert len(seen.images) == MAX_IMAGES


@pytest.mark.parametrize(
    ("word", "reason", "failure"),
    [
        ("TASK_STATUS_FAILED", "moderation", Failure("generation_failed", "moderation")),
        ("TASK_STATUS_FAILED", "", Failure("generation_failed", "the proxy gave no reason")),
        ("TASK_STATUS_FAILED", None, Failure("generation_failed", "the proxy gave no reason")),
        ("TASK_STATUS_FAILED", {"x": 1}, Failure("generation_failed", "the proxy gave no reason")),
        ("TASK_STATUS_FAILED", f"<b>key {KEY}</b>", Failure("generation_failed", "key [redacted]")),
        ("TASK_STATUS_CANCELED", "", Failure("canceled", "canceled")),
        ("TASK_STATUS_CANCELED", "by an admin", Failure("canceled", "by an admin")),
    ],
)
def test_failure_shows_its_reason_and_no_pictures(word: str, reason: object, failure: Failure) -> None:
    assert observed(fetched(word, [picture(LINK)], reason=reason)) == Observation(
        status=Status.FAILED, upstream_status=word, failure=failure
    )


@pytest.mark.parametrize(
    ("given_", "progress"),
    [
        (0, None),
        ("0", None),
        (0.4, None),
        ("0%", None),
        (-5, None),
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ([5], None),
        (1e300, None),
        (1, 1),
        (45, 45),
        ("45%", 45),
        (" 45 % ", 45),
        (45.9, 45),
        (100, 99),
        (250, 99),
    ],
)
def test_progress_is_shown_when_it_says_something(given_: object, progress: int | None) -> None:
    seen = observed(fetched(progress_percent=given_))
    assert isinstance(seen, Observation)
    assert seen.progress == progress
    hurry = observed(fetched(eta=given_))
    assert isinstance(hurry, Observation)
    assert hurry.eta_seconds is None or (hurry.eta_seconds > 0 and math.isfinite(hurry.eta_seconds))


@pytest.mark.parametrize("raw", [b"NaN", b"Infinity", b"9" * 400, b"9" * 5000])
def test_numbers_that_are_none_do_not_break_a_fetch(raw: bytes) -> None:
    body = b'{"task": {"status": "TASK_STATUS_QUEUED", "eta": %s, "progress_percent": %s}}' % (raw, raw)
    assert observed(body) in {
        Observation(status=Status.QUEUED, upstream_status="TASK_STATUS_QUEUED"),
        Trouble("upstream_error", "HTTP 200 with an unreadable body"),
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"", 204),
        (b" \n", 200),
        (b"null", 200),
        (b"{}", 200),
        (b" { \n} ", 200),
        (b"", 404),
        ({"code": 4, "description": "no such task"}, 404),
        ({"code": 4, "description": "no such task", "result": None}, 200),
        ({"code": 3, "description": "no such task"}, 200),
        ({"task": None}, 200),
        ({"task": None, "images": None}, 200),
        ({"code": 404, "reason": "TASK_NOT_FOUND", "message": "no such task"}, 200),
        ({"code": 404, "reason": "TASK_NOT_FOUND", "message": "no such task"}, 404),
        ({"code": 400, "reason": "TASK_NOT_FOUND", "message": "no such task"}, 400),
        ({"description": "task_no_found ", "type": "upstream_error", "code": 4}, 400),
    ],
)
def test_a_proxy_that_does_not_know_the_task_is_understood(body: object, status: int) -> None:
    assert observed(body, status) == Unknown()


@pytest.mark.parametrize(
    ("status", "ours"), [(401, "unauthorized"), (402, "unauthorized"), (403, "unauthorized"), (429, "busy")]
)
@pytest.mark.parametrize("body", [b"", PAGE, b'{"code": 4, "description": "no"}', b'{"error": {"message": "no"}}'])
def test_a_fetch_that_is_not_allowed_says_so_and_for_how_long(body: bytes, status: int, ours: str) -> None:
    trouble = observed(body, status, 30.0)
    assert isinstance(trouble, Trouble)
    assert (trouble.code, trouble.retry_after) == (ours, 30.0)
    assert trouble.message.startswith(f"HTTP {status}")
    assert "<" not in trouble.message


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (PAGE, 200),
        (PAGE, 404),
        (b"", 500),
        (b"null", 502),
        (PAGE, 503),
        (fetched("TASK_STATUS_SUCCEED", [picture(LINK)]), 500),
        (b"", 302),
        (b"{}", 301),
        (b"", 400),
        (b"", 408),
        (b'{"task": {"status": "TASK_ST', 200),
        (b"[]", 200),
        (b'"TASK_STATUS_SUCCEED"', 200),
        ({"task": []}, 200),
        ({"images": []}, 200),
        ({"status": "SUCCESS", "imageUrl": LINK}, 200),
        (DEEP, 200),
        (b'{"task": ' + DEEP + b"}", 200),
        (b"\xff\xfe", 200),
        (b"NaN", 200),
    ],
)
def test_a_fetch_that_shows_no_task_is_trouble_and_no_outcome(body: object, status: int) -> None:
    trouble = observed(body, status, 5.0)
    assert isinstance(trouble, Trouble), trouble
    assert trouble.code == "upstream_error"
    assert trouble.message.startswith(f"HTTP {status}")
    assert "<" not in trouble.message


@pytest.mark.parametrize(
    ("body", "status", "ours"),
    [
        ({"code": 401, "message": "the words"}, 200, "unauthorized"),
        ({"code": 400, "reason": "MISSING_API_KEY", "message": "the words"}, 400, "unauthorized"),
        ({"code": 403, "reason": "INVALID_API_KEY", "message": "the words"}, 403, "unauthorized"),
        ({"code": 429, "reason": "RATE_LIMIT_EXCEEDED", "message": "the words"}, 200, "busy"),
        ({"code": 404, "reason": "PATH_NOT_FOUND", "message": "the words"}, 404, "upstream_error"),
        ({"code": 404, "reason": "API_NOT_FOUND", "message": "the words"}, 200, "upstream_error"),
        ({"code": 500, "reason": "GET_RESULT_FAILED", "message": "the words"}, 200, "upstream_error"),
        ({"code": 500, "reason": "GET_RESULT_FAILED", "message": "the words"}, 500, "upstream_error"),
    ],
    ids=json.dumps,
)
def test_a_fetch_reads_the_vendors_errors(body: dict[str, Any], status: int, ours: str) -> None:
    trouble = observed(body, status)
    assert isinstance(trouble, Trouble)
    assert trouble.code == ours
    assert "the words" in trouble.message
    assert ("MJ_BASE_URL" in trouble.message) == ("_NOT_FOUND" in str(body.get("reason")))


def test_a_fetch_that_is_redirected_says_where_to() -> None:
    redirect = Answer(301, b"", location="https://www.example.com/mj/task/77/fetch")
    assert read_fetch(redirect, redact) == Trouble(
        "upstream_error", "HTTP 301 redirects to https://www.example.com: set MJ_BASE_URL to that address"
    )


@pytest.mark.parametrize(("sent", "ours"), [(True, "upstream_error"), (False, "upstream_unreachable")])
def test_a_fetch_without_an_answer_is_trouble(sent: bool, ours: str) -> None:
    assert read_fetch(NoAnswer(sent=sent, reason="gone"), redact) == Trouble(ours, "gone")


@given(
    STATUSES,
    st.binary(max_size=60)
    | ANY_JSON
    | st.fixed_dictionaries(
        {
            "task": ANY_JSON
            | st.fixed_dictionaries(
                {"status": st.sampled_from(["TASK_STATUS_SUCCEED", "TASK_STATUS_FAILED"]) | ANY_JSON},
                optional={"reason": ANY_JSON, "eta": ANY_JSON, "progress_percent": ANY_JSON},
            )
        },
        optional={"images": ANY_JSON | st.lists(st.fixed_dictionaries({"image_url": ANY_JSON}), max_size=3)},
    ),
)
def test_nothing_that_a_proxy_can_answer_to_a_fetch_raises(status: int, body: object) -> None:
    seen = observed(body, status)
    if isinstance(seen, Observation):
        assert seen.progress is None or 1 <= seen.progress <= 99
        assert seen.status in {Status.QUEUED, Status.PROCESSING, Status.SUCCEEDED, Status.FAILED}
        assert 200 <= status < 300


# --- third-party text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("提交成功", "提交成功"),
        ("a\r\n\tb   c", "a b c"),
        ("a\x00b\x1b[31mc\x7f\x9b", "ab[31mc"),
        ("safe\u202egnp.exe\u2066\u2069", "safegnp.exe"),
        ("zero\u200b\u200c\u200d\ufeffwidth\u00ad", "zerowidth"),
        ("tags\U000e0041\U000e007f", "tags"),
        ("lone\ud800 private\ue000 line\u2028s", "lone private line s"),
        ("<script>alert(1)</script>done", "alert(1) done"),
        ("<img src=x\nonerror=alert(1)>", ""),
        ("family 👍 é", "family 👍 é"),
        (None, ""),
        (7, ""),
        (["x"], ""),
        (f"your key {KEY} is bad", "your key [redacted] is bad"),
        ("bad " + "\u200b".join(KEY), "bad [redacted]"),
        ("bad " + "\U000e0041".join(KEY), "bad [redacted]"),
        ("bad sk-canary%2F5f1b%2B77", "bad [redacted]"),
    ],
)
def test_text_of_the_proxy_is_made_fit_to_show(text: object, shown: str) -> None:
    assert clean(text, redact) == shown


@pytest.mark.parametrize(
    "text",
    [
        "<img <b>src=x onerror=alert(1)>",
        "<scr<script>ipt>alert(1)</scr</script>ipt>",
        "<<<<b>>>>",
        "x <img src=x onerror=alert(1) ",
        "<\u200bscript>",
        "<" * 5000,
        "<!--" + "x" * 600,
    ],
)
def test_no_markup_survives_however_it_is_woven(text: str) -> None:
    shown = clean(text, redact)
    assert "<" not in shown
    assert ">" not in shown


def test_a_long_text_is_capped_and_the_key_never_cut_in_half() -> None:
    assert clean("x" * MAX_TEXT, redact) == "x" * MAX_TEXT
    assert clean("x" * (MAX_TEXT + 1), redact) == "x" * (MAX_TEXT - 3) + "..."
    for at in range(MAX_TEXT - len(KEY) - 5, MAX_TEXT + 1):
        assert "sk-c" not in clean("x" * at + KEY + "y" * 50, redact)
        assert "sk-c" not in clean("x" * at + "\u200b".join(KEY) + "y" * 50, redact)
    for at in range(4 * MAX_TEXT - len(KEY), 4 * MAX_TEXT):
        assert "sk-c" not in clean("\u200b" * at + KEY, redact)


@given(st.text(max_size=700))
@example("a" * 499 + "\u200b" + "bc")
def test_whatever_the_text_what_is_shown_is_plain_and_stays_so(text: str) -> None:
    shown = clean(text, redact)
    assert len(shown) <= MAX_TEXT
    assert shown.isprintable()
    assert clean(shown, redact) == shown


# --- links


@pytest.mark.parametrize(
    "url",
    [
        LINK,
        "http://127.0.0.1:8080/pictures/1/1.png?sig=0a1b&exp=0",
        "https://cdn.example/a/b;c=1/(x),y*z!~$'.png?X-Amz-Signature=a%20b+c/d==&q=[1]#frag".replace("'", ""),
        "http://[2001:db8::1]:8443/x.png",
        "HTTPS://CDN.example/x.png",
        "https://x.example/" + "a" * (MAX_URL - 18),
    ],
)
def test_a_link_is_kept_to_the_letter(url: str) -> None:
    assert clean_url(url, redact) == url


@pytest.mark.parametrize(
    ("rest", "encoded"),
    [
        ("图片/一.png?签=名", "%E5%9B%BE%E7%89%87/%E4%B8%80.png?%E7%AD%BE=%E5%90%8D"),
        ("a b.png", "a%20b.png"),
        ("1.png\n", "1.png"),
        ("a|b^c`d{e}.png", "a%7Cb%5Ec%60d%7Be%7D.png"),
        ("'quoted'/\"twice\".png", "%27quoted%27/%22twice%22.png"),
        ("<script>", "%3Cscript%3E"),
        ("\u202egnp.1", "%E2%80%AEgnp.1"),
        ("%E5%9B%BE 100%.png", "%E5%9B%BE%20100%25.png"),
        ("é.png?sig=a%2Fb+c/d==", "%C3%A9.png?sig=a%2Fb+c/d=="),
    ],
)
def test_what_a_url_may_not_hold_is_percent_encoded(rest: str, encoded: str) -> None:
    assert clean_url(f"https://x.example/{rest}", redact) == f"https://x.example/{encoded}"


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "x.png",
        "//x.example/1.png",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "ftp://x.example/1",
        "https://",
        "https:///x.png",
        "https://?x",
        "https://:80/x",
        "http://[::1",
        "http://x.example:99999/",
        "http://x.example:port/",
        "https://user:secret@x.example/1.png",
        "https://cdn.example@evil.example/1.png",
        "https://x.example/\n1.png",
        "https://x.example\\@evil.example/",
        "https://x.example/a\\b.png",
        "https://例子.example/1.png",
        "https://x example/1.png",
        "https://x.example/\ud800.png",
        "https://x.example/" + "图" * 500,
        f"https://x.example/?key={KEY}",
        "https://x.example/?key=sk-canary%2F5f1b%2B77",
        "https://x.example/?key=%73k-canary/5f1b+77",
        "https://x.example/" + "a" * (MAX_URL - 17),
    ],
)
def test_what_is_more_than_a_link_is_dropped(url: object) -> None:
    assert clean_url(url, redact) is None
