"""The workflows of the public CI: well-formed, with the least rights, without anybody else's code."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.binaries import actionlint
from e2e.containerfile import build

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text())["jobs"])


def test_they_are_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]
    done = subprocess.run([actionlint(), *WORKFLOWS], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_action_of_anybody_is_used_and_rights_are_the_least(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    for name, job in jobs(path).items():
        more = {"packages": "write"} if name == "image" else {}
        assert job["permissions"] in ({"contents": "read"}, {"contents": "write"} | more), name
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert "uses" not in step, f"{name} runs the action {step['uses']}"
            assert "${{" not in step["run"], f"{name}: an expression in a script is code that somebody else may write"
    writers = [name for name, job in jobs(path).items() if job["permissions"]["contents"] == "write"]
    assert writers == (["draft", "image"] if path.stem == "release" else [])


def test_every_image_is_published_with_its_bill_of_materials() -> None:
    job = jobs(WORKFLOWS[1])["image"]
    assert tuple(job["strategy"]["matrix"]["image"]) == build.NAMES
    scripts = "".join(step["run"] for step in job["steps"])
    assert 'make images IMAGES="$IMAGE" PUSH=' in scripts
    assert '"dist/$IMAGE.cdx.json"' in scripts


def test_what_ci_runs_is_what_the_project_says() -> None:
    ((_, job),) = [one for one in jobs(WORKFLOWS[0]).items() if one[0] == "test"]
    assert job["steps"][-1]["run"] == ".ci/run"


def test_notes_of_a_release_are_those_of_the_changelog() -> None:
    def notes(version: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([ROOT / ".ci/notes", version], capture_output=True, text=True, check=False, timeout=30)

    found = notes("Unreleased")
    assert found.returncode == 0
    text = (ROOT / "CHANGELOG.md").read_text()
    assert found.stdout.strip()
    assert found.stdout.strip() in text
    assert "## " not in found.stdout.replace("### ", "")
    missing = notes("99.0.0")
    assert missing.returncode == 1
    assert "99.0.0" in missing.stderr
