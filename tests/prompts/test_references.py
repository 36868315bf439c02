"""Pictures of ours as references: named by task and index, sent by their links."""

from __future__ import annotations

import pytest
from prompt_parts import URL, refused

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import Compiled, Options, Reference, compile_prompt, files, references

OWN, OWN_2, OWN_LINK = "mj://tasks/task.1:a_b-C/images/3", "0123#16", "https://cdn.example.org/x.png?sig=a"


def test_pictures_of_ours_are_found_among_the_references() -> None:
    options = Options(image_urls=(OWN, URL, OWN_2), style_reference=(OWN_2, "123"), omni_reference="a#1")
    assert references(options) == (
        Reference(OWN, "task.1:a_b-C", 3),
        Reference(OWN_2, "0123", 16),
        Reference("a#1", "a", 1),
    )
    assert references(Options(image_urls=(URL,), style_reference=("random",))) == ()


def test_a_picture_of_ours_is_sent_by_its_link_and_kept_by_its_name() -> None:
    options = Options(image_urls=(OWN,), style_reference=("random", OWN_2), omni_reference="a#1", version="7")
    links = {OWN: OWN_LINK, OWN_2: f"{OWN_LINK}2", "a#1": f"{OWN_LINK}1", "x": URL}
    flags = "--v 7 --sref random {} --oref {}"
    assert compile_prompt("x", options, links=links) == Compiled(
        f"{OWN_LINK} x {flags.format(OWN_LINK + '2', OWN_LINK + '1')}",
        f"task.1:a_b-C#3 x {flags.format('0123#16', 'a#1')}",
    )
    assert compile_prompt("x", Options(image_urls=(OWN_2,))).text == "0123#16 x"
    assert compile_prompt("", Options(image_urls=(OWN, OWN_2)), links=links).key == "task.1:a_b-C#3 0123#16"


NO_PICTURES = ["a#0", "a#17", "a#01", "#1", "a#", "a b#1", "a,b#1", "a/b#1", "x" * 129 + "#1", "\u0661#1", "a#\u0661"]
NO_NAMES = [
    "mj://tasks/a/images/0",
    "mj://tasks/a",
    "mj://tasks/a/b/images/1",
    "mj://tasks/a/images/1 --r 4",
    "mj://tasks//images/1",
    "a#1\n",
]


@pytest.mark.parametrize("item", [*NO_PICTURES, *NO_NAMES])
def test_what_names_no_picture_is_refused(item: str) -> None:
    said = refused("a cat", style_reference=(item,))
    assert said.startswith("`style_reference` must be an http:// or https:// URL without whitespace")
    assert "or a picture of a task (`TASK_ID#1`) (got " in said
    assert references(Options(image_urls=(item,))) == ()


@pytest.mark.parametrize("item", [*NO_NAMES, "ftp://x/y", "file:///a.png", "a\0b.png", "x/" * 2048 + "y", " ", ""])
def test_what_can_be_no_file_either_is_refused_as_an_image_prompt(item: str) -> None:
    said = refused("a cat", image_urls=(item,))
    assert said.startswith("`image_urls` must be an http:// or https:// URL without whitespace")
    assert "a picture of a task (`TASK_ID#1`), or a picture file (got " in said
    assert files(Options(image_urls=(item,))) == ()


# --- files


@pytest.mark.parametrize(
    "name", ["cat.png", "/in/my cat, 2.png", "../x", "C:\\in\\cat.png", "./a#1", "x --r 4.png", *NO_PICTURES]
)
def test_an_image_prompt_that_is_neither_url_nor_picture_of_ours_names_a_file(name: str) -> None:
    options = Options(image_urls=(name, URL, OWN, name))
    assert files(options) == (name,)
    assert compile_prompt("a cat", options, uploads={name: "upload:1"}).text == f"{URL} {OWN} a cat"


def test_what_is_uploaded_is_not_in_the_text_and_has_its_name_in_the_key() -> None:
    options = Options(image_urls=("/in/cat.png", URL, OWN), image_weight=2, version="7")
    assert compile_prompt("a dog", options, uploads={"/in/cat.png": "upload:1", OWN: "task.1:a_b-C#3"}) == Compiled(
        f"{URL} a dog --v 7 --iw 2", f"upload:1 {URL} task.1:a_b-C#3 a dog --v 7 --iw 2"
    )


def test_a_file_never_gets_into_the_text_even_before_it_was_read() -> None:
    assert compile_prompt("a dog", Options(image_urls=("cat.png",))).text == "a dog"


@pytest.mark.parametrize("name", ["style_reference", "omni_reference"])
def test_a_file_is_refused_as_any_other_reference(name: str) -> None:
    item = "/in/cat.JPG"
    said = refused("a cat", **{name: (item,) if name == "style_reference" else item})
    assert f"`{name}` must be an http:// or https:// URL without whitespace" in said
    assert f'(`TASK_ID#1`); a file can be used in `image_urls` only (got "{item}").' in said


def test_uploads_alone_are_no_prompt() -> None:
    for prompt in ("", "--ar 3:2"):
        said = refused(prompt, image_urls=("a.png", "b.png"))
        assert said.startswith("`prompt` must be words before any options, or at least two image URLs")
        with pytest.raises(InvalidRequest, match="`prompt` must be words before any options, since its pictures are"):
            compile_prompt(prompt, Options(image_urls=(OWN, OWN_2)), uploads={OWN: "a#1", OWN_2: "b#1"})
    linked = compile_prompt("", Options(image_urls=(OWN, OWN_2)), links={OWN: OWN_LINK}, uploads={OWN_2: "b#1"})
    assert linked.text == OWN_LINK


def test_the_limit_of_characters_does_not_count_files() -> None:
    assert compile_prompt("x" * 8190, Options(image_urls=("a.png",))).text == "x" * 8190


@pytest.mark.parametrize("link", ["https://x/y --r 4", "https://x/{a,b}", "https://x/y\u200b", "file:///x", ""])
def test_a_link_that_cannot_stand_in_a_prompt_is_refused(link: str) -> None:
    with pytest.raises(InvalidRequest, match="`omni_reference` must be an http:// or https:// URL"):
        compile_prompt("a cat", Options(omni_reference="a#1"), links={"a#1": link})


def test_the_limit_of_characters_counts_links_and_not_names() -> None:
    options = Options(image_urls=("a#1",))
    with pytest.raises(InvalidRequest, match="at most 8192 characters"):
        compile_prompt("x" * 8180, options, links={"a#1": OWN_LINK})
    assert compile_prompt("x" * 8180, options).key == "a#1 " + "x" * 8180


def test_pictures_of_ours_typed_in_the_prompt_are_refused() -> None:
    assert refused("a mj://tasks/a/images/1 cat").startswith(
        "`prompt` must be words and http(s) URLs; pictures of tasks go into `image_urls` (got "
    )
    assert refused("a cat --sref a#1").startswith("`--sref` in the prompt must be an http:// or https:// URL")
    assert compile_prompt("the player#7").text == "the player#7"
