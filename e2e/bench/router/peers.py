"""The three that are compared, each before the same upstream: the router, nginx, haproxy; and the upstream itself.

Each run has fresh processes. The router is asked which of the table's fields and which flags it takes, so that
everything it can do is switched on, and what is off is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from e2e.bench.router import bodies, configs
from e2e.bench.router.packages import Programs
from e2e.bench.router.processes import MEASURED, OTHER, READY_SECONDS, Failed, Process, free_port
from modeltiers.router.tables import Tables

ROOT: Final = Path(__file__).parents[3]
NAMES: Final = ("ours", "nginx", "haproxy")
Kind = Literal["chat", "stream"]
_PYTHON: Final = {"PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT)])}


@dataclass(frozen=True)
class Pace:
    """How the streaming upstream answers."""

    gap_ms: float
    tokens: int


@dataclass(frozen=True)
class Peer:
    """One of those compared."""

    process: Process
    port: int


@dataclass(frozen=True)
class Peers:
    """All of them, running."""

    direct: int
    """The upstream's port."""
    all: dict[str, Peer]

    def check(self) -> None:
        """Raise Failed if one has ended or the router has complained."""
        for peer in self.all.values():
            peer.process.check()
        if said := self.all["ours"].process.errors():
            raise Failed(f"the router wrote to standard error: {said[:2000]}")


class Setup:
    """A folder with what every run needs."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.folder, self.programs = folder, programs

    @cached_property
    def optional(self) -> list[str]:
        """The fields of a policy, of those that may be missing yet, that this router takes."""
        return [name for name in configs.OPTIONAL if self._takes(name)]

    def _takes(self, name: str) -> bool:
        path = self.folder / f"probe-{name}.json"
        path.write_text(json.dumps(configs.table(1, [name])))
        tables = Tables(path)
        tables.reload()
        return not tables.errors

    @cached_property
    def flags(self) -> list[str]:
        """The router's flags beyond its table and ports."""
        command = [sys.executable, "-m", "modeltiers.router", "--help"]
        said = subprocess.run(
            command, env=os.environ | _PYTHON, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        (self.folder / "keys.json").write_text(json.dumps(configs.keys()))
        (self.folder / "hop.key").write_bytes(b"k" * 64)
        (self.folder / "spool").mkdir(exist_ok=True)
        wanted = {
            "--keys": self.folder / "keys.json",
            "--hop-key": self.folder / "hop.key",
            "--spool": self.folder / "spool",
            "--connections-per-client": 4096,  # all of the load comes from one address
        }
        ends = ["--drain-seconds", "0.5", "--settle-seconds", "0"]  # nobody waits for anything when it is stopped
        return [word for flag, value in wanted.items() if flag in said for word in (flag, str(value))] + ends

    def off(self) -> list[str]:
        """Return what is not switched on because the router does not take it."""
        flags = [flag for flag in ("--keys", "--hop-key", "--spool") if flag not in self.flags]
        return [*(name for name in configs.OPTIONAL if name not in self.optional), *flags]

    # -- processes --------------------------------------------------------------------------------------------------

    def router(self, port: int, upstream: int, name: str = "ours") -> Process:
        """Return the router in front of an upstream, not started."""
        table = self.folder / f"{name}.json"
        table.write_text(json.dumps(configs.table(upstream, self.optional)))
        command = [sys.executable, "-m", "modeltiers.router", "--table", str(table), *self.flags]
        command += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}"]
        return Process(name, command, self.folder, MEASURED, _PYTHON)

    def nginx(self, name: str, config: str, core: int) -> Process:
        """Return an nginx, not started."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        (home / "nginx.conf").write_text(config)
        command = [str(self.programs.paths["nginx"]), "-p", str(home), "-c", str(home / "nginx.conf")]
        return Process(name, [*command, "-e", str(home / "error.log")], self.folder, core, self.programs.environment)

    def haproxy(self, port: int, upstream: int) -> Process:
        """Return a haproxy, not started."""
        config = self.folder / "haproxy.cfg"
        config.write_text(configs.haproxy(port, upstream))
        command = [str(self.programs.paths["haproxy"]), "-db", "-f", str(config)]
        return Process("haproxy", command, self.folder, MEASURED, self.programs.environment)

    def upstream(self, port: int, pace: Pace | None) -> Process:
        """Return the upstream: an nginx with one reply, or a stream at this pace."""
        if pace is None:
            config = configs.nginx_upstream(self.folder / "upstream", port, bodies.answer())
            return self.nginx("upstream", config, OTHER)
        command = [sys.executable, "-m", "e2e.bench.router.upstream", str(port), str(pace.gap_ms), str(pace.tokens)]
        return Process("upstream", command, self.folder, OTHER, _PYTHON)

    @contextlib.contextmanager
    def running(self, pace: Pace | None = None) -> Iterator[Peers]:
        """Run all of them before one upstream; one that streams where a pace is given."""
        direct = free_port()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.upstream(direct, pace)).wait_for(direct)
            found = {}
            for name in NAMES:
                port = free_port()
                process = stack.enter_context(self._peer(name, port, direct, streams=pace is not None))
                process.wait_for(port)
                found[name] = Peer(process, port)
            yield Peers(direct, found)

    def _peer(self, name: str, port: int, upstream: int, *, streams: bool) -> Process:
        if name == "ours":
            return self.router(port, upstream)
        if name == "haproxy":
            return self.haproxy(port, upstream)
        return self.nginx(name, configs.nginx_proxy(self.folder / name, port, upstream, streams=streams), MEASURED)


def wait_until_listening(process: Process) -> None:
    """Wait for the router's own word that it listens; raises Failed."""
    until = time.monotonic() + READY_SECONDS
    while '"listening"' not in process.output():
        process.check()
        if time.monotonic() > until:
            raise Failed(f"{process.name} did not listen within {READY_SECONDS:.0f} s: {process.output()[-500:]}")
        time.sleep(0.001)
