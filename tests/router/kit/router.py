"""The router as a process of its own on free ports: started, watched and stopped as a machine would.

It fails a test when the router died by itself, or wrote anything to standard error: a traceback there is a fault that
the client's reply may hide.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client.parser import text_string_to_metric_families

from tests import canaries
from tests.router.kit.client import Reply, get

ROOT: Final = Path(__file__).parents[3]
PREFIX: Final = "modeltiers_router_"
QUICK: Final = {"connectMs": 2_000, "firstByteMs": 2_000, "idleMs": 2_000, "totalMs": 10_000}
ENDS_SOON: Final = ("--settle-seconds", "0.05", "--drain-seconds", "0.5")
"""So that a test does not wait for the end of what it left open; flags of the test come behind and win."""


class Refused(AssertionError):
    """A router that did not come up, or refused its table."""


class Metrics:
    """The figures of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name, without the common prefix, that carry these labels."""
        return sum(
            one.value for one in self._samples if one.name == PREFIX + name and labels.items() <= one.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """Return the values that a label takes."""
        return {one.labels[label] for one in self._samples if one.name == PREFIX + name and label in one.labels}


class Router:
    """A running router."""

    def __init__(
        self,
        table: Mapping[str, Any] | str,
        *flags: str,
        keys: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        python_path: Iterable[Path] = (),
        expect_table: bool = True,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="router-")
        self.folder = Path(self._folder.name)
        self.table = self.folder / "table.json"
        self.table.write_text(table if isinstance(table, str) else json.dumps(table))
        self._flags = list(flags)
        if keys is not None:
            self.keys = self.folder / "keys.json"
            self.keys.write_text(json.dumps(keys))
            self._flags += ["--keys", str(self.keys)]
        path = os.pathsep.join(map(str, [*python_path, ROOT / "operator"]))
        self._env = os.environ | {"PYTHONPATH": path, **(env or {})}
        self._expect_table = expect_table
        self._lines = list[str]()
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors = list[str]()
        self._stopping = False
        self.port = self.admin = 0

    # -- what a test asks -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self.process.poll()

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of its log; fails when one is no JSON object."""
        return [json.loads(line) for line in list(self._lines)]

    def output(self) -> str:
        """Return all that it wrote, both streams."""
        return "\n".join([*self._lines, *self._errors])

    def stderr(self) -> str:
        """Return what it wrote to standard error."""
        return "\n".join(self._errors)

    def get(self, path: str) -> Reply:
        """GET on the admin port."""
        return get(self.admin, path)

    def metrics(self) -> Metrics:
        """Scrape the figures."""
        return Metrics(self.get("/metrics").body.decode())

    def status(self) -> dict[str, Any]:
        """Return /status."""
        found: dict[str, Any] = self.get("/status").json
        return found

    def until(self, holds: Callable[[dict[str, Any]], object], seconds: float = 20.0) -> dict[str, Any]:
        """Wait until the status says something."""
        until = time.monotonic() + seconds
        while not holds(found := self.status()):
            assert time.monotonic() < until, f"the status never came to hold within {seconds} s: {found}"
            time.sleep(0.01)
        return found

    def idle(self, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until nothing is in flight, neither of clients nor to tiers."""
        return self.until(lambda status: not status["inFlight"] and not _upstream_in_flight(status), seconds)

    def reload(self, table: Mapping[str, Any] | str) -> None:
        """Write the table's file, as an editor does: a new file in the place of the old one."""
        fresh = self.table.with_suffix(".new")
        fresh.write_text(table if isinstance(table, str) else json.dumps(table))
        fresh.replace(self.table)

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        return _memory(self.pid, "VmRSS")

    def peak(self) -> int:
        """Return the most memory it ever had, in bytes, since `forget_peak`."""
        return _memory(self.pid, "VmHWM")

    def forget_peak(self) -> None:
        """Measure the peak anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu(self) -> float:
        """Return the seconds of processor that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self) -> None:
        """Send SIGTERM; from now on its end is no fault."""
        self._stopping = True
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = 10.0) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(seconds)

    # -- its life -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        command = ["-m", "modeltiers.router", "--table", str(self.table), "--listen", "127.0.0.1:0"]
        command += ["--admin", "127.0.0.1:0", *ENDS_SOON, *self._flags]
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._env
        )
        self._threads = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.rstrip("\n"))
            self._news.put(line)
        self._news.put(None)

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line.rstrip("\n"))

    def _wait(self) -> None:
        until = time.monotonic() + 15
        while not self.port:
            try:
                line = self._news.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise Refused(f"it did not listen within 15 s: {self.output()}") from None
            if line is None:
                self._threads[1].join(2)
                raise Refused(f"it ended before it listened: {self.output()}")
            said = json.loads(line)
            if said.get("event") == "table_refused" and self._expect_table:
                raise Refused(f"its table was refused: {said.get('error')}")
            if said.get("event") == "listening":
                self.port, self.admin = said["serving"][1], said["admin"][1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        died = None if self._stopping else self.process.poll()
        told = self._told() if kind is None and died is None and not self._stopping else ""
        self._end()
        said = self.stderr()
        if kind is None:
            canaries.look("the router", told + self.output())
            assert died is None, f"the router died by itself with {died}: {said}"
            assert not said, f"the router wrote to standard error: {said}"
        elif said and error is not None:
            error.add_note(f"the router wrote to standard error:\n{said[-3000:]}")

    def _told(self) -> str:
        """What it says of itself, and its records: all that it wrote but its log."""
        spools = [Path(self._flags[at + 1]) for at, flag in enumerate(self._flags[:-1]) if flag == "--spool"]
        records = b"\n".join(line for spool in spools if spool.is_dir() for line in spooled(spool))
        try:
            asked = [self.get(path).body.decode() for path in ("/metrics", "/status")]
        except (AssertionError, OSError):  # a test has stopped it, or taken all its connections
            asked = []
        return "\n".join([*asked, records.decode(errors="replace")])

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(1.5 if not self._stopping else 5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        for thread in self._threads:
            thread.join(2)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self._folder.cleanup()


def _memory(pid: int, field: str) -> int:
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(field))
    return int(line.split()[1]) * 1024


def _upstream_in_flight(status: dict[str, Any]) -> int:
    return sum(one["inFlight"] for tier in status["tiers"].values() for one in tier["addresses"].values())


def table(
    *addresses: str | int,
    policy: Mapping[str, Any] | None = None,
    tier: Mapping[str, Any] | None = None,
    tiers: Mapping[int, Mapping[str, Any]] | None = None,
    timeouts: Mapping[str, int] | None = None,
    alone: bool = False,
) -> dict[str, Any]:
    """Return a table with one tier an address, t0 the lowest, and one policy named support over all of them.

    An address is host:port or a port of 127.0.0.1; `tier` is for all tiers, `tiers` for one by its place; `alone`
    adds a policy for each tier by itself, whose model is the tier's name.
    """
    made = []
    for place, address in enumerate(addresses):
        where = f"127.0.0.1:{address}" if isinstance(address, int) else address
        one: dict[str, Any] = {"name": f"t{place}", "address": where}
        one |= {"timeouts": {**QUICK, **(timeouts or {})}, **(tier or {}), **((tiers or {}).get(place, {}))}
        made.append(one)
    ladder = [one["name"] for one in made]
    policies = [{"name": "support", "model": "support", "tiers": ladder, **(policy or {})}]
    if alone:
        policies += [{**(policy or {}), "name": name, "model": name, "tiers": [name]} for name in ladder]
    return {"formatVersion": 1, "tiers": made, "policies": policies}


def spooled(spool: Path) -> list[bytes]:
    """The lines of a spool that are whole: the router may be writing one."""
    found = []
    for path in sorted(spool.glob("*.jsonl")):
        *whole, _ = path.read_bytes().split(b"\n")
        found += whole
    return found
