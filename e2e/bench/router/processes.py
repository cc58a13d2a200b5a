"""Programs that are measured: started on one core, asked what they used, and stopped. Never more than they say.

Processor time is the kernel's own count in nanoseconds for every thread, so that a busy machine does not change it
the way it changes the time on the wall.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MEASURED: Final = 0
"""The core of what is measured."""
OTHER: Final = 1
"""The core of what loads it and answers it."""
CORES: Final = tuple(sorted(os.sched_getaffinity(0)))
"""As they were at the start: whoever measures binds itself to one of them later."""
READY_SECONDS: Final = 20.0


class Failed(RuntimeError):
    """A program that did not come up, or ended by itself."""


def core_of(part: int) -> int:
    """Return the number of a core, MEASURED or OTHER; the last one there is, where there are fewer."""
    return CORES[min(part, len(CORES) - 1)]


def pin(part: int) -> list[str]:
    """Return the command that runs another one on a core."""
    return ["taskset", "--cpu-list", str(core_of(part))]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """One program on one core; its output goes to NAME.out and NAME.err in a folder."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, core: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self._folder = name, folder
        self._command = [*pin(core), *command]
        self._environment = os.environ | dict(environment or {})

    def __enter__(self) -> Self:
        self._output = (self._folder / f"{self.name}.out").open("wb")
        self._errors = (self._folder / f"{self.name}.err").open("wb")
        self.process = subprocess.Popen(
            self._command, stdout=self._output, stderr=self._errors, env=self._environment, stdin=subprocess.DEVNULL
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self._output.close()
        self._errors.close()

    def output(self) -> str:
        """Return what it wrote to standard output so far."""
        return (self._folder / f"{self.name}.out").read_text()

    def errors(self) -> str:
        """Return what it wrote to standard error so far."""
        return (self._folder / f"{self.name}.err").read_text()

    def wait_for(self, port: int) -> None:
        """Wait until it takes connections; raises Failed."""
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            self.check()
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise Failed(f"{self.name} did not listen on port {port} within {READY_SECONDS:.0f} s: {self.errors()[-500:]}")

    def check(self) -> None:
        """Raise Failed if it has ended."""
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}: {self.errors()[-500:]}")

    def pids(self) -> list[int]:
        """Return it and its children, such as the workers of nginx."""
        found, waiting = list[int](), [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return found

    def cpu(self) -> float:
        """Return the seconds of processor that it and its children have used in their running threads."""
        nanoseconds = 0
        for pid in self.pids():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def memory(self) -> float:
        """Return the resident memory of it and its children in MiB."""
        return sum(_resident(pid) for pid in self.pids()) / 1024


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
