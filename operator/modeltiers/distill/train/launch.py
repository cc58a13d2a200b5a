"""Training with several devices of one machine: a process for each, which find one another through accelerate.

This process only starts them, passes on what the first one tells, and asks all to stop. Each of them checks that it
found all the others. The first leaves the student in a folder.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from transformers import AutoModelForCausalLM, PreTrainedModel

from modeltiers.distill import faults
from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.train.fit import Hooks, Step, Task, steps_so_far

GRACE: Final = 20.0
"""Seconds that the others have to end when one has failed: one that waits for it would never."""
POLL: Final = 0.5
STUDENT: Final = "student"


def fit(task: Task, hooks: Hooks, scratch: Path) -> tuple[PreTrainedModel, list[Step]]:
    """As `fit.fit`, in `task.devices` processes."""
    task.write(scratch / "task.json")
    told = steps_so_far(task.checkpoint)
    with _processes(task, scratch) as processes:
        first = processes[0]
        assert first.stdout is not None
        watcher = _Stopper(processes, hooks)
        for line in watcher.lines(first.stdout.fileno()):
            said = json.loads(line)
            if "seal" in said:
                hooks.seal(said["seal"])
                assert first.stdin is not None
                first.stdin.write(b"sealed\n")
                first.stdin.flush()
            else:
                told.append(Step(**said["step"]))
                hooks.told(told[-1])
        _judge(processes, hooks, scratch)
    return AutoModelForCausalLM.from_pretrained(scratch / STUDENT, dtype="auto"), told  # nosec B615 # a folder


class _Stopper:
    """Reads what the first process tells, and asks all to stop when the stage is asked to."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]], hooks: Hooks) -> None:
        self._processes, self._hooks, self._asked = processes, hooks, False

    def lines(self, handle: int) -> Iterator[bytes]:
        """Whole lines until the end."""
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            while True:
                if self._hooks.stop() and not self._asked:
                    self._asked = True
                    for process in self._processes:
                        process.send_signal(signal.SIGTERM)
                if any(process.poll() not in {None, 0} for process in self._processes):
                    self._others_end()
                if not selector.select(POLL):
                    continue
                piece = os.read(handle, 1 << 16)
                if not piece:
                    return
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole

    def _others_end(self) -> None:
        for process in self._processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _processes(task: Task, scratch: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    port = _free_port()
    processes = []
    try:
        for rank in range(task.devices):
            processes.append(start(rank, wired(rank, task, port), scratch))  # noqa: PERF401 - what began must be ended
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def wired(rank: int, task: Task, port: int) -> dict[str, str]:
    """The variables by which accelerate finds the other processes."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(task.devices),
        "LOCAL_WORLD_SIZE": str(task.devices),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def start(rank: int, variables: Mapping[str, str], scratch: Path) -> subprocess.Popen[bytes]:
    """Start one process; the first tells what it does, the others only log."""
    return subprocess.Popen(
        [sys.executable, "-m", "modeltiers.distill.train.worker", str(scratch)],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if rank == 0 else 2,
    )


def _judge(processes: Sequence[subprocess.Popen[bytes]], hooks: Hooks, scratch: Path) -> None:
    """Raise what a process ended with."""
    codes = [process.wait() for process in processes]
    if not any(codes):
        return
    for rank in range(len(processes)):
        path = fault_file(scratch, rank)
        if path.exists():
            said: dict[str, Any] = json.loads(path.read_bytes())
            kind = BadData if said.pop("code") == BadData.code else TryAgain
            raise kind(said.pop("message"), **said)
    if hooks.stop():  # while they were still loading
        raise TryAgain("interrupted: what is durable is kept", reason="Interrupted")
    raise TryAgain(f"training processes ended with {codes}: their log says why", reason="ProcessLost")


def fault_file(scratch: Path, rank: int) -> Path:
    """Where a process says why it ended."""
    return scratch / f"fault-{rank}.json"


def write_fault(scratch: Path, rank: int, fault: faults.StageFault) -> None:
    """Say why a process ends."""
    body = {"code": fault.code, "message": str(fault), "reason": fault.reason, "field": fault.field}
    fault_file(scratch, rank).write_text(json.dumps(body))


def step_line(step: Step) -> bytes:
    """What the first process tells of a step."""
    return json.dumps({"step": asdict(step)}).encode() + b"\n"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
