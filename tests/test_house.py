"""The map of the house, held by the code: who may import whom, who may touch the outside, and how large a room gets.

A new room gets a line in `ROOMS`; a new import between rooms gets a word in its line. When a line would have to point
upwards, the wall is in the wrong place: move the wall.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

HOUSE = Path(__file__).parent.parent / "mj_mcp"

# Each dictionary is a floor, the lowest first: a room, and the rooms that it imports, all of them on floors below. A
# floor is as high as it has to be: each of its rooms imports one from the floor just below. The edges own one kind of
# outside each, and never import each other.
ROOMS: list[dict[str, set[str]]] = [
    {
        "__init__": set(),
        "background": set(),
        "errors": set(),
        "files": set(),
        "logs": set(),
        "simulator": set(),
        "tasks": set(),
        "urls": set(),
    },
    {
        "auth": {"files", "urls"},
        "events": {"tasks"},
        "journal": {"errors", "files", "tasks"},
        "pictures": {"errors", "files", "urls"},
        "prompts": {"errors"},
        "proxy": {"__init__", "errors", "tasks", "urls"},
        "settings": {"urls"},
    },
    {
        "archive": {"errors", "files", "pictures"},
        "polling": {"errors", "events", "journal", "proxy", "tasks"},
        "settlement": {"errors", "journal", "proxy", "tasks"},
        "telemetry": {"__init__", "events", "tasks"},
    },
    {
        "gallery": {"archive", "errors", "events", "journal", "pictures", "proxy", "tasks"},
        "submits": {"errors", "events", "journal", "polling", "proxy", "tasks"},
    },
    {
        "studio": {
            "archive",
            "background",
            "errors",
            "events",
            "gallery",
            "journal",
            "pictures",
            "polling",
            "prompts",
            "proxy",
            "submits",
            "tasks",
        },
    },
    {
        "app": {
            "archive",
            "background",
            "events",
            "gallery",
            "journal",
            "logs",
            "pictures",
            "polling",
            "proxy",
            "settings",
            "settlement",
            "studio",
            "submits",
            "tasks",
            "urls",
        },
        "server": {
            "__init__",
            "auth",
            "errors",
            "events",
            "files",
            "journal",
            "pictures",
            "prompts",
            "settings",
            "studio",
            "tasks",
            "urls",
        },
    },
    {
        "cli": {
            "app",
            "archive",
            "auth",
            "errors",
            "events",
            "files",
            "journal",
            "logs",
            "proxy",
            "server",
            "settings",
            "settlement",
            "simulator",
            "studio",
            "tasks",
            "telemetry",
            "urls",
        },
    },
    {
        "__main__": {"cli"},
    },
]

FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
IMPORTS = {room: targets for rooms in ROOMS for room, targets in rooms.items()}
EDGES = {"auth", "journal", "pictures", "proxy"}

# What is outside, and the only modules or rooms that may import it.
OUTSIDE: dict[str, set[str]] = {
    "mcp": {"server", "cli.demo"},  # the demo is a client
    "mcp_types": {"server", "cli.demo"},
    "httpx": {"urls", "proxy.transport", "auth.issuer"},
    "jwt": {"auth.issuer", "server.links"},
    "stamina": {"proxy.transport"},
    "httpcore": {"pictures"},  # below httpx, which would log whole links and decode bodies
    "requests": set(),
    "aiohttp": set(),
    "http.client": set(),
    "urllib.request": {"urls"},  # for what it knows of the environment's proxies
    "socket": {"pictures", "simulator", "server.http"},
    "sqlite3": {"journal"},
    "aiosqlite": {"journal"},
    "sqlalchemy": {"journal"},
    "psycopg": {"journal"},
    "psycopg_pool": {"journal"},
    "obstore": {"archive.bucket"},
    "boto3": set(),
    "PIL": {"pictures", "simulator"},
    "h11": {"simulator"},
    "click": {"cli"},
    "platformdirs": {"settings"},
    "pydantic_settings": {"settings"},
    "opentelemetry": {"proxy.transport", "server", "telemetry"},
    "subprocess": {"cli.hosts.programs"},  # a host's own command
    "rich": {"cli.terminal"},
    "tomlkit": {"cli.hosts.edits"},
    "ruamel": {"cli.hosts.edits"},
    "importlib": set(),
    "starlette": {"server"},
    "uvicorn": {"server"},
}

NO_IO = {"asyncio", "io", "logging", "os", "pathlib", "shutil", "structlog", "tempfile", "threading", "time"}
"""What floor 0 and the schedule must not import, beside all that is in `OUTSIDE`."""

PURE = {"errors", "settings.pasted", "tasks", "prompts", "events"} | {
    f"polling.{name}" for name in ("schedule", "job_times", "open_jobs")
}

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 40

# Present excess, with the present number. It only shrinks: a shorter file or function lowers its number here, and one
# within the limit leaves the list.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {
    "server.tools.spending:generate_image": 68,  # its arguments are the published ones
}


def modules() -> Iterator[tuple[str, str]]:
    """Every module of the house by its dotted name below `mj_mcp`, and its source."""
    for path in sorted(HOUSE.rglob("*.py")):
        parts = list(path.relative_to(HOUSE).with_suffix("").parts)
        if len(parts) > 1 and parts[-1] == "__init__":
            parts.pop()
        yield ".".join(parts), path.read_text(encoding="utf-8")


def room_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def allowed(module: str, owners: set[str]) -> bool:
    return module in owners or room_of(module) in owners


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every import, wherever it stands, as a dotted name; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield node.lineno, "." * node.level + f"{node.module or ''}.{name.name}".lstrip(".")


def violations(module: str, source: str) -> list[str]:
    """What in this module breaks the table, one line each."""
    tree = ast.parse(source)
    found = [
        f"{module}:{line} {said}" for line, name in imports(tree) if (said := _wrong_import(module, name)) is not None
    ]
    found += [f"{module}:{line} {said}" for line, said in _wrong_names(module, tree)]
    if not (ast.get_docstring(tree) or "").strip():
        found.append(f"{module}:1 does not open with what it owns (a docstring)")
    return found


def _wrong_import(module: str, name: str) -> str | None:
    room = room_of(module)
    if room not in IMPORTS:
        return f"is no room in the table: give {room} a line in ROOMS"
    if name.startswith("."):
        return f"imports {name} relatively, which hides the room"
    if name == "mj_mcp" or name.startswith("mj_mcp."):
        target = ([part for part in name.split(".")[1:2] if part in IMPORTS] or ["__init__"])[0]
        return None if target == room or target in IMPORTS[room] else f"imports {target}"
    return _wrong_outside(module, name)


def _wrong_outside(module: str, name: str) -> str | None:
    for outside, owners in OUTSIDE.items():
        if (name == outside or name.startswith(f"{outside}.")) and not allowed(module, owners):
            return f"imports {outside}, which is for {', '.join(sorted(owners)) or 'nobody'}"
    if allowed(module, PURE) and name.split(".", maxsplit=1)[0] in NO_IO:
        return f"imports {name}, and is a room without I/O, clock or event loop"
    return None


def _wrong_names(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    room = room_of(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted = f"{node.value.id}.{node.attr}"
            if dotted in {"os.environ", "os.environb", "os.getenv", "os.putenv"} and room != "settings":
                yield node.lineno, "reads the environment, which is for settings"
            if dotted in {"sys.stdout", "sys.__stdout__"}:
                yield node.lineno, "touches stdout, which carries the protocol"
        elif isinstance(node, ast.ImportFrom) and node.module == "os" and room != "settings":
            if {"environ", "environb", "getenv"} & {name.name for name in node.names}:
                yield node.lineno, "reads the environment, which is for settings"
        elif isinstance(node, ast.Name) and node.id == "print" and room != "cli":
            yield node.lineno, "prints, which is for cli"
        elif isinstance(node, ast.Name) and node.id in {"__import__", "breakpoint", "eval", "exec"}:
            yield node.lineno, f"uses {node.id}"


def public_names(source: str) -> Iterator[str]:
    """The classes and constants of a module that others may name. Type variables have one letter."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.ClassDef):
            yield node.name
        yield from (name for name in names if name.isupper() and name[1:] and name[0] != "_")


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, int]]:
    """Every function with its number of lines, from its `def` to its end."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{inside}{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
            yield from functions(node, f"{inside}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{inside}{node.name}.")
        else:
            yield from functions(node, inside)


def excess(numbers: dict[str, int], limit: int, tolerated: dict[str, int]) -> list[str]:
    """What breaks a ratchet: too long, longer than tolerated, or tolerated for more than it needs."""
    long = {name: lines for name, lines in numbers.items() if lines > limit}
    grown = [
        f"{name} has {lines} lines, allowed are {tolerated.get(name, limit)}: split its subject"
        for name, lines in long.items()
        if lines > tolerated.get(name, limit)
    ]
    shrunk = [
        f"{name} has {numbers.get(name, 0)} lines: lower its number in the list, or drop it at {limit}"
        for name, lines in tolerated.items()
        if numbers.get(name, 0) < lines
    ]
    return grown + shrunk


@pytest.mark.parametrize(("module", "source"), [pytest.param(*pair, id=pair[0]) for pair in modules()])
def test_a_room_keeps_to_the_table(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_every_floor_is_as_high_as_its_imports_make_it() -> None:
    heights = {room: 1 + max((FLOORS[target] for target in targets), default=-1) for room, targets in IMPORTS.items()}
    assert heights == FLOORS


def test_the_table_lists_no_import_that_nobody_makes() -> None:
    made: dict[str, set[str]] = {room: set() for room in IMPORTS}
    for module, source in modules():
        for _, name in imports(ast.parse(source)):
            if name.startswith("mj_mcp."):
                target = name.split(".")[1]
                made[room_of(module)].add(target if target in IMPORTS else "__init__")
    assert {room: targets - {room} for room, targets in made.items()} == IMPORTS


def test_the_house_stays_small() -> None:
    rooms = [room for room in IMPORTS if not room.startswith("__")]
    assert (len(rooms) <= 25, len(ROOMS) <= 8, sum(map(len, IMPORTS.values())) <= 100) == (True, True, True)


def test_the_edges_never_import_each_other() -> None:
    assert {room: EDGES & IMPORTS[room] for room in EDGES} == {room: set() for room in EDGES}


def test_the_simulator_is_a_stranger_that_only_commands_invite() -> None:
    assert IMPORTS["simulator"] == set()
    assert {room for room, targets in IMPORTS.items() if "simulator" in targets} == {"cli"}


def test_a_class_or_a_constant_has_one_meaning() -> None:
    """Each folder of tools has its `TOOLS`. The simulator's constants are its own: it shares none with the client."""
    uses = [
        (name, module)
        for module, source in modules()
        for name in public_names(source)
        if name != "TOOLS" and not (name.isupper() and room_of(module) == "simulator")
    ]
    counts = Counter(name for name, _ in uses)
    assert [use for use in uses if counts[use[0]] > 1] == []


def test_no_two_modules_have_one_name() -> None:
    """Both ends of HTTP are called http, and the simulator's modules are named after those that they stand in for."""
    names = Counter(module.rpartition(".")[2] for module, _ in modules() if room_of(module) != "simulator")
    assert {name for name, count in names.items() if count > 1} <= {"http", "__init__"}


def test_every_existing_room_is_in_the_table() -> None:
    assert {room_of(module) for module, _ in modules()} == set(IMPORTS)


def test_files_stay_short() -> None:
    lines = {module: source.count("\n") for module, source in modules()}
    wrong = excess(lines, MAX_FILE_LINES, LONG_FILES)
    assert not wrong, "\n".join(wrong)


def test_functions_stay_short() -> None:
    lines = {f"{module}:{name}": count for module, source in modules() for name, count in functions(ast.parse(source))}
    wrong = excess(lines, MAX_FUNCTION_LINES, LONG_FUNCTIONS)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("tasks", "import mj_mcp.studio", "imports studio"),
        ("tasks", "from mj_mcp import studio", "imports studio"),
        ("tasks", "import asyncio", "without I/O"),
        ("tasks", "def f():\n    from time import time", "without I/O"),
        ("proxy.dialects.gateway", "from mj_mcp.journal import Page", "imports journal"),
        ("journal.sqlite", "from mj_mcp.proxy.http import Http", "imports proxy"),
        ("proxy.dialects.gateway", "import httpx", "imports httpx"),
        ("proxy", "from httpx import AsyncClient", "imports httpx"),
        ("studio", "from mcp.types import Tool", "imports mcp"),
        ("studio", "import mcp_types", "imports mcp_types"),
        ("polling.poller", "from mj_mcp.studio import Studio", "imports studio"),
        ("polling.poller", "from mj_mcp.settings import Settings", "imports settings"),
        ("polling.schedule", "import asyncio", "without I/O"),
        ("server.tools", "from mj_mcp.proxy import Proxy", "imports proxy"),
        ("server.tools", "import sqlite3", "imports sqlite3"),
        ("simulator.api", "from mj_mcp.tasks import Task", "imports tasks"),
        ("app", "from mj_mcp.simulator import Simulator", "imports simulator"),
        ("app", "from . import cli", "relatively"),
        ("app", "import os\nkey = os.environ['MJ_API_KEY']", "reads the environment"),
        ("app", "from os import getenv", "reads the environment"),
        ("app", "print('x')", "prints"),
        ("server", "say = print", "prints"),
        ("cli", "import sys\nsys.stdout.write('x')", "touches stdout"),
        ("app", "import importlib\nimportlib.import_module('mj_mcp.cli.commands')", "imports importlib"),
        ("app", "__import__('mj_mcp.cli.commands')", "uses __import__"),
        ("cellar", "import os", "no room in the table"),
    ],
)
def test_the_checker_sees_what_is_wrong(module: str, line: str, said: str) -> None:
    found = violations(module, f'"""A room."""\n{line}\n')
    assert len(found) >= 1
    assert said in " ".join(found)


def test_the_checker_sees_a_room_without_a_docstring() -> None:
    assert violations("tasks", "x = 1\n") == ["tasks:1 does not open with what it owns (a docstring)"]


def test_the_checker_lets_pass_what_is_right() -> None:
    source = '"""A room."""\nimport time\nimport httpx\nfrom mj_mcp import __version__\nfrom mj_mcp.tasks import Task\n'
    assert violations("proxy.transport", source) == []


def test_the_ratchet_sees_growth_and_slack() -> None:
    tolerated = {"grown": 50, "shrunk": 50, "gone": 50, "same": 50}
    numbers = {"new": 41, "grown": 51, "shrunk": 49, "same": 50, "short": 40}
    assert [line.split()[0] for line in excess(numbers, 40, tolerated)] == ["new", "grown", "shrunk", "gone"]


def test_lines_of_nested_functions_are_counted() -> None:
    tree = ast.parse("class A:\n    def f(self):\n        def g():\n            pass\n        return g\n")
    assert dict(functions(tree)) == {"A.f": 4, "A.f.g": 2}


# --- the tests themselves


TESTS = Path(__file__).parent

MAX_TEST_LINES = 600

CHANCE = {"uuid.uuid1", "uuid.uuid4", "os.urandom"}


def test_test_files_stay_short() -> None:
    lines = {f"{path.relative_to(TESTS)}": path.read_text(encoding="utf-8").count("\n") for path in TESTS.rglob("*.py")}
    wrong = excess(lines, MAX_TEST_LINES, {})
    assert not wrong, "\n".join(wrong)


def test_no_two_test_modules_have_one_name() -> None:
    """Tests import helpers by their names alone, and a second conftest.py would hide the first."""
    names = Counter(path.name for path in TESTS.rglob("*.py") if "hosts" not in path.parts)
    assert [name for name, count in names.items() if count > 1] == []


def test_hypothesis_gives_the_same_examples_in_every_run() -> None:
    profile = settings()
    assert (profile.derandomize, profile.deadline, profile.database) == (True, None, None)


def taken_by_chance(tree: ast.AST) -> list[int]:
    """The lines that call what gives another value in each run: `random` without a seed, `secrets`, and the like."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            seeded = name == "random.Random" and node.args
            if name in CHANCE or (re.fullmatch(r"(random|secrets)\.\w+", name) and not seeded):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: f"{path.relative_to(TESTS)}")
def test_no_test_is_judged_by_chance(path: Path) -> None:
    assert taken_by_chance(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_what_is_taken_by_chance_is_seen() -> None:
    source = "random.Random()\nrandom.Random(7)\nrandom.random()\nsecrets.token_hex()\nuuid.uuid4()\ndice.random()\n"
    assert taken_by_chance(ast.parse(source)) == [1, 3, 4, 5]
