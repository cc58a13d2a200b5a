"""Runs dear checks of answers in processes of their own, each with a deadline, so that no check holds up a stream.

A process that overruns or dies is replaced, and its check has failed. What a check means is known to `validators`; the
process sees one answer at a time, has no network of its own making, no inherited descriptor, and bounded memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec

from modeltiers.domain.routing.remarks import Result, Why
from modeltiers.domain.routing.validators import Check, run_check

MEMORY_BYTES: Final = 1 << 30
"""Address space of a process; Python and its libraries take about a third."""
FRAME_BYTES: Final = 64 << 20
"""The longest check that is sent."""
START_SECONDS: Final = 5.0
"""How long a process may take to start; a check that waits for one waits this much longer."""
_GRACE_SECONDS: Final = 1.0
_LENGTH: Final = 4
_READY: Final = b"\0\0\0\0"
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_CHECK: Final = msgspec.msgpack.Decoder(tuple[float, Check]).decode
_RESULT: Final = msgspec.msgpack.Decoder(Result).decode

Done = Callable[[Result], None]


class _Job:
    """A check, the time on the loop's clock by which it must be done, and who waits for it."""

    __slots__ = ("check", "done", "given_up", "seconds", "timer", "until")

    def __init__(self, check: Check, seconds: float, now: float, done: Done) -> None:
        self.check, self.seconds, self.until, self.done = check, seconds, now + seconds, done
        self.given_up = now + START_SECONDS
        self.timer: asyncio.TimerHandle | None = None


class Workers:
    """A few processes that run checks. They are started with the first check, or by `start`."""

    def __init__(self, count: int = 1, queue: int = 64, memory_bytes: int = MEMORY_BYTES) -> None:
        """`count` processes; at most `queue` checks wait, more are refused as Busy."""
        self._count, self._limit, self._memory = count, queue, memory_bytes
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._runners: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._live: set[int] = set()  # those that have started
        self._closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """The ids of the processes that run."""
        return tuple(self._processes)

    def start(self) -> None:
        """Start the processes now, so that the first check need not wait for them. Needs a running loop."""
        if not self._runners and not self._closed:
            self._runners = [asyncio.create_task(self._run()) for _ in range(self._count)]

    def run(self, check: Check, deadline_seconds: float, done: Done) -> None:
        """Run a check; `done` is called once, from the loop, with its result or the failure to get one.

        The deadline counts from now, waiting included, but not a process's start. Busy: too many wait, or it is closed.
        """
        loop = asyncio.get_running_loop()
        if self._closed or len(self._jobs) >= self._limit:
            loop.call_soon(done, _failed(check, "Busy"))
            return
        self.start()
        job = _Job(check, deadline_seconds, loop.time(), done)
        job.timer = loop.call_later(deadline_seconds, self._expire, job)
        self._jobs.append(job)
        self._wake.set()

    def _expire(self, job: _Job) -> None:
        """End a check that still waits when its time is up, unless what it waits for is the start of a process."""
        loop = asyncio.get_running_loop()
        if job not in self._jobs:
            return
        if not self._live and loop.time() < job.given_up:
            job.timer = loop.call_later(job.seconds, self._expire, job)
            return
        self._jobs.remove(job)
        job.done(_failed(job.check, "Deadline"))

    async def close(self) -> None:
        """End all processes; checks that still wait get Busy."""
        self._closed = True
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        for process in list(self._processes.values()):
            await self._end(process)
        while self._jobs:
            job = self._taken()
            job.done(_failed(job.check, "Busy"))

    def _taken(self) -> _Job:
        job = self._jobs.popleft()
        if job.timer is not None:
            job.timer.cancel()
        return job

    # --- one runner with one process ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        process: asyncio.subprocess.Process | None = None
        while True:
            if process is None:
                process = await self._begin()
            while not self._jobs:
                self._wake.clear()
                await self._wake.wait()
            job = self._taken()
            if process is not None and process.returncode is not None:  # it died with nothing to do
                began = loop.time()
                await self._end(process)
                process = await self._begin()
                job.until += loop.time() - began
            result = _failed(job.check, "Busy")  # what it is told when this is cancelled
            try:
                result, usable = await self._ask(process, job)
            finally:
                loop.call_soon(job.done, result)
            if not usable:
                if process is not None:
                    await self._end(process)
                process = None

    async def _ask(self, process: asyncio.subprocess.Process | None, job: _Job) -> tuple[Result, bool]:
        """Return the result of a check, and whether the process can take another."""
        left = job.until - asyncio.get_running_loop().time()
        if process is None:
            return _failed(job.check, "Crashed"), False
        try:
            async with asyncio.timeout(left):
                return await _exchange(process, job.check, left), True
        except TimeoutError:
            return _failed(job.check, "Deadline"), False
        except (OSError, EOFError, ValueError, RuntimeError, msgspec.DecodeError):
            return _failed(job.check, "Crashed"), False  # RuntimeError: uvloop's word for a pipe that is closed

    async def _begin(self) -> asyncio.subprocess.Process | None:
        """Start a process and wait until it is ready; None when it does not get so far."""
        paths = os.pathsep.join(path for path in sys.path if path)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "modeltiers.router.workers", str(self._memory)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
                start_new_session=True,  # a Ctrl-C at the terminal is the router's to handle
            )
        except OSError:
            return None
        self._processes[process.pid] = process
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                await process.stdout.readexactly(_LENGTH)
        except (TimeoutError, EOFError):
            await self._end(process)
            return None
        if not self._live:
            now = asyncio.get_running_loop().time()
            for job in self._jobs:  # the start is not the fault of those that waited for it
                job.until = now + job.seconds
        self._live.add(process.pid)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        self._processes.pop(process.pid, None)
        self._live.discard(process.pid)


def _failed(check: Check, why: Why) -> Result:
    return Result(check.name, passed=False, why=why)


async def _exchange(process: asyncio.subprocess.Process, check: Check, left: float) -> Result:
    assert process.stdin is not None
    assert process.stdout is not None
    frame = _ENCODE((left, check))
    if len(frame) > FRAME_BYTES:
        raise ValueError("the check is too long to be sent")
    process.stdin.write(len(frame).to_bytes(_LENGTH) + frame)
    await process.stdin.drain()
    size = int.from_bytes(await process.stdout.readexactly(_LENGTH))
    return _RESULT(await process.stdout.readexactly(size))


# --- inside a process -------------------------------------------------------------------------------------------------


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Run checks as they come, until there are no more. Each is ended by a signal soon after its deadline.

    The signal is for the case that nobody is left to kill the process.
    """
    sink.write(_READY)
    sink.flush()
    while len(head := source.read(_LENGTH)) == _LENGTH:
        size = int.from_bytes(head)
        frame = source.read(size)
        if len(frame) < size:
            return
        left, check = _CHECK(frame)
        signal.setitimer(signal.ITIMER_REAL, left + _GRACE_SECONDS)
        result = _ENCODE(run_check(check))
        signal.setitimer(signal.ITIMER_REAL, 0)
        sink.write(len(result).to_bytes(_LENGTH) + result)
        sink.flush()


def main() -> None:
    """Be a worker process: checks on standard input, results on standard output."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # uvloop lets a process inherit what is marked inheritable
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(0), "rb") as source, os.fdopen(os.dup(1), "wb") as sink:
        nothing = os.open(os.devnull, os.O_RDWR)
        # Whatever a library prints must not get between the frames.
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.close(nothing)
        with contextlib.suppress(BrokenPipeError):
            serve(source, sink)


if __name__ == "__main__":
    main()
