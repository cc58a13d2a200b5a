"""The guides of docs/: files, commands, metrics and annotations that they name are there, and their programs run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modeltiers.cli.main import COMMANDS
from modeltiers.render.limits import ARGS, IMAGES, REPLICAS, SOURCES
from modeltiers.render.sidecar import SPOOL

ROOT = Path(__file__).parents[2]
GUIDES = ("cost", "distil-safely", "failure-modes", "multi-tenant", "troubleshooting", "tuning", "upgrade")
TEXTS = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in GUIDES}
ALL = "\n".join(TEXTS.values())


def test_files_commands_and_metrics_are_there() -> None:
    files = set(re.findall(r"(?<![\w/])((?:examples|manifests|charts|crds)/[\w./-]*\w)", ALL))
    assert [one for one in files if not (ROOT / one).exists()] == []
    commands = set(re.findall(r"(?:^|[`\s])(?:kubectl )?modeltiers ([a-z]+)(?= |`|$)", ALL, re.MULTILINE))
    assert commands - COMMANDS.keys() == set()
    metrics = (ROOT / "docs/reference/metrics.md").read_text()
    named = set(re.findall(r"`(modeltiers_\w+)", ALL))
    assert len(named) >= 8
    assert [one for one in named if f"`{one}`" not in metrics] == []


def test_annotations_of_a_namespace_are_those_that_are_looked_at() -> None:
    named = set(re.findall(r"modeltiers\.dev/(?:allowed|max)-\w+", ALL))
    assert named <= {IMAGES, SOURCES, ARGS, REPLICAS}
    assert len(named) >= 3


def test_records_are_read_where_routers_keep_them(tmp_path: Path) -> None:
    (program,) = re.findall(r"-c \\\n  '(import glob.*?)' \\\n", TEXTS["tuning"])
    assert SPOOL in program
    for name in ("0-2.jsonl", "0-1.jsonl"):
        (tmp_path / name).write_text(f"{name}\n")
    program = program.replace(SPOOL, str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0-1.jsonl\n0-2.jsonl\n"


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_curve_is_that_of_the_records(tmp_path: Path) -> None:
    (program,) = re.findall(r"jq -sc '(.*?)' records\.jsonl", TEXTS["tuning"], re.DOTALL)
    attempts = [[{"verdict": {"probability": one}}] for one in (0.95, 0.65, 0.45)]
    attempts += [[{"verdict": {"accepted": False}}, {"outcome": "Answered"}], [{"outcome": "Answered"}]]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps({"attempts": one}) + "\n" for one in attempts))
    done = subprocess.run(["jq", "-sc", program, str(path)], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["thresholdPermille"]: one["escalatedPermille"] for one in lines} == {
        300: 250,
        400: 250,
        500: 500,
        600: 500,
        700: 750,
        800: 750,
        900: 750,
    }
    (shown,) = re.findall(r"```json\n(.*?)```", TEXTS["tuning"], re.DOTALL)
    assert json.loads(shown).keys() == lines[0].keys()


@pytest.mark.parametrize("page", ["README.md", "examples/README.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = [one for one in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")) if "://" not in one]
    assert [one for one in links if not (path.parent / one).exists()] == []


def test_every_example_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)]+)\)", (ROOT / "examples/README.md").read_text(encoding="utf-8")))
    files = {path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*.yaml")}
    missing = {str(one) for one in files if not {str(one), str(one.parent), one.parts[0]} & linked}
    # The rungs of a ladder and the like are in the index by their folder, or by the file that leads to them.
    assert missing == set()
