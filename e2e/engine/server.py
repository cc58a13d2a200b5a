"""Run one vLLM server on 127.0.0.1 as its own process: start, wait until it answers, stop, kill, freeze.

Knows vLLM's command line and what makes a start quick and small on a CPU. Which model it serves, and what is asked of
it, is the caller's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from e2e.ask import ask
from e2e.cluster.report import HarnessError
from e2e.engine import environment, keeper

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no worker process of its own
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the default binds every engine to the same core
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
# An explicit cache size is small (a token of the tiny models takes 256 to 512 bytes) and spares the warm-up.
FLAGS = ("--enforce-eager", "--dtype", "float32", "--kv-cache-memory-bytes", "64M")
TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
START_DEADLINE = 180.0  # 15 to 20 s on two free cores, 60 s where six engines start at once


class Engine:
    """One vLLM server. A context manager; it ends with this process, even one that gets SIGKILL.

    `start` returns at once, so that several engines start side by side: see `started`. The log is beside the model
    unless `log` says otherwise. `port` 0 is any free port; it stays the same over restarts.
    """

    def __init__(  # noqa: PLR0913 - each is an independent choice of a test
        self,
        folder: Path,
        served_name: str,
        *,
        port: int = 0,
        tools: bool = False,
        reasoning_parser: str = "",
        max_model_len: int = 1024,
        max_num_seqs: int = 8,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.name = served_name
        self.folder = folder
        self.port = port or _free_port()
        self.log = log or folder.with_name(f"{folder.name}.log")
        self.args = ["--served-model-name", served_name, "--host", "127.0.0.1", "--port", str(self.port), *FLAGS]
        self.args += ["--max-model-len", str(max_model_len), "--max-num-seqs", str(max_num_seqs)]
        self.args += TOOLS if tools else ()
        self.args += ("--reasoning-parser", reasoning_parser) if reasoning_parser else ()
        self.args += args
        self._pooling = "pooling" in args
        self._env = dict(env or {})
        self._keeper: subprocess.Popen[bytes] | None = None
        self._tie = -1
        self._began = 0.0

    @property
    def address(self) -> str:
        """Host and port, as a router's table wants them."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base of all paths, without `/v1`."""
        return f"http://{self.address}"

    def start(self) -> Engine:
        """Start the server and return at once; installs vLLM first if need be."""
        if self.running():
            return self
        self._release()
        home = environment.install()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        theirs, self._tie = os.pipe()
        command = [sys.executable, "-I", "-S", str(keeper.__file__), str(theirs)]
        command += [str(environment.program(home)), "serve", str(self.folder), *self.args]
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                command,
                env=self._environment(environment.scratch(home)),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        os.close(theirs)
        self._began = time.monotonic()
        return self

    def _environment(self, scratch: Path) -> dict[str, str]:
        """Return the server's environment: the machine's, without what is meant for our Python or for another vLLM."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VLLM_", "VIRTUAL_ENV"))
        }
        places = {"VLLM_CACHE_ROOT": "vllm", "VLLM_CONFIG_ROOT": "config", "HF_HOME": "huggingface"}
        return kept | {name: str(scratch / place) for name, place in places.items()} | SETTINGS | self._env

    def wait_ready(self, timeout: float = START_DEADLINE) -> Engine:
        """Wait for /health and then for one real answer: a server can be healthy and die of its first token."""
        deadline = time.monotonic() + timeout
        while not self.healthy():
            if not self.running():
                raise HarnessError(
                    f"engine {self.name} ended with {self._exit()} while starting; {self.log} ends:\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise HarnessError(
                    f"engine {self.name} is not healthy after {timeout:.0f} s; {self.log} ends:\n{self.tail()}"
                )
            time.sleep(0.1)
        path, body = "/v1/completions", {"prompt": "Hello", "max_tokens": 1}
        if self._pooling:
            path, body = "/v1/embeddings", {"input": "Hello"}
        status, text = self.ask(path, {"model": self.name, **body}, timeout=60)
        if status != 200:
            raise HarnessError(
                f"engine {self.name} is healthy but answers {status} {text}; {self.log} ends:\n{self.tail()}"
            )
        return self

    def healthy(self) -> bool:
        """Tell whether /health says 200."""
        return self.ask("/health", timeout=5)[0] == 200

    def ask(self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float = 30) -> tuple[int, str]:
        """Get a path, or post a JSON body to it; returns status and text, status 0 when nobody answers."""
        return ask(f"{self.url}{path}", body, timeout=timeout)

    def running(self) -> bool:
        """Tell whether its process lives."""
        return self._keeper is not None and self._keeper.poll() is None

    def stop(self, timeout: float = 20) -> float:
        """Ask it to end and wait; returns the seconds it took. One that does not is killed, and that is an error."""
        began = time.monotonic()
        if self._keeper is not None and self.running():
            self.thaw()  # a sleeper does not hear the rest
            self._keeper.terminate()
            try:
                self._keeper.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise HarnessError(
                    f"engine {self.name} did not end within {timeout:.0f} s of SIGTERM; {self.log} ends:\n{self.tail()}"
                ) from None
        self._release()
        return time.monotonic() - began

    def kill(self) -> None:
        """End all its processes at once, as a node that dies would."""
        self._release()
        if self._keeper is not None:
            self._keeper.wait(10)

    def freeze(self) -> None:
        """Stop all its processes where they are: it accepts connections and says nothing. `thaw` undoes it."""
        os.killpg(self._server(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self._server(), signal.SIGCONT)

    def pids(self) -> list[int]:
        """Return its processes: the API server, the engine core and what they need."""
        return _group(self._server())

    def memory_mib(self) -> float:
        """Return the memory of its processes; a page shared with others counts in part (PSS)."""
        return sum(_pss_kib(pid) for pid in self.pids()) / 1024

    def tail(self, lines: int = 40) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self) -> Engine:
        try:
            return self.start().wait_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill() if kind else self.stop()

    def _server(self) -> int:
        """Return the pid of the API server, which leads the group."""
        assert self._keeper is not None, "not started"
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
        return int(children[0])

    def _exit(self) -> int | None:
        return self._keeper.poll() if self._keeper else None

    def _release(self) -> None:
        if self._tie >= 0:
            os.close(self._tie)  # what is left of it dies
            self._tie = -1


def started(engines: Iterable[Engine], timeout: float = START_DEADLINE) -> list[Engine]:
    """Start several side by side and wait until all are ready; when one fails, none is left."""
    wanted = list(engines)
    environment.install()
    try:
        for engine in wanted:
            engine.start()
        for engine in wanted:
            engine.wait_ready(timeout)
    except BaseException:
        for engine in wanted:
            engine.kill()
        raise
    return wanted


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _group(leader: int) -> list[int]:
    """Return the pids of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == leader:
            found.append(int(stat.parent.name))
    return found


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
