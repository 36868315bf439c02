"""`mj-mcp install`, `status` and `uninstall`: connect the server to a host, see where it is connected, disconnect it.

Owns their words and exit codes, and the order: the key is checked before anything is written. The hosts are data in
`hosts/catalog.py`. The key is never printed.
"""

from __future__ import annotations

import asyncio
import platform
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click

from mj_mcp import logs
from mj_mcp.cli.hosts import NAME, Host, Launch, Machine
from mj_mcp.cli.hosts.catalog import BY_ID, HOSTS
from mj_mcp.cli.hosts.edits import CannotEdit, read_entry, snippet, write_entry
from mj_mcp.cli.hosts.programs import can_run, is_temporary, own_command, run_program
from mj_mcp.cli.terminal import EXIT_SETTINGS, fail, print_checks, print_table, program
from mj_mcp.settings import Settings, SettingsError, read_settings
from mj_mcp.settings.environment import folders, variables

KEY_VARIABLE = "MJ_API_KEY"
YOUR_KEY = "YOUR_KEY"
"""Where the key would be, in what is printed."""

FIRST_SENTENCE = "Draw a lighthouse on a cliff at dusk with midjourney, and show me the four pictures."

HOST = click.argument("host_id", metavar="HOST", type=click.Choice(list(BY_ID)))


@click.command(epilog="Examples: mj-mcp install cursor --demo, mj-mcp install claude-code, mj-mcp install --list")
@click.argument("host_id", metavar="HOST", required=False, type=click.Choice(list(BY_ID)))
@click.option("--list", "as_list", is_flag=True, help="List the hosts and what would be changed for each.")
@click.option("--demo", "is_demo", is_flag=True, help="Connect the built-in simulator: no key, no cost.")
@click.option("--print", "only_print", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--key-from-env", is_flag=True, help=f"Take the key from {KEY_VARIABLE} instead of asking for it.")
@click.option("--no-check", is_flag=True, help="Do not check the key and the proxy first.")
def install(  # noqa: PLR0917 - click passes them by name
    host_id: str | None, as_list: bool, is_demo: bool, only_print: bool, key_from_env: bool, no_check: bool
) -> None:
    """Connect the server to HOST: by its own command, else in its file.

    Asks for the key without showing it. Other MJ_... variables that are set go along.
    """
    machine = this_machine()
    if as_list:
        print_table(["HOST", "NAME", "HOW"], [[host.id, host.title, _how(host, machine)] for host in HOSTS])
        return
    if host_id is None:
        fail(f"which host? One of: {', '.join(BY_ID)}", EXIT_SETTINGS)
    host = BY_ID[host_id]
    command, *arguments = own_command()
    if only_print:
        _print_plan(host, machine, _launch(command, arguments, YOUR_KEY, is_demo=is_demo))
        return
    if is_temporary(command):
        fail(f"{command} is temporary (uvx or pipx run). Install it first: uv tool install, or pipx install", 1)
    key = "" if is_demo else _key(from_env=key_from_env)
    settings = _settings(key)
    if not is_demo and not no_check:
        _check(settings)
    launch = _launch(command, arguments, settings.api_key.get_secret_value(), is_demo=is_demo)
    _connect(host, machine, launch)
    print(f"Next: {host.then}")
    if host.note:
        print(host.note)
    print(f"Then say: {FIRST_SENTENCE}")


@click.command()
@click.argument("host_id", metavar="[HOST]", required=False, type=click.Choice(list(BY_ID)))
def status(host_id: str | None) -> None:
    """Show to which hosts on this machine the server is connected. Runs nothing and changes nothing."""
    machine = this_machine()
    hosts = [BY_ID[host_id]] if host_id else HOSTS
    print_table(["HOST", "STATE", "DETAILS"], [[host.id, *_state(host, machine)] for host in hosts])


@click.command()
@HOST
def uninstall(host_id: str) -> None:
    """Remove the server from HOST. The pictures and the journal stay."""
    host, machine = BY_ID[host_id], this_machine()
    path = host.file.on(machine)
    try:
        if read_entry(path, host.file.format, host.file.key) is None:
            print(f"{host.title} has no {NAME} in {path}.")
            return
        program = host.program and machine.which(host.program.name)
        if host.program and host.program.remove and program:
            said = run_program(program, list(host.program.remove))
            if said is None:
                print(f"{host.title}: {NAME} is removed.")
                return
            print(f"`{shlex.join([host.program.name, *host.program.remove])}` did not work: {said}", file=sys.stderr)
        if not host.file.ours_to_write:
            fail(f"remove {NAME} with {host.title}'s own command", 1)
        backup = write_entry(path, host.file.format, host.file.key, None)
    except CannotEdit as reason:
        fail(f"{path} is not changed: {reason}. Remove {NAME} from it by hand", 1)
    print(f"{host.title}: {NAME} is removed from {path}. The file as it was, with the key: {backup}")


def this_machine() -> Machine:
    """The machine that this runs on."""
    return Machine(platform.system(), Path.home(), folders(), shutil.which)


def _launch(command: str, arguments: list[str], key: str, *, is_demo: bool) -> Launch:
    if is_demo:
        return Launch(command, (*arguments, "serve", "--demo"))
    return Launch(command, tuple(arguments), {**variables(), KEY_VARIABLE: key})


def _key(*, from_env: bool) -> str:
    if from_env:
        return variables().get(KEY_VARIABLE) or fail(f"{KEY_VARIABLE} is not set", EXIT_SETTINGS)
    if not sys.stdin.isatty():
        fail(f"there is no terminal to ask for the key: set {KEY_VARIABLE} and add --key-from-env", EXIT_SETTINGS)
    return str(click.prompt("The key of your Midjourney Proxy (it is not shown)", hide_input=True))


def _settings(key: str) -> Settings:
    try:
        return read_settings(api_key=key)
    except SettingsError as failure:
        fail(f"{failure}. Nothing was changed", EXIT_SETTINGS)


def _check(settings: Settings) -> None:
    from mj_mcp.cli.doctor import run_checks  # noqa: PLC0415 - only who installs pays for it

    logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))
    checks = asyncio.run(run_checks(settings))
    print_checks(checks)
    if any(check.ok is False for check in checks):
        fail("nothing was changed. Correct what failed, or add --no-check", 1)


def _connect(host: Host, machine: Machine, launch: Launch) -> None:
    """By the host's own command; where there is none or it does not work, in its file; else a text to paste."""
    path = host.file.on(machine)
    if not host.is_found(machine):
        print(f"{host.title} was not found on this machine.")
    if _connect_by_program(host, machine, launch):
        print(f"{host.title}: {NAME} is connected.")
        return
    shown = replace(launch, env=_hidden(launch))
    if not host.file.ours_to_write:
        fail(f"{host.title}'s own command could not be used. Run it yourself:\n\n  {_own_words(host, shown)}", 1)
    try:
        backup = write_entry(path, host.file.format, host.file.key, host.file.entry(launch))
    except CannotEdit as reason:
        text = snippet(host.file.format, host.file.key, host.file.entry(shown))
        fail(f"{path} is not changed: {reason}. Paste this into it:\n\n{text}\n{_link(host, shown)}", 1)
    print(f"{host.title}: {NAME} is in {path}." + (f" The file as it was: {backup}" if backup else ""))


def _connect_by_program(host: Host, machine: Machine, launch: Launch) -> bool:
    path = host.program and machine.which(host.program.name)
    if not host.program or not path or not can_run(path, arguments := host.program.adding(launch)):
        return False
    if not host.program.replaces and _entry(host, machine):
        run_program(path, list(host.program.remove))
    said = run_program(path, arguments)
    if said is not None:
        redact = logs.redactor(launch.env.get(KEY_VARIABLE, ""))
        print(f"`{host.program.name}` did not work: {redact(said)}", file=sys.stderr)
    return said is None


def _print_plan(host: Host, machine: Machine, launch: Launch) -> None:
    launch = replace(launch, env=_hidden(launch))
    if host.program and (path := machine.which(host.program.name)) and can_run(path, host.program.adding(launch)):
        print(f"This would run {host.title}'s own command:\n\n  {_own_words(host, launch)}")
    elif not host.file.ours_to_write:
        print(f"{host.title} is not on this machine's path. Where it is, run:\n\n  {_own_words(host, launch)}")
    else:
        print(f"This would go into {host.file.on(machine)}:\n")
        print(snippet(host.file.format, host.file.key, host.file.entry(launch)))
    print(_link(host, launch), end="")
    print(f"\n{host.note}" if host.note else "", end="\n" if host.note else "")


def _hidden(launch: Launch) -> dict[str, str]:
    """The variables without what is secret."""
    secret = {KEY_VARIABLE: YOUR_KEY, "MJ_SECRET_KEY": "...", "MJ_DATABASE_URL": "..."}
    return {name: secret.get(name, value) for name, value in launch.env.items()}


def _own_words(host: Host, launch: Launch) -> str:
    return shlex.join([host.program.name, *host.program.adding(launch)]) if host.program else ""


def _link(host: Host, launch: Launch) -> str:
    return f"\nOr open this link:\n\n  {host.link(launch)}\n" if host.link else ""


def _entry(host: Host, machine: Machine) -> dict[str, object] | None:
    try:
        return read_entry(host.file.on(machine), host.file.format, host.file.key)
    except CannotEdit:
        return None


def _how(host: Host, machine: Machine) -> str:
    if host.program and machine.which(host.program.name):
        return f"its own command, {host.program.name}"
    return f"the file {host.file.on(machine)}" if host.file.ours_to_write else "its own command, which is not found"


def _state(host: Host, machine: Machine) -> tuple[str, str]:
    path = host.file.on(machine)
    try:
        entry = read_entry(path, host.file.format, host.file.key)
    except CannotEdit as reason:
        return "unknown", f"{path}: {reason}"
    if entry is None:
        return (
            ("not connected", f"{program()} install {host.id}") if host.is_found(machine) else ("not found", str(path))
        )
    command = str(entry.get("command") or entry.get("cmd") or "")
    if not Path(command).exists() and not machine.which(command):
        return "broken", f"{command} does not exist: {program()} install {host.id}"
    arguments = entry.get("args")
    demo = " (demo)" if isinstance(arguments, list) and "--demo" in arguments else ""
    return f"connected{demo}", str(path)
