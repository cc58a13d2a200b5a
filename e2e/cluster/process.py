"""Start, watch and end the processes of a cluster through its supervisor.

A process counts as ours only while its pid and start time are the recorded ones. What the programs are and when they
are ready is told by the caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster import sandbox
from e2e.cluster import supervisor as supervising
from e2e.cluster.report import HarnessError

POLL = 0.02
TAIL = 15


@dataclass(frozen=True)
class Program:
    """One process of the cluster: how to start it and how to tell that it serves."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()  # files of the supervisor that the process inherits


def wait_until(holds: Callable[[], bool], what: str, timeout: float = 30, poll: float = POLL) -> None:
    """Wait until `holds()`; `what` completes the sentence "waited 30 s for …"."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise HarnessError(f"waited {timeout:.0f} s for {what}")
        time.sleep(poll)


def tail(log: Path, lines: int = TAIL) -> str:
    """Return the last lines of a log, or nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


@dataclass
class Processes:
    """The processes of one state directory, reached through the supervisor's socket."""

    state: Path
    logs: Path
    _tie: int | None = None
    _child: subprocess.Popen[bytes] | None = None

    def records(self) -> dict[str, dict[str, Any]]:
        """Return pid and start time of everything started since the supervisor came up."""
        try:
            found: dict[str, dict[str, Any]] = json.loads((self.state / supervising.RECORDS).read_text())
        except FileNotFoundError:
            return {}
        return found

    def living(self) -> dict[str, int]:
        """Return the pids of recorded processes that still run."""
        return {
            name: record["pid"]
            for name, record in self.records().items()
            if record["started"] and supervising.identity(record["pid"]) == record["started"]
        }

    def supervise(self, hold: socket.socket, tied: bool, *, sandboxed: bool = False) -> None:
        """Start the supervisor, tied to this process or detached from it; it keeps `hold` open as long as it lives.

        Sandboxed, it lives in namespaces of its own, and a keeper outside cleans up after it.
        """
        program = sandbox.__file__ if sandboxed else supervising.__file__
        argv = [sys.executable, "-I", "-S", str(program), str(self.state)]
        (self.state / supervising.RECORDS).unlink(missing_ok=True)
        log_path = self.logs / "supervisor.log"
        with open(log_path, "wb", opener=supervising.private) as log:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": "/"}
            if tied:
                theirs, self._tie = os.pipe()
                fds = (theirs, hold.fileno())
                argv.append(str(theirs))
                self._child = subprocess.Popen(argv, pass_fds=fds, start_new_session=True, **options)
                os.close(theirs)
            else:
                argv.append(supervising.UNTIED)
                subprocess.run(argv, pass_fds=(hold.fileno(),), start_new_session=True, check=False, **options)
        wait_until(lambda: self._came_up(log_path), f"the supervisor; its log is {log_path}", timeout=10, poll=0.005)

    def _came_up(self, log: Path) -> bool:
        said = tail(log)
        if sandbox.FAILED in said:
            raise HarnessError(f"{said}\nThe real node needs what is said there; without it, use fake nodes alone")
        return self.supervised()

    def supervised(self) -> bool:
        """Tell whether a supervisor runs and has recorded itself."""
        return supervising.ITSELF in self.living()

    def start(self, program: Program) -> None:
        """Start a program unless it runs; see `wait_ready` for what comes next."""
        log = str(self.logs / f"{program.name}.log")
        fds = {"fds": program.fds} if program.fds else {}
        self._ask(op="start", name=program.name, argv=program.argv, log=log, env=dict(program.env), **fds)

    def run(self, program: Program, timeout: float = 60) -> None:
        """Run a program to its end; fail with its log's tail when that is not a success."""
        self.start(program)
        wait_until(lambda: not self.running(program.name), f"{program.name} to end", timeout, poll=0.01)
        code = self.exits()[program.name]
        if code:
            raise HarnessError(self._explain(program.name, f"ended with exit code {code}"))

    def send(self, name: str, number: int) -> None:
        """Send a signal to one process."""
        self._ask(op="signal", name=name, number=int(number))

    def exits(self) -> dict[str, int | None]:
        """Return the exit code of every process started so far; None means that it runs."""
        found: dict[str, int | None] = self._ask(op="list")["exits"]
        return found

    def running(self, name: str) -> bool:
        """Tell whether this process runs now."""
        return self.exits().get(name, 0) is None

    def stop(self, name: str, number: int = signal.SIGKILL, timeout: float = 30) -> None:
        """End one process and wait for it."""
        self.send(name, number)
        wait_until(lambda: not self.running(name), f"{name} to end after signal {number}", timeout)

    def wait_ready(self, programs: Iterable[Program], timeout: float = 60) -> None:
        """Wait until all are ready; fail at once, with the log's tail, when one ends."""
        left = list(programs)
        deadline = time.monotonic() + timeout
        while left:
            self._fail_on_exit(left)
            left = [program for program in left if not program.ready()]
            if left and time.monotonic() > deadline:
                raise HarnessError(self._explain(left[0].name, f"is not ready after {timeout:.0f} s"))
            time.sleep(POLL if left else 0)

    def end(self, timeout: float = 10) -> tuple[str, ...]:
        """End everything recorded, also without a supervisor, and return the names of what ran."""
        ended = self.living()
        for name in sorted(ended, key=lambda name: name != supervising.ITSELF):  # the supervisor takes the rest along
            _kill(ended[name], self.records()[name]["started"])
        self._untie()
        wait_until(lambda: not self.living(), f"{', '.join(ended)} to end", timeout, poll=0.01)
        return tuple(ended)

    def _untie(self) -> None:
        if self._tie is not None:
            os.close(self._tie)
            self._tie = None
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _fail_on_exit(self, programs: Iterable[Program]) -> None:
        exits = self.exits()
        for program in programs:
            code = exits.get(program.name)
            if code is not None:
                raise HarnessError(self._explain(program.name, f"ended with exit code {code}"))

    def _explain(self, name: str, what: str) -> str:
        log = self.logs / f"{name}.log"
        return f"{name} {what}. The end of {log}:\n{tail(log)}"

    def _ask(self, **request: Any) -> dict[str, Any]:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(10)
            try:
                with supervising.short_path(self.state, supervising.SOCKET) as path:
                    client.connect(path)
                with client.makefile("rw") as stream:
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    answer: dict[str, Any] = json.loads(stream.readline() or "{}")
            except OSError as error:
                raise HarnessError(f"no supervisor answers in {self.state} ({error}); run `up` again") from None
        if "error" in answer:
            raise HarnessError(f"cannot start {request.get('name')}: {answer['error']}")
        return answer


def _kill(pid: int, started: str) -> None:
    """Kill this very process: the handle is taken first, so that a reused pid is never hit."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if supervising.identity(pid) == started:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
