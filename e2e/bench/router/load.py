"""What is measured on running processes: wrk's requests, streams of our own, memory, start.

Peers take turns within a round, and the median of the rounds counts: what else the machine does meets all alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from e2e.bench.router import bodies, configs
from e2e.bench.router.peers import Pace, Peers, Setup, wait_until_listening
from e2e.bench.router.processes import OTHER, Failed, free_port, pin
from e2e.bench.router.streams import Load, Outcome


@dataclass
class Sample:
    """What one load came to."""

    requests: int = 0
    seconds: float = 0.0
    p50: float = 0.0
    """Milliseconds."""
    p99: float = 0.0
    errors: int = 0
    cpu: float = 0.0
    """Microseconds a request."""

    @property
    def rate(self) -> float:
        """Requests a second by the wall's clock."""
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass
class Series:
    """The samples of one peer."""

    samples: list[Sample] = field(default_factory=list)

    def median(self, of: Callable[[Sample], float]) -> float:
        """Return the median of a figure."""
        return statistics.median(map(of, self.samples))

    @property
    def cpu(self) -> float:
        """Microseconds of processor a request."""
        return self.median(lambda one: one.cpu)

    @property
    def errors(self) -> int:
        """All errors."""
        return sum(one.errors for one in self.samples)


class Wrk:
    """wrk with one body."""

    def __init__(self, setup: Setup, size: int) -> None:
        body = setup.folder / f"body-{size}.json"
        body.write_bytes(bodies.request(size))
        self._script = setup.folder / f"wrk-{size}.lua"
        self._script.write_text(configs.wrk(body))
        self._program: Path = setup.programs.paths["wrk"]
        self._environment = os.environ | setup.programs.environment

    def run(self, port: int, connections: int, seconds: int) -> Sample:
        """Load a port; raises Failed when wrk does."""
        command = [*pin(OTHER), str(self._program), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
        command += ["-s", str(self._script), f"http://127.0.0.1:{port}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 30, check=False, env=self._environment
        )
        line = next((line for line in done.stdout.splitlines() if line.startswith("{")), None)
        if done.returncode or line is None:
            raise Failed(f"wrk ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
        said: dict[str, Any] = json.loads(line)
        errors = sum(said[name] for name in ("status", "connect", "read", "write", "timeout"))
        seconds_ran = said["microseconds"] / 1e6
        return Sample(said["requests"], seconds_ran, said["p50"] / 1e3, said["p99"] / 1e3, errors)


def requests(wrk: Wrk, peers: Peers, connections: int, rounds: int, *, seconds: int = 1) -> dict[str, Series]:
    """Load each peer in turns; `direct` is the upstream by itself, for one connection only."""
    ports = {name: peer.port for name, peer in peers.all.items()}
    if connections == 1:
        ports["direct"] = peers.direct
    found = {name: Series() for name in ports}
    for turn in range(rounds):
        for name in _turned(ports, turn):
            peer = peers.all.get(name)
            before = peer.process.cpu() if peer else 0.0
            sample = wrk.run(ports[name], connections, seconds)
            used = peer.process.cpu() - before if peer else 0.0
            sample.cpu = used * 1e6 / max(1, sample.requests)
            found[name].samples.append(sample)
    peers.check()
    return found


def warm(wrk: Wrk, peers: Peers, connections: int) -> None:
    """Load each peer for a second that does not count: connections open, tables of the allocator fill."""
    for peer in peers.all.values():
        wrk.run(peer.port, connections, 1)


def _turned(names: Iterable[str], turn: int) -> list[str]:
    """Return the names in an order that turns from round to round, so that nobody always comes first."""
    order = list(names)
    at = turn % len(order)
    return order[at:] + order[:at]


def streams(peers: Peers, pace: Pace, count: int, rounds: int) -> dict[str, Series]:
    """Read so many streams at once through each peer in turns; a sample's `cpu` is microseconds an event."""
    found = {name: Series() for name in peers.all}
    for turn in range(rounds):
        for name in _turned(peers.all, turn):
            peer = peers.all[name]
            before, began = peer.process.cpu(), time.monotonic()
            outcome = uvloop.run(_stream(peer.port, count, pace))
            used, seconds = peer.process.cpu() - before, time.monotonic() - began
            cpu = used * 1e6 / max(1, outcome.events)
            found[name].samples.append(Sample(outcome.events, seconds, errors=outcome.errors, cpu=cpu))
    peers.check()
    return found


async def _stream(port: int, count: int, pace: Pace) -> Outcome:
    load = Load(port, count, pace.tokens)
    await load.begin()
    return await load.end(30 + 4 * pace.gap_ms / 1000 * pace.tokens)


def memory(peers: Peers, count: int, pace: Pace) -> tuple[dict[str, tuple[float, float]], int]:
    """Return for each peer its resident MiB when idle and with so many streams, and how many streams went wrong."""
    found, errors = {}, 0
    for name, peer in peers.all.items():
        idle = peer.process.memory()
        held, wrong = uvloop.run(_hold(peer.process.memory, peer.port, count, pace))
        errors += wrong
        found[name] = idle, held
    peers.check()
    return found, errors


async def _hold(measure: Callable[[], float], port: int, count: int, pace: Pace) -> tuple[float, int]:
    load = Load(port, count, pace.tokens)
    await load.begin()
    await asyncio.sleep(1)
    held = measure()
    outcome = await load.end(30 + 4 * pace.gap_ms / 1000 * pace.tokens)
    return held, outcome.errors


@dataclass(frozen=True)
class Start:
    """From the command to the word that it listens, in seconds."""

    least: float
    """On the wall: what else the machine does only adds to it."""
    median: float
    processor: float


def starts(setup: Setup, times: int) -> Start:
    """Start the router so many times, one after another."""
    walls, processors = list[float](), list[float]()
    for _ in range(times):
        began = time.monotonic()
        with setup.router(free_port(), free_port(), "start") as router:
            wait_until_listening(router)
            walls.append(time.monotonic() - began)
            processors.append(router.cpu())
    return Start(min(walls), statistics.median(walls), statistics.median(processors))


def errors_of(found: Mapping[str, Series]) -> int:
    """Return the errors of all."""
    return sum(series.errors for series in found.values())
