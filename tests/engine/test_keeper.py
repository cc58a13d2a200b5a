"""Nothing of an engine outlives the one who wanted it, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.engine import keeper

# A stand-in for vLLM: a process with a child that would live on, both with their pids in files.
FAMILY = """
import os, pathlib, subprocess, sys, time
home = pathlib.Path(sys.argv[1])
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
(home / "child").write_text(str(child.pid))
(home / "parent").write_text(str(os.getpid()))
time.sleep(60)
"""


class Kept:
    """A keeper with its family, and our end of the tie."""

    def __init__(self, home: Path) -> None:
        theirs, self.tie = os.pipe()
        command = [sys.executable, "-I", "-S", str(keeper.__file__), str(theirs)]
        command += [sys.executable, "-I", "-S", "-c", FAMILY, str(home)]
        self.process = subprocess.Popen(command, pass_fds=(theirs,), start_new_session=True)
        os.close(theirs)
        until(lambda: (home / "parent").exists() and (home / "parent").read_text() != "")
        self.parent, self.child = (int((home / name).read_text()) for name in ("parent", "child"))


def until(holds: object, seconds: float = 20) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    family = Kept(tmp_path)
    yield family
    for pid in (family.process.pid, family.parent, family.child):
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
    family.process.wait()


def test_an_owner_that_goes_takes_all_along(kept: Kept) -> None:
    os.close(kept.tie)  # what the kernel does for an owner that got SIGKILL
    assert kept.process.wait(5) == 128 + signal.SIGKILL
    until(lambda: gone(kept.parent) and gone(kept.child))


def test_a_command_that_is_killed_leaves_no_child(kept: Kept) -> None:
    os.kill(kept.parent, signal.SIGKILL)
    assert kept.process.wait(5) == 128 + signal.SIGKILL
    until(lambda: gone(kept.child))
    os.close(kept.tie)


def test_sigterm_reaches_the_command(kept: Kept) -> None:
    kept.process.terminate()
    assert kept.process.wait(5) == 128 + signal.SIGTERM
    until(lambda: gone(kept.parent) and gone(kept.child))
    os.close(kept.tie)


def test_a_killed_keeper_takes_the_command_along(kept: Kept) -> None:
    kept.process.kill()
    kept.process.wait(5)
    until(lambda: gone(kept.parent))
    os.close(kept.tie)


def test_the_command_s_exit_code_is_kept() -> None:
    theirs, ours = os.pipe()
    command = [
        sys.executable,
        "-I",
        "-S",
        str(keeper.__file__),
        str(theirs),
        sys.executable,
        "-c",
        "raise SystemExit(7)",
    ]
    assert subprocess.run(command, pass_fds=(theirs,), check=False, timeout=10).returncode == 7
    os.close(theirs)
    os.close(ours)
