"""`make demo` where a real node can run: it keeps its promises, and nothing of it is left however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from tests.node.test_traces import ROOT, machine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("able")]

PROMISES = (
    "x-modeltiers-tier: small",
    "x-modeltiers-decision: Accepted",
    "x-modeltiers-decision: Escalated",
    "none failed",
    "no container was restarted",
    "no Deployment, Service or Pod of theirs is left",
)


@contextlib.contextmanager
def demo(state: Path, module: str = "e2e.demo") -> Iterator[subprocess.Popen[str]]:
    """The demo in a process of its own."""
    command = [sys.executable, "-m", module, "--state", str(state)]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
            Cluster(state).down()


def named(state: Path) -> list[str]:
    """The commands of all processes that name this state directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(str(state) in word for word in words) and int(process.name) != os.getpid():
                found.append(" ".join(words))
    return found


def test_the_demo_keeps_its_promises_and_leaves_nothing(tmp_path: Path) -> None:
    """From nothing to answers, and back to nothing."""
    before = machine()
    with demo(tmp_path) as process:
        said, _ = process.communicate(timeout=900)
        print(said)
        assert process.returncode == 0
        assert [promise for promise in PROMISES if promise not in said] == []
        assert named(tmp_path) == []
        assert machine() == before
        assert not (tmp_path / "models").exists()


def test_a_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    """kill -9 while its pods run."""
    before = machine()
    with demo(tmp_path) as process:
        assert process.stdout
        seen = next(line for line in process.stdout if "Two tiers that answer" in line or "the demo stopped" in line)
        assert "Two tiers" in seen
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        wait_until(lambda: not named(tmp_path), "every process of it to end", 20)
        Cluster(tmp_path).down()
        assert machine() == before


def test_a_distillation_is_promoted_refused_and_taken_back(tmp_path: Path) -> None:
    """`make demo-distill`: real data, training, tests and serving, from apply to a promoted student and back."""
    before = machine()
    with demo(tmp_path, "e2e.distill") as process:
        said, _ = process.communicate(timeout=1800)
        print(said)
        assert process.returncode == 0
    for reason in ("Promoted", "Rejected", "Inconclusive", "RolledBack"):
        assert reason in said
    assert machine() == before
