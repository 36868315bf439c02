"""Changes one entry in a host's file and leaves every other byte of it as it is.

Owns the formats. A file whose other parts would change, or that is not understood, is not written.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

from mj_mcp.cli.hosts import NAME, Format
from mj_mcp.files import write_whole

Entry = dict[str, Any]

BACKUP = ".mj-mcp-backup"
"""The suffix of the file as it was before our last change."""

_BOM = "\ufeff"


class CannotEdit(Exception):
    """The file is not one that we can change safely. Says why."""


def read_entry(path: Path, form: Format, key: str) -> Entry | None:
    """Our entry in the file; None where there is none.

    Raises:
        CannotEdit: the file cannot be read.
    """
    document = _parse(_read(path), form)
    entries = document.get(key) if isinstance(document, dict) else None
    entry = entries.get(NAME) if isinstance(entries, dict) else None
    return entry if isinstance(entry, dict) else None


def write_entry(path: Path, form: Format, key: str, entry: Entry | None) -> Path | None:
    """Set our entry, or remove it with None. Returns the backup of the file as it was, if the file existed.

    Raises:
        CannotEdit: the file cannot be read or written, or something else in it would change.
    """
    path = path.resolve()  # a link to a file that is kept elsewhere stays a link
    before = _read(path)
    after = edited(before, form, key, entry)
    if after == before:
        return None
    backup = path.with_name(path.name + BACKUP) if path.exists() else None
    try:
        if backup:
            write_whole(backup, before.encode())
        write_whole(path, after.encode())
    except OSError as failure:
        raise CannotEdit(f"{path} cannot be written: {failure.strerror or failure}") from None
    return backup


def edited(text: str, form: Format, key: str, entry: Entry | None) -> str:
    """The file's text with our entry set, or removed.

    Raises:
        CannotEdit: the text is not understood, or something else in it would change.
    """
    before = _parse(text, form)
    others = before.get(key) if isinstance(before, dict) else before
    others = {} if others is None else others
    if not isinstance(before, dict) or not isinstance(others, dict):
        raise CannotEdit(f"`{key}` is not what it is usually")
    if entry is None and NAME not in others:
        return text
    try:
        after = {"json": _edit_json, "toml": _edit_toml, "yaml": _edit_yaml}[form](text, key, entry)
    except (ValueError, KeyError, TypeError, AttributeError):  # libraries that do not know their way in this document
        raise CannotEdit("its layout is unusual") from None
    if "\r\n" in text and text.count("\r\n") == text.count("\n"):
        after = re.sub(r"\r?\n", "\r\n", after)
    meant = {name: value for name, value in others.items() if name != NAME} | ({NAME: entry} if entry else {})
    found = _parse(after, form)
    if {**found, key: found.get(key) or {}} != {**before, key: meant}:
        raise CannotEdit("something else in it would change")
    return after


def snippet(form: Format, key: str, entry: Entry) -> str:
    """The text to paste."""
    return edited("", form, key, entry).strip()


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as failure:
        said = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8"
        raise CannotEdit(f"{path} cannot be read: {said}") from None


def _parse(text: str, form: Format) -> Any:  # noqa: ANN401 - a document
    text = text.removeprefix(_BOM)
    if not text.strip():
        return {}
    try:
        if form == "json":
            return json.loads(text)
        if form == "toml":
            import tomllib  # noqa: PLC0415 - only Codex needs it

            return tomllib.loads(text)
        return _yaml().load(text) or {}
    except Exception:  # noqa: BLE001 - three libraries' errors, and none of their words
        with_comments = form == "json" and re.search(r"^\s*//|/\*", text, re.MULTILINE)
        raise CannotEdit("it has comments" if with_comments else f"it is not valid {form.upper()}") from None


# --- JSON: the text is changed where our entry is, and nowhere else


def _edit_json(text: str, key: str, entry: Entry | None) -> str:
    text = text if text.strip().removeprefix(_BOM) else text + "{}\n"
    found = re.search(r"\n([ \t]+)\"", text)
    indent = found[1] if found else "  "
    start = _skip(text, len(_BOM) if text.startswith(_BOM) else 0)
    if not any(name == key for name, *_ in _members(text, start)):
        text = _put(text, start, key, "{}", indent=indent, depth=1)
    start = next(value for name, _, value, _ in reversed(_members(text, start)) if name == key)
    if entry is None:
        return _without(text, start)
    written = json.dumps(entry, indent=indent, ensure_ascii=False)
    return _put(text, start, NAME, written, indent=indent, depth=2)


def _skip(text: str, at: int) -> int:
    """The place of the next character that is not white space."""
    return len(text) - len(text[at:].lstrip(" \t\r\n"))


def _members(text: str, start: int) -> list[tuple[str, int, int, int]]:
    """The members of the object that begins at `start`: name, where it begins, where its value begins and ends."""
    decoder, found = json.JSONDecoder(), []
    at = _skip(text, start + 1)
    while text[at] != "}":
        name, end = decoder.raw_decode(text, at)
        value = _skip(text, _skip(text, end) + 1)
        _, after = decoder.raw_decode(text, value)
        found.append((name, at, value, after))
        at = _skip(text, after)
        at = _skip(text, at + 1) if text[at] == "," else at
    return found


def _put(text: str, start: int, key: str, written: str, *, indent: str, depth: int) -> str:
    """The text with this member of the object at `start` set. A new one is the last, on a line of its own."""
    members = _members(text, start)
    margin = "\n" + indent * depth
    written = written.replace("\n", margin)
    for name, _, begins, ends in reversed(members):
        if name == key:
            return text[:begins] + written + text[ends:]
    member = f"{margin}{json.dumps(key)}: {written}"
    if members:
        end = members[-1][3]
        return f"{text[:end]},{member}{text[end:]}"
    return f"{text[: start + 1]}{member}\n{indent * (depth - 1)}{text[_skip(text, start + 1) :]}"


def _without(text: str, start: int) -> str:
    """The text without our entry in the object at `start`, and without its comma."""
    members = _members(text, start)
    place = next(place for place, (name, *_) in enumerate(members) if name == NAME)
    _, begins, _, ends = members[place]
    if place:
        return text[: members[place - 1][3]] + text[ends:]
    if len(members) > 1:
        return text[:begins] + text[members[1][1] :]
    return text[: start + 1] + text[_skip(text, ends) :]


# --- TOML and YAML: libraries that keep comments and order


def _edit_toml(text: str, key: str, entry: Entry | None) -> str:
    import tomlkit  # noqa: PLC0415 - only Codex needs it

    document: Any = tomlkit.parse(text)
    if key not in document:
        document[key] = tomlkit.table(is_super_table=True)
    if entry is None:
        del document[key][NAME]
    else:
        document[key][NAME] = entry
    return tomlkit.dumps(document)


def _edit_yaml(text: str, key: str, entry: Entry | None) -> str:
    document = _yaml().load(text) or {}
    if text.strip() and _dumped(document) != text.replace("\r\n", "\n"):
        raise CannotEdit("its layout would change")
    if not document.get(key):
        document[key] = {}
    if entry is None:
        del document[key][NAME]
    else:
        document[key][NAME] = entry
    return _dumped(document)


def _yaml() -> Any:  # noqa: ANN401 - ruamel's
    from ruamel.yaml import YAML  # noqa: PLC0415 - only Goose needs it

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000  # never folds a line
    return yaml


def _dumped(document: Any) -> str:  # noqa: ANN401 - ruamel's
    stream = io.StringIO()
    _yaml().dump(document, stream)
    return stream.getvalue()
