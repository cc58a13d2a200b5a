"""The threat model: enough threats, each with what stops it and a test; every test that it names exists and runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


def test_there_are_enough_threats_each_with_a_defence_and_a_test() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 30
    for number, threat, defence, tests in ROWS:
        assert len(threat) > 20 and len(defence) > 10, number
        assert TEST.findall(tests), f"threat {number} names no test"
        assert not TEST.sub("", tests).strip(), f"threat {number} has words where tests belong"


def test_every_test_that_is_named_is_collected() -> None:
    named = sorted(set(TEST.findall(PAGE)))
    files = sorted({file for file, _ in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    collected = defaultdict(set)
    for line in done.stdout.splitlines():
        file, found, name = line.partition("::")
        if found:
            collected[file].add(re.sub(r"\[.*", "", name))
    missing = [f"{file}::{name}" for file, name in named if name not in collected[file]]
    assert missing == [], done.stderr[-2000:]


def test_what_is_left_is_said() -> None:
    _, _, left = PAGE.partition("## What is left\n")
    assert len(re.findall(r"^- ", left, re.MULTILINE)) >= 5
