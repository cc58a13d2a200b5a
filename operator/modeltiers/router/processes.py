"""More cores by more processes that share the serving port: starts them, adds up what they say, and ends them.

Each process is a whole router with its own pools, breakers and sessions, and with an equal share of every limit. The
kernel deals connections out, not requests: shares are kept exactly only when clients use many connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from modeltiers.domain.routing.table import Tier
from modeltiers.router.admin import NOTHING, PROMETHEUS, TEXT, Later
from modeltiers.router.logs import Log
from modeltiers.router.probes import fetch
from modeltiers.router.replies import JSON, Refusal
from modeltiers.router.requests import Bounds, Request
from modeltiers.router.server import Client, Server
from modeltiers.router.upstream import Pool

START_SECONDS: Final = 20.0
ASK_SECONDS: Final = 5.0
RESTART_SECONDS: Final = (0.1, 0.5, 2.0, 5.0)
"""How long a process that died again and again is left before it is started anew."""
HIGHEST: Final = frozenset({"modeltiers_router_loop_lag_seconds", "modeltiers_router_table_info"})
"""Figures of which the highest counts."""
MEAN: Final = frozenset({"modeltiers_router_escalated_share_permille"})
"""Figures of which the mean counts; all others are added up."""


class Child:
    """One router process: where its admin port is, and how often it had to be started."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.pool: Pool | None = None
        self.starts = 0
        self.said = ""
        """Its figures, as it gave them last."""

    async def ask(self, path: str, seconds: float = ASK_SECONDS) -> tuple[int, bytes]:
        """GET from its admin port; raises OSError or TimeoutError."""
        if self.pool is None:
            raise ConnectionError
        head, body = await fetch(self.pool.addresses[0], path, seconds)
        return head.status, body


class Supervisor:
    """Keeps so many processes running and answers the admin port for all of them."""

    def __init__(self, count: int, arguments: list[str], listen: tuple[str, int], drain_seconds: float) -> None:
        self._arguments, self._drain_seconds = arguments, drain_seconds
        self._loop = asyncio.get_running_loop()
        self._log = Log()
        self._children = [Child(number) for number in range(count)]
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        # Bound and never listening: it keeps the port for the processes and takes no connection from them.
        self._holder = socket.socket(family, socket.SOCK_STREAM)
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind(listen)
        self.address: list[Any] = [*self._holder.getsockname()[:2]]
        self._ends = asyncio.Event()
        self._past: list[str] = []
        """What processes that have died had counted when they were last asked."""

    # -- processes ----------------------------------------------------------------------------------------------------

    async def run(self, admin: tuple[str, int]) -> int:
        """Serve until told to end; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ends.set)
        watches = [self._loop.create_task(self._keep(child)) for child in self._children]
        managing = Server(Bounds(), self.handle, self._loop)
        back = await self._loop.create_server(managing.protocol, *admin)
        await self._all_started()
        self._log.say("listening", serving=self.address, admin=[*back.sockets[0].getsockname()[:2]], tables=[])
        await self._ends.wait()
        for child in self._children:
            if child.process is not None and child.process.returncode is None:
                child.process.terminate()
        await asyncio.gather(*watches, return_exceptions=True)
        back.close()
        self._holder.close()
        self._log.say("ended")
        self._log.close()
        return 0

    async def _all_started(self) -> None:
        deadline = self._loop.time() + START_SECONDS
        while any(child.pool is None for child in self._children) and self._loop.time() < deadline:  # noqa: ASYNC110  polled for a moment only
            await asyncio.sleep(0.01)

    async def _keep(self, child: Child) -> None:
        """Start a process, and again whenever it ends before its time."""
        while not self._ends.is_set():
            if child.starts:
                delay = RESTART_SECONDS[min(child.starts, len(RESTART_SECONDS)) - 1]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ends.wait(), delay)
                    return
            child.starts += 1
            code = await self._live(child)
            child.pool = None
            if child.said:
                self._past, child.said = [add_up([], [*self._past, child.said])], ""
            if not self._ends.is_set():
                self._log.say("process_died", number=child.number, code=code)

    async def _live(self, child: Child) -> int:
        """Run one process from its start to its end."""
        read, write = os.pipe()
        host, port = self.address
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        own = ["--listen", shown, "--admin", "127.0.0.1:0", "--part", f"{child.number}/{len(self._children)}"]
        child.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "modeltiers.router", *self._arguments, *own, "--report-fd", str(write)),
            pass_fds=[write],
            stdin=asyncio.subprocess.DEVNULL,
        )
        os.close(write)
        if self._ends.is_set():  # it came while the process was being started
            child.process.terminate()
        with os.fdopen(read, "rb") as pipe:
            said = await self._loop.run_in_executor(None, pipe.readline)
        if said:
            found = msgspec.json.decode(said, type=list[Any])
            child.pool = Pool(Tier(name=f"process-{child.number}", address=f"{found[0]}:{found[1]}"), self._loop)
        return await child.process.wait()

    # -- the admin port -----------------------------------------------------------------------------------------------

    def handle(self, client: Client, request: Request) -> Later:
        """Answer for all processes; raises Refusal."""
        target = urlsplit(request.target.decode("latin-1"))
        query = f"?{target.query}" if target.query else ""
        answers: dict[str, Callable[[], Coroutine[Any, Any, tuple[int, bytes, bytes]]]] = {
            "/healthz": lambda: self._each_well("/healthz"),
            "/readyz": lambda: self._each_well("/readyz"),
            "/metrics": self._metrics,
            "/status": self._status,
            "/drain": lambda: self._drain(query),
            "/engine/health": lambda: self._any("/engine/health"),
            "/engine/metrics": lambda: self._any("/engine/metrics"),
        }
        answer = answers.get(target.path)
        if answer is None:
            raise Refusal(404, NOTHING)
        if request.method != b"GET" and not (target.path == "/drain" and request.method == b"POST"):
            raise Refusal(405, "use GET", allow=b"GET")
        return Later(client, answer())

    async def _ask_all(self, path: str, seconds: float = ASK_SECONDS) -> list[tuple[int, bytes] | None]:
        """Return what each process says; None for one that does not answer."""
        said = await asyncio.gather(*(child.ask(path, seconds) for child in self._children), return_exceptions=True)
        return [None if isinstance(one, BaseException) else one for one in said]

    async def _each_well(self, path: str) -> tuple[int, bytes, bytes]:
        said = await self._ask_all(path)
        bad = [str(number) for number, one in enumerate(said) if one is None or one[0] != 200]
        return (503, TEXT, f"not so: process {', '.join(bad)}\n".encode()) if bad else (200, TEXT, b"ok\n")

    async def _any(self, path: str) -> tuple[int, bytes, bytes]:
        for child in self._children:
            try:
                status, body = await child.ask(path)
            except (OSError, TimeoutError):
                continue
            return status, TEXT, body
        return 503, TEXT, b"no process answers\n"

    async def _metrics(self) -> tuple[int, bytes, bytes]:
        said = await self._ask_all("/metrics")
        texts, past = list[str](), list(self._past)
        for child, one in zip(self._children, said, strict=True):
            if one is not None and one[0] == 200:
                child.said = one[1].decode()
                texts.append(child.said)
            elif child.said:
                past.append(child.said)  # a counter that went back would be taken for one that began anew
        own = f"# TYPE modeltiers_router_processes gauge\nmodeltiers_router_processes {len(texts)}\n"
        starts = sum(max(0, child.starts - 1) for child in self._children)
        own += f"# TYPE modeltiers_router_process_restarts counter\nmodeltiers_router_process_restarts_total {starts}\n"
        return 200, PROMETHEUS, (add_up(texts, past) + own).encode()

    async def _status(self) -> tuple[int, bytes, bytes]:
        said = await self._ask_all("/status")
        each = [None if one is None else msgspec.json.decode(one[1]) for one in said]
        known = [one for one in each if one is not None]
        return (
            200,
            JSON,
            msgspec.json.encode(
                {
                    "ready": len(known) == len(each) and all(one["ready"] for one in known),
                    "draining": any(one["draining"] for one in known),
                    "inFlight": sum(one["inFlight"] for one in known),
                    "tables": _in_all([one["tables"] for one in known]),
                    "refusedTables": {name: said for one in known for name, said in one["refusedTables"].items()},
                    # Each with a start of its own: whoever adds them up sees when a process began anew.
                    "counters": [counters for one in known for counters in one["counters"]],
                    "processes": each,
                }
            ),
        )

    async def _drain(self, query: str) -> tuple[int, bytes, bytes]:
        said = await self._ask_all(f"/drain{query}", 3600.0)
        refused = next((one for one in said if one is not None and one[0] != 200), None)
        if refused is not None:
            return refused[0], TEXT, refused[1]
        known = [msgspec.json.decode(one[1]) for one in said if one is not None and one[0] == 200]
        left = sum(one["inFlight"] for one in known)
        return 200, JSON, msgspec.json.encode({"drained": not left and len(known) == len(said), "inFlight": left})


def _in_all(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the tables that every process has in the same version."""
    first, rest = (tables[0], tables[1:]) if tables else ({}, ())
    return {name: table for name, table in first.items() if all(other.get(name) == table for other in rest)}


def add_up(texts: Sequence[str], past: Iterable[str] = ()) -> str:
    """Return one exposition for several of the same program: samples of the same name and labels are added up.

    Of those that are `past`, only what they had counted is added, not what was so at a moment.
    """
    kinds: dict[str, Metric] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = defaultdict(dict)
    for text, is_past in [*((one, False) for one in texts), *((one, True) for one in past)]:
        for family in text_string_to_metric_families(text):
            if is_past and family.type == "gauge":
                continue
            kinds.setdefault(family.name, family)
            found = sums[family.name]
            for one in family.samples:
                key = one.name, tuple(sorted(one.labels.items()))
                before, value = found.get(key, 0.0), one.value / (len(texts) if family.name in MEAN else 1)
                found[key] = max(before, value) if family.name in HIGHEST else before + value
    lines = []
    for name, family in kinds.items():
        full = f"{name}_total" if family.type == "counter" else name
        lines += [f"# HELP {full} {family.documentation}", f"# TYPE {full} {family.type}"]
        for (sample, labels), value in sums[name].items():
            shown = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels)
            lines.append(f"{sample}{{{shown}}} {value!r}" if shown else f"{sample} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
