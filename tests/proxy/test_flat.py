"""The flat task of the open proxies and relays, and what each of them is sent."""

from __future__ import annotations

from typing import Any

import pytest
from answers import answer

from mj_mcp.logs import redactor
from mj_mcp.proxy.dialects.flat import read_buttons
from mj_mcp.proxy.dialects.table import DIALECTS
from mj_mcp.proxy.fetched import read_fetch
from mj_mcp.proxy.orders import Blend, Change, Describe, Imagine, Order, Post, Press
from mj_mcp.proxy.outcomes import Trouble, Unknown
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status, WarningCode
from mj_mcp.urls import with_part

KEY = "sk-canary/5f1b+77"
ID = "1795756691434479"
GRID = "http://cdn.example/grid.png?ex=1&hm=ab"
HASH = "5d2d3a44-0b7d-4b71-8f5d-7c1c9c0d5a11"

redact = redactor(KEY)


def flat(status: str = "SUCCESS", **fields: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "action": "IMAGINE",
        "status": status,
        "prompt": "a cat",
        "promptEn": "a cat",
        "description": "/imagine a cat",
        "state": "hello",
        "submitTime": 1795756691434,
        "startTime": 1795756692434,
        "finishTime": 1795756720434,
        "imageUrl": GRID,
        "progress": "100%",
        "failReason": None,
        "properties": {"finalPrompt": "a cat", "messageId": "1", "messageHash": HASH},
        **fields,
    }


def button(custom_id: str, label: str = "", emoji: str = "") -> dict[str, Any]:
    return {"customId": custom_id, "emoji": emoji, "label": label, "type": 2, "style": 2}


GRID_BUTTONS = [
    *(button(f"MJ::JOB::upsample::{n}::{HASH}", f"U{n}") for n in range(1, 5)),
    *(button(f"MJ::JOB::variation::{n}::{HASH}", f"V{n}") for n in range(1, 5)),
    button(f"MJ::JOB::reroll::0::{HASH}::SOLO", emoji="\U0001f504"),
]
ONE_BUTTONS = [
    button(f"MJ::JOB::upsample_v6_2x_subtle::1::{HASH}::SOLO", "Upscale (Subtle)"),
    button(f"MJ::JOB::low_variation::1::{HASH}::SOLO", "Vary (Subtle)"),
    button(f"MJ::CustomZoom::{HASH}", "Custom Zoom"),
    button(f"MJ::JOB::pan_left::1::{HASH}::SOLO", emoji="\u2b05\ufe0f"),
    button(f"MJ::JOB::animate_high::1::{HASH}::SOLO", "Animate (High motion)"),
    button(f"MJ::BOOKMARK::{HASH}", emoji="\u2764\ufe0f"),
    {"label": "Web", "url": "https://www.midjourney.com", "style": 5, "type": 2},
]
OTHERS = ("Upscale (Subtle)", "Vary (Subtle)", "Custom Zoom", "Pan left", "Animate (High motion)", "Bookmark")


def read(body: object, status: int = 200, origin: str = "https://relay.example") -> object:
    return read_fetch(answer(body, status), redact, origin)


def seen(**fields: Any) -> Observation:
    fetched = read(flat(**fields))
    assert isinstance(fetched, Observation)
    return fetched


# --- fetches


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("", Status.QUEUED),
        ("NOT_START", Status.QUEUED),
        ("SUBMITTED", Status.QUEUED),
        ("IN_PROGRESS", Status.PROCESSING),
        ("MODAL", Status.PROCESSING),
        ("DREAMING", Status.PROCESSING),
        ("SUCCESS", Status.SUCCEEDED),
        ("FAILURE", Status.FAILED),
        ("CANCEL", Status.FAILED),
    ],
)
def test_every_status_is_read_and_an_unknown_one_is_open(word: str, status: Status) -> None:
    assert seen(status=word).status is status


@pytest.mark.parametrize(
    ("status", "progress", "expected"),
    [
        ("IN_PROGRESS", "45%", 45),
        ("IN_PROGRESS", "0%", None),
        ("IN_PROGRESS", "", None),
        ("IN_PROGRESS", None, None),
        ("IN_PROGRESS", "Waiting to start", None),
        ("SUBMITTED", "45%", None),
        ("FAILURE", "100%", None),
        ("SUCCESS", "100%", None),
    ],
)
def test_progress_is_a_number_only_while_the_job_runs(status: str, progress: object, expected: int | None) -> None:
    assert seen(status=status, progress=progress).progress == expected


def test_a_preview_is_no_picture() -> None:
    assert seen(status="IN_PROGRESS", imageUrl="http://cdn.example/preview.png").images == ()


def test_a_failure_has_the_proxys_reason() -> None:
    assert seen(status="FAILURE", failReason="banned <b>word</b>").failure == Failure(
        "generation_failed", "banned word"
    )
    assert seen(status="FAILURE").failure == Failure("generation_failed", "the proxy gave no reason")
    assert seen(status="CANCEL").failure == Failure("canceled", "canceled")


def test_a_description_has_its_prompts_one_a_line() -> None:
    said = f"1\ufe0f\u20e3 a <b>cat</b> --ar 3:2\n\n2\ufe0f\u20e3 {'x' * 600}\n\n3 {KEY}\u202e\n" + "\n4 d" * 40
    seen = read_fetch(answer(flat(action="DESCRIBE", prompt=None, properties={"finalPrompt": said})), redact)
    assert isinstance(seen, Observation)
    first, second, third, *others = (seen.prompt or "").split("\n")
    assert (first, len(second), KEY in third) == ("1\ufe0f\u20e3 a cat --ar 3:2", 500, False)
    assert others == ["4 d"] * 10
    nothing: list[Any] = [None, [], {}, {"finalPrompt": None}]
    for properties in nothing:
        seen = read_fetch(answer(flat(action="DESCRIBE", prompt="a\nb", properties=properties)), redact)
        assert (isinstance(seen, Observation) and seen.prompt) == "a b"


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("IMAGINE", Kind.IMAGINE),
        ("UPSCALE", Kind.UPSCALE),
        ("VARIATION", Kind.VARIATION),
        ("REROLL", Kind.REROLL),
        ("ZOOM", Kind.BUTTON),
        ("DESCRIBE", None),
        (None, None),
    ],
)
def test_an_adopted_task_gets_its_kind_prompt_and_parent(action: str | None, kind: Kind | None) -> None:
    found = seen(action=action, parentId="17")
    assert (found.kind, found.prompt, found.parent_id) == (kind, "a cat", "17")


@pytest.mark.parametrize("fields", [{}, {"buttons": None}, {"buttons": GRID_BUTTONS}, {"buttons": GRID_BUTTONS[4:]}])
def test_one_grid_is_four_pictures(fields: dict[str, Any]) -> None:
    assert seen(**fields).images == tuple(Image(n, with_part(GRID, n)) for n in range(1, 5))


@pytest.mark.parametrize(
    "fields", [{"action": "UPSCALE"}, {"buttons": ONE_BUTTONS}, {"action": "ZOOM", "buttons": ONE_BUTTONS}]
)
def test_other_buttons_or_an_upscale_are_one_picture(fields: dict[str, Any]) -> None:
    assert seen(**fields).images == (Image(1, GRID),)


def test_four_links_are_better_than_the_grid_which_they_fall_back_to() -> None:
    links = [f"https://cdn.example/{n}.png" for n in range(1, 5)]
    found = seen(imageUrls=[{"url": link, "thumbnail": link} for link in links], buttons=GRID_BUTTONS)
    assert found.images == tuple(Image(n, link, fallback_url=with_part(GRID, n)) for n, link in enumerate(links, 1))


def test_a_video_is_a_link_with_its_kind() -> None:
    links = [f"https://cdn.example/{n}.mp4" for n in range(1, 3)]
    found = seen(action="VIDEO", videoUrls=[{"url": link} for link in links], buttons=[])
    assert found.images == tuple(Image(n, link, "video/mp4") for n, link in enumerate(links, 1))


def test_a_relays_link_to_itself_names_the_configured_host() -> None:
    found = seen(imageUrl=f"http://localhost:3000/mj/image/{ID}", action="UPSCALE")
    assert found.images == (Image(1, f"https://relay.example/mj/image/{ID}"),)
    other = seen(imageUrl="http://localhost:3000/other.png", action="UPSCALE")
    assert other.images == (Image(1, "http://localhost:3000/other.png"),)


@pytest.mark.parametrize("link", [None, "", "javascript:alert(1)", 7])
def test_a_success_without_a_usable_link_says_so(link: object) -> None:
    found = seen(imageUrl=link)
    assert found.images == ()
    assert found.warnings == ((WarningCode.LINKS_UNUSABLE.of(1, 1) if link else WarningCode.NO_PICTURES.of()),)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"null", 200),
        (b"", 204),
        ({"description": "task_no_found ", "type": "upstream_error", "code": 4}, 400),
    ],
)
def test_an_unknown_id_is_said_as_such_by_each(body: object, status: int) -> None:
    assert read(body, status) == Unknown()


def test_what_is_no_task_is_trouble() -> None:
    assert isinstance(read({"name": "x"}), Trouble)


# --- buttons


def test_buttons_are_named_by_their_label_or_else_by_their_id() -> None:
    assert seen(buttons=ONE_BUTTONS).buttons == OTHERS


@pytest.mark.parametrize(
    ("buttons", "offers"),
    [
        (GRID_BUTTONS, (Kind.UPSCALE, Kind.VARIATION, Kind.REROLL)),
        (GRID_BUTTONS[4:], (Kind.VARIATION, Kind.REROLL)),
        (ONE_BUTTONS, ()),
        ([], None),
        (None, None),
    ],
)
def test_buttons_that_are_kinds_of_their_own_are_not_listed_but_offered(
    buttons: object, offers: tuple[Kind, ...] | None
) -> None:
    found = seen(buttons=buttons)
    assert found.offers == offers
    assert found.buttons == (OTHERS if buttons is ONE_BUTTONS else ())


def test_the_buttons_of_an_open_task_cannot_be_pressed_and_are_not_read() -> None:
    found = seen(status="IN_PROGRESS", buttons=[button("MJ::CancelJob::1", "Cancel Job")])
    assert (found.buttons, found.offers) == ((), None)


def test_there_are_no_more_buttons_than_a_chat_message_can_have() -> None:
    many = [button(f"MJ::JOB::{n}::1", f"Button {n}") for n in range(1000)]
    assert len(seen(buttons=many).buttons) == 25


def test_every_button_has_a_label_of_its_own_and_none_has_markup() -> None:
    hostile = [button(f"MJ::JOB::{name}::1", f"<b>{label}</b>{KEY}") for name, label in (("a", "Go"), ("b", "go"))]
    assert [one.custom_id for one in read_buttons({"buttons": hostile}, redact)] == ["MJ::JOB::a::1"]
    assert KEY not in str(seen(buttons=hostile))


@pytest.mark.parametrize("buttons", [7, [7], [{}], [{"customId": 7}], [{"customId": ""}], [{"customId": "x"}]])
def test_strange_buttons_do_no_harm(buttons: object) -> None:
    seen(buttons=buttons)


# --- what is sent

STATE = {"state": "sub_1"}
PARENT = flat(buttons=GRID_BUTTONS)
ONE = flat(buttons=ONE_BUTTONS)
V8 = flat(buttons=GRID_BUTTONS[4:])
BARE = flat()


def posted(dialect: str, order: Order, parent: dict[str, Any] | None = None) -> Post | Failure:
    return DIALECTS[dialect].post(order, "sub_1", parent)


@pytest.mark.parametrize("dialect", ["classic", "plus", "newapi"])
@pytest.mark.parametrize(
    ("order", "path", "body"),
    [
        (Imagine("a cat"), "imagine", {"prompt": "a cat"}),
        (Imagine("a cat", ("data:1",)), "imagine", {"prompt": "a cat", "base64Array": ["data:1"]}),
        (Describe("data:1"), "describe", {"base64": "data:1"}),
        (Blend(("data:1", "data:2")), "blend", {"base64Array": ["data:1", "data:2"], "dimensions": "SQUARE"}),
    ],
)
def test_a_submit_holds_the_documented_fields_and_our_state(
    dialect: str, order: Order, path: str, body: dict[str, Any]
) -> None:
    assert posted(dialect, order) == Post(f"/mj/submit/{path}", body | STATE)


@pytest.mark.parametrize(
    ("dialect", "order", "path", "body"),
    [
        ("classic", Change(Kind.UPSCALE, ID, 2), "change", {"taskId": ID, "action": "UPSCALE", "index": 2}),
        ("classic", Change(Kind.REROLL, ID), "change", {"taskId": ID, "action": "REROLL"}),
        ("classic", Change(Kind.UPSCALE, ID, 2, shorthand=True), "simple-change", {"content": f"{ID} U2"}),
        ("newapi", Change(Kind.UPSCALE, ID, 2), "change", {"taskId": ID, "action": "UPSCALE", "index": 2}),
        ("newapi", Change(Kind.REROLL, ID), "change", {"taskId": ID, "action": "REROLL", "index": 1}),
        (
            "newapi",
            Change(Kind.VARIATION, ID, 3, shorthand=True),
            "change",
            {"taskId": ID, "action": "VARIATION", "index": 3},
        ),
    ],
)
def test_a_parent_without_buttons_is_changed(dialect: str, order: Order, path: str, body: dict[str, Any]) -> None:
    assert posted(dialect, order, BARE) == Post(f"/mj/submit/{path}", body | STATE)


@pytest.mark.parametrize("dialect", ["plus", "newapi"])
@pytest.mark.parametrize(
    ("order", "parent", "custom_id"),
    [
        (Change(Kind.UPSCALE, ID, 2), PARENT, f"MJ::JOB::upsample::2::{HASH}"),
        (Change(Kind.VARIATION, ID, 4, shorthand=True), PARENT, f"MJ::JOB::variation::4::{HASH}"),
        (Change(Kind.REROLL, ID), PARENT, f"MJ::JOB::reroll::0::{HASH}::SOLO"),
        (Press(ID, "pan LEFT"), ONE, f"MJ::JOB::pan_left::1::{HASH}::SOLO"),
        (Press(ID, "Custom Zoom", "a cat --zoom 2"), ONE, f"MJ::CustomZoom::{HASH}"),
    ],
)
def test_a_parent_with_buttons_has_one_pressed(
    dialect: str, order: Order, parent: dict[str, Any], custom_id: str
) -> None:
    body = {"taskId": ID, "customId": custom_id} | STATE
    assert posted(dialect, order, parent) == Post("/mj/submit/action", body, may_ask="CustomZoom" in custom_id)


@pytest.mark.parametrize(
    ("dialect", "order", "parent", "words"),
    [
        (
            "plus",
            Change(Kind.UPSCALE, ID, 2),
            ONE,
            'does not offer an upscale of picture 2; it offers: "Upscale (Subtle)", ',
        ),
        ("plus", Change(Kind.UPSCALE, ID, 2), BARE, "the proxy offers no buttons for task"),
        (
            "plus",
            Press(ID, "Zoom"),
            ONE,
            f'task {ID} has no button "Zoom"; it offers: "Upscale (Subtle)", "Vary (Subtle)"',
        ),
        ("plus", Press(ID, "Zoom"), PARENT, "it offers: upscales, variations, rerolls"),
        ("plus", Change(Kind.UPSCALE, ID, 2), V8, "offer an upscale of picture 2; it offers: variations, rerolls"),
        ("plus", Change(Kind.REROLL, ID), ONE, "does not offer a reroll; it offers: "),
        ("plus", Press(ID, "u1"), PARENT, 'ask for an upscale of picture 1 instead of the button "u1"'),
        ("plus", Press(ID, "Custom Zoom"), ONE, 'the button "Custom Zoom" asks for a prompt: give `prompt`'),
        ("newapi", Press(ID, "Animate (High motion)"), ONE, "does not pass on buttons that make videos"),
        ("newapi", Press(ID, "Zoom"), BARE, "the proxy offers no buttons for task"),
        ("classic", Press(ID, "Zoom"), BARE, "the proxy offers no buttons for task"),
        ("gateway", Press(ID, "Zoom"), None, "this proxy offers upscales, variations and rerolls only"),
        ("gateway", Imagine("a cat", ("data:1",)), None, "this proxy takes no uploaded pictures"),
        ("gateway", Describe("data:1"), None, "this proxy offers upscales, variations and rerolls only"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_there_is(
    dialect: str, order: Order, parent: dict[str, Any] | None, words: str
) -> None:
    refused = posted(dialect, order, parent)
    assert isinstance(refused, Failure)
    assert refused.code == "unsupported"
    assert words in refused.message
