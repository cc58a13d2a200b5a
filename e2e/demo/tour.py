"""Prints what happens, runs it, and shows what it said."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import Cluster, ExternalCluster
from e2e.operator_process import ROOT

BOLD, DIM, END = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
WIDTH = 110


class Tour:
    """One run of the demo."""

    def __init__(self, cluster: Cluster | ExternalCluster, state: Path) -> None:
        self.cluster, self.state = cluster, state
        self.began = time.monotonic()
        self.step = 0

    def chapter(self, title: str, text: str = "") -> None:
        """Begin a step of the tour."""
        self.step += 1
        print(f"\n{BOLD}{self.step}. {title}{END}  {DIM}[{time.monotonic() - self.began:.0f} s]{END}")
        if text:
            self.say(text)

    def say(self, text: str) -> None:
        """Print prose."""
        print(textwrap.fill(text, WIDTH, initial_indent="   ", subsequent_indent="   "), flush=True)

    def show(self, text: str) -> None:
        """Print lines as they are."""
        print(textwrap.indent(text.rstrip(), "   "), flush=True)

    def kubectl(self, *args: str, show: bool = True, check: bool = True) -> str:
        """Run kubectl, print the command and what it says."""
        print(f"   {DIM}$ kubectl {shlex.join(args)}{END}", flush=True)
        done = self.cluster.kubectl(*args, check=check)
        text = (done.stdout + done.stderr).rstrip()
        if show and text:
            self.show(text)
        return text

    def python(self, module: str, *args: str, said: str = "") -> str:
        """Run one of our programs, print the command (as `said`, where it has a shorter name) and what it says."""
        print(f"   {DIM}$ {said or f'python -m {module}'} {shlex.join(args)}{END}", flush=True)
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"}
        command: Sequence[str] = [sys.executable, "-m", module, *args]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=120)
        self.show(done.stdout)
        return done.stdout


def of_here(path: Path) -> str:
    """A path as a reader would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
