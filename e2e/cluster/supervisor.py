"""Own the processes of one cluster, so that none outlives it: the kernel kills every child when this process ends.

Runs as a program of its own (`python supervisor.py STATE TIE [PROC]`), imports the standard library only, and stays
single-threaded, because PR_SET_PDEATHSIG watches the thread that forked. It starts, signals and lists processes for
whoever reaches the socket in the private state directory; it does not know what they are or when they are ready.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RECORDS = "processes.json"
SOCKET = "supervisor.sock"
ITSELF = "supervisor"
UNTIED = "-"

PROC = Path("/proc")

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def identity(pid: int, proc: Path = PROC) -> str | None:
    """Return what tells this process from a later one with the same pid; None when it is gone or a zombie."""
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold spaces and brackets
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # start times count from the boot
    return f"{boot}/{fields[19]}"


@contextlib.contextmanager
def short_path(directory: Path, name: str) -> Iterator[str]:
    """Give a path for a socket in `directory` that fits the 107 bytes of a socket address, however deep it lies."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{name}"
    finally:
        os.close(handle)


def private(path: str, flags: int) -> int:
    """Open a file that only its owner may read; an opener for `open`."""
    return os.open(path, flags, 0o600)


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(fresh, "w", opener=private) as file:
        file.write(text)
    fresh.replace(path)


class Supervisor:
    """The children of one cluster and their records.

    `proc` is the /proc of whoever reads the records: in a sandbox of its own, this process has other pids than outside.
    """

    def __init__(self, state: Path, proc: Path = PROC) -> None:
        self.state = state
        self.proc = proc
        self.itself = int((proc / "self").readlink().name)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.records: dict[str, dict[str, Any]] = {}

    def record(self, name: str, pid: int) -> None:
        """Write down who runs, for a `down` that has nothing but these files."""
        outside = self.outside(pid)
        self.records[name] = {"pid": outside, "started": identity(outside, self.proc)}
        write_private(self.state / RECORDS, json.dumps(self.records, indent=1))

    def outside(self, pid: int) -> int:
        """Return the pid by which the reader of the records knows this process or a child of it."""
        if pid == os.getpid():
            return self.itself
        if self.itself == os.getpid():
            return pid
        children = (self.proc / f"{self.itself}/task/{self.itself}/children").read_text().split()
        for child in map(int, children):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = (self.proc / f"{child}/status").read_text()
                inside = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
                if int(inside) == pid:
                    return child
        return 0  # ended already; nothing has this pid

    def start(self, name: str, argv: list[str], log: str, env: dict[str, str], fds: Sequence[int] = ()) -> None:
        """Start a process unless it runs already; it inherits those of our files that `fds` names."""
        if name in self.children and self.children[name].poll() is None:
            return
        with Path(log).open("ab") as output:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | env,
                pass_fds=fds,
                preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 - safe here: this process has one thread
            )
        self.children[name] = child
        self.record(name, child.pid)

    def send(self, name: str, number: int) -> None:
        """Send a signal to a child; an ended child is none of our business any more."""
        if name in self.children:
            self.children[name].send_signal(number)

    def listing(self) -> dict[str, int | None]:
        """Return the exit code of every child, None while it runs; reaps the ended ones on the way.

        As PID 1 of a sandbox it has children that it did not start: what lost its parent, such as containers' shims.
        """
        own = {child.pid for child in self.children.values()}
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in own:
                    next(child for child in self.children.values() if child.pid == ended.si_pid).poll()
                else:
                    os.waitpid(ended.si_pid, 0)
        return {name: child.poll() for name, child in self.children.items()}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one request asks and say how all children stand."""
        try:
            match request.pop("op"):
                case "start":
                    self.start(**request)
                case "signal":
                    self.send(**request)
        except OSError as error:
            return {"error": f"{error.strerror}: {error.filename}"}
        except (KeyError, TypeError) as error:  # a request of another version of this code must not end the cluster
            return {"error": f"the supervisor does not understand the request: {error}"}
        return {"exits": self.listing()}


def end_with(parent: int) -> Any:
    """Return what a child does between fork and exec: ask the kernel to be killed when `parent` ends."""

    def arrange() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)

    return arrange


def serve(connection: socket.socket, supervisor: Supervisor) -> None:
    """Answer one request: a JSON line in, a JSON line out. A client that stalls is dropped."""
    connection.settimeout(1)
    with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rw") as stream:
        stream.write(json.dumps(supervisor.answer(json.loads(stream.readline()))) + "\n")


def watch(listener: socket.socket, tie: int | None, supervisor: Supervisor) -> None:
    """Serve until the tie to the parent breaks; without a tie, until somebody kills this process."""
    wakeup, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    for source in (listener, wakeup, *(() if tie is None else (tie,))):
        selector.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == tie:  # end of file: the parent is gone, however it went
                os._exit(0)
            if key.fileobj is listener:
                serve(listener.accept()[0], supervisor)
            else:
                wakeup.recv(4096)
                supervisor.listing()


def main() -> None:
    """Listen, detach unless tied, then watch. The third argument is the outer /proc, open, for PID 1 of a sandbox."""
    state, tie, *outside = Path(sys.argv[1]), *sys.argv[2:]
    if not outside:  # PID 1 of a sandbox makes what other users' containers read; its state directory is private
        os.umask(0o077)
    listener = socket.socket(socket.AF_UNIX)
    (state / SOCKET).unlink(missing_ok=True)
    with short_path(state, SOCKET) as path:
        listener.bind(path)
    listener.listen(16)
    if tie == UNTIED and not outside and os.fork():
        os._exit(0)  # whoever started us has waited for this: from now on the socket answers
    supervisor = Supervisor(state, Path(f"/proc/self/fd/{outside[0]}") if outside else PROC)
    supervisor.record(ITSELF, os.getpid())
    watch(listener, None if tie == UNTIED else int(tie), supervisor)


if __name__ == "__main__":
    main()
