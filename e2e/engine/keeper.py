"""Run one engine so that nothing of it outlives the one who wanted it. Started with `python -I -S`, imports little.

    keeper.py FD COMMAND...

vLLM's API server leaves its engine core behind when it is killed. So this process stands between: it runs the command
in a process group of its own and ends that group when the command ends, or when the pipe FD closes, which the kernel
does for an owner that was killed as well. SIGTERM and SIGINT are passed on to the command.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys


def main() -> int:
    """Run the command; returns its exit code, or 128 plus the signal that ended it."""
    tie = int(sys.argv[1])
    os.set_inheritable(tie, False)
    told, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # only wakes the loop below
    engine = subprocess.Popen(sys.argv[2:], process_group=0, preexec_fn=_die_with_keeper)  # noqa: PLW1509 - one thread here
    try:
        _watch(engine, tie, told)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)
        code = engine.wait()
    return code if code >= 0 else 128 - code


def _watch(engine: "subprocess.Popen[bytes]", tie: int, told: int) -> None:
    """Return when the engine has ended or the owner has gone."""
    while engine.poll() is None:
        readable, _, _ = select.select([tie, told], [], [])
        if tie in readable:
            return
        for number in set(os.read(told, 64)) & {signal.SIGTERM, signal.SIGINT}:
            engine.send_signal(number)


def _die_with_keeper() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: also when this process is killed


if __name__ == "__main__":
    sys.exit(main())
