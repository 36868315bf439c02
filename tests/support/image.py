"""The Dockerfile without an engine: `python tests/support/image.py` carries out its steps in a folder of their own.

Needs root, `unshare`, and the package index that pip uses; the base image is stood in for by this machine's own
/usr, read-only. Builds, then starts the command as the image's user with everything but its volumes read-only, on
loopback, and asks its health check. Ends with 1 when anything fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = [
    name for name in ("usr", "lib", "lib64", "bin", "sbin", sys.base_prefix.lstrip("/")) if Path(f"/{name}").exists()
]
"""What stands in for the base image: the programs of this machine, and the Python that runs this."""

PATIENCE = 60.0


@dataclass(frozen=True)
class Step:
    """One instruction: FROM, RUN, COPY, ..., and the rest of its line."""

    word: str
    rest: str

    def pairs(self) -> dict[str, str]:
        """What an ENV sets."""
        return dict(word.split("=", 1) for word in shlex.split(self.rest))


def read_dockerfile(path: Path) -> list[Step]:
    """Its steps in order; comments are gone, continued lines are one."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [Step(*line.split(None, 1)) for line in lines if line.strip()]


class Folder:
    """A root folder: this machine's programs, and all else as the steps make it."""

    def __init__(self, path: Path, base: Path | None) -> None:
        self.path = path
        self.env = {"PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
        self.cwd = "/"
        for name in ("root", "opt", "data", "proc", "dev", "tmp", *SHARED):
            (path / name).mkdir(parents=True, exist_ok=True)
        (path / "tmp").chmod(0o1777)
        shutil.copytree("/etc", path / "etc", symlinks=True, ignore_dangling_symlinks=True)
        self.base = base

    def command(self, words: list[str], *, user: str = "", read_only: bool = False) -> list[str]:
        """The words inside the folder; with `read_only`, only /data and /tmp can be written."""
        root = shlex.quote(str(self.path))
        mounts = [f"mount --bind {root} {root}"]
        mounts += [f"mount --rbind -o ro /{name} {root}/{name}" for name in SHARED]
        mounts += [f"mount --rbind /dev {root}/dev", f"mount --bind /proc {root}/proc"]
        if read_only:
            mounts += [f"mount --bind {root}/{name} {root}/{name}" for name in ("data", "tmp")]
            mounts += [f"mount -o remount,bind,ro {root}"]
        uid, _, gid = user.partition(":")
        drop = f"setpriv --reuid {uid} --regid {gid} --clear-groups " if user else ""
        inner = f"cd {shlex.quote(self.cwd)} && exec {drop}{shlex.join(words)}"
        script = " && ".join([*mounts, f"exec chroot {root} /bin/sh -c {shlex.quote(inner)}"])
        return ["unshare", "--mount", "sh", "-ec", script]

    def run(self, step: Step) -> None:
        """Carry out one step."""
        print(f"{step.word} {step.rest[:100]}", flush=True)
        match step.word:
            case "WORKDIR":
                self.cwd = step.rest
                (self.path / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENV":
                path = self.env["PATH"]
                self.env |= {name: value.replace("$PATH", path) for name, value in step.pairs().items()}
            case "COPY":
                self._copy(step.rest.split())
            case "RUN":
                subprocess.run(self.command(["sh", "-ec", step.rest]), env=self.env, check=True, timeout=600)

    def _copy(self, words: list[str]) -> None:
        source = ROOT
        if words[0].startswith("--from="):
            assert self.base is not None
            source, words = self.base, words[1:]
        *names, target = words
        for name in names:
            found = source / name.lstrip("/")
            to = self.path / os.path.join(self.cwd, target).lstrip("/")  # noqa: PTH118 - `target` may be absolute
            if found.is_dir():
                shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(found, to)


def main() -> int:
    """Build, start, check."""
    steps = read_dockerfile(ROOT / "Dockerfile")
    last = {step.word: step.rest for step in steps}
    with tempfile.TemporaryDirectory(prefix="mj-image-") as name:
        folder, base = Path(name), None
        for number, step in enumerate(steps):
            if step.word == "FROM":
                base = folder if number else None
                folder = Path(name) / f"stage-{number}"
                folder.mkdir()
                stage = Folder(folder, base)
            stage.run(step)
        return _serve(stage, last)


def _serve(stage: Folder, last: dict[str, str]) -> int:
    env = stage.env | {"MJ_API_KEY": "none", "MJ_BASE_URL": "http://127.0.0.1:9"}
    stage.cwd = "/"
    words = json.loads(last["CMD"].replace("0.0.0.0", "127.0.0.1"))  # nothing here is reachable from outside
    tried = stage.command(["touch", "/opt/mj-mcp/written"], user=last["USER"], read_only=True)
    assert subprocess.run(tried, env=env, capture_output=True, check=False).returncode != 0, "the tree can be written"
    server = subprocess.Popen(stage.command(words, user=last["USER"], read_only=True), env=env)
    check = stage.command(json.loads(last["HEALTHCHECK"].partition("CMD ")[2]), user=last["USER"], read_only=True)
    try:
        until = time.monotonic() + PATIENCE
        while subprocess.run(check, env=env, capture_output=True, check=False).returncode:
            if server.poll() is not None or time.monotonic() > until:
                print("it never became healthy")
                return 1
        size = subprocess.run(["du", "-sm", stage.path / "opt"], capture_output=True, text=True, check=True).stdout
        print(f"healthy as {last['USER']}; {size.split()[0]} MB over the base image")
        server.terminate()
        return server.wait(PATIENCE)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
