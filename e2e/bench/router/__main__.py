"""`python -m e2e.bench.router`: the router beside nginx and haproxy, in one run on one machine.

All three stand before the same upstream on one core; load and upstream have the other. Ratios are of processor time.
Exit status 1 when an answer was wrong, 2 when a target was missed and --strict was said.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from e2e.bench.router import load, pure
from e2e.bench.router.load import Sample, Series, Wrk
from e2e.bench.router.packages import programs
from e2e.bench.router.peers import ROOT, Pace, Setup
from e2e.bench.router.processes import CORES, OTHER, core_of
from e2e.bench.router.report import Row, as_json, missed, render

STATE: Final = ROOT / ".state/bench-router"
EVENTS: Final = Pace(gap_ms=10, tokens=256)
EVENT_STREAMS: Final = 100
HELD: Final = Pace(gap_ms=400, tokens=20)
HELD_STREAMS: Final = 1_000
SMALL, LARGE = 1024, 65_536


@dataclass
class Run:
    """One run: what it is done with, and what came of it."""

    setup: Setup
    rounds: int
    rows: list[Row] = field(default_factory=list)
    errors: int = 0

    def compare(self, what: str, found: dict[str, Series], of: Callable[[Series], float], row: Row) -> None:
        """Add a row of one figure of every peer; `row` says unit and target."""
        ours, nginx, haproxy = (of(found[name]) for name in ("ours", "nginx", "haproxy"))
        self.rows.append(Row(what, ours, row.unit, nginx, haproxy, row.target, row.relative, row.at_least, row.note))

    def chat(self) -> None:
        """Measure whole requests."""
        with self.setup.running() as peers:
            small, large = Wrk(self.setup, SMALL), Wrk(self.setup, LARGE)
            load.warm(small, peers, 64)
            one = load.requests(small, peers, 1, self.rounds)
            at16 = load.requests(small, peers, 16, self.rounds)
            big = load.requests(large, peers, 16, self.rounds)
            at64 = load.requests(small, peers, 64, self.rounds)
            at256 = load.requests(small, peers, 256, self.rounds)
        self.errors += sum(map(load.errors_of, (one, at16, big, at64, at256)))
        cost = Row("", None, "us", target=1.5, relative=True)
        self.compare("CPU a request of 1 kB, c=16", at16, lambda s: s.cpu, cost)
        self.compare("CPU a request of 64 kB, c=16", big, lambda s: s.cpu, cost)
        self.latency(one)
        wall = ", ".join(f"{name} {at64[name].median(_rate):,.0f}" for name in ("ours", "nginx", "haproxy"))
        rate = Row("", None, target=20_000, at_least=True, note=f"by the wall's clock, load beside it: {wall}")
        self.compare("requests a second of one core, c=64", at64, lambda s: 1e6 / s.cpu, rate)
        lost = {name: 100 * (1 - at16[name].cpu / at256[name].cpu) for name in peers.all}
        self.rows.append(Row("lost from c=16 to c=256", lost["ours"], "%", lost["nginx"], lost["haproxy"], target=10))

    def latency(self, one: dict[str, Series]) -> None:
        """Add what each adds to the upstream's own time."""
        for what, of, target in (("p50", _p50, 0.4), ("p99", _p99, 1.0)):
            direct = one["direct"].median(of)
            added = {name: one[name].median(of) - direct for name in ("ours", "nginx", "haproxy")}
            note = f"without a proxy {direct:.3f}"
            row = Row(f"added {what}, c=1", added["ours"], "ms", added["nginx"], added["haproxy"], target, note=note)
            self.rows.append(row)

    def streams(self) -> None:
        """Measure events of streams."""
        with self.setup.running(EVENTS) as peers:
            load.streams(peers, EVENTS, EVENT_STREAMS, 1)
            found = load.streams(peers, EVENTS, EVENT_STREAMS, self.rounds)
        self.errors += load.errors_of(found)
        note = f"{EVENT_STREAMS} streams, an event every {EVENTS.gap_ms:g} ms each"
        cost = Row("", None, "us", target=1.3, relative=True, note=note)
        self.compare("CPU an event", found, lambda s: s.cpu, cost)

    def memory(self) -> None:
        """Measure resident memory."""
        with self.setup.running(HELD) as peers:
            found, errors = load.memory(peers, HELD_STREAMS, HELD)
        self.errors += errors
        for at, what, target in ((0, "idle", 45.0), (1, f"{HELD_STREAMS:,} streams", 120.0)):
            ours, nginx, haproxy = (found[name][at] for name in ("ours", "nginx", "haproxy"))
            self.rows.append(Row(f"resident memory, {what}", ours, "MiB", nginx, haproxy, target))

    def starts(self) -> None:
        """Measure how long the router takes to listen."""
        times = 2 * self.rounds + 1
        found = load.starts(self.setup, times)
        note = f"the least of {times}; median {found.median:.2f}, of processor {found.processor:.2f}"
        self.rows.append(Row("start", found.least, "s", target=0.5, note=note))

    def decisions(self) -> None:
        """Measure the decisions by themselves."""
        for size, target in ((SMALL, 60.0), (LARGE, None)):
            note = f"the request looked at included; with the score {pure.choosing(size, score={}):.1f}"
            what = f"choose, 20 rules, {size // 1024} kB"
            self.rows.append(Row(what, pure.choosing(size), "us", target=target, note=note))
        found = pure.accepting()
        reading = "not built yet" if found is None else f"reading the answer: {found[0]:.0f} more"
        judging = None if found is None else found[1]
        self.rows.append(Row("accept, 300 tokens", judging, "us", target=150, note=reading))


def _rate(sample: Sample) -> float:
    return sample.rate


def _p50(sample: Sample) -> float:
    return sample.p50


def _p99(sample: Sample) -> float:
    return sample.p99


PARTS: Final[dict[str, Callable[[Run], None]]] = {
    "decisions": Run.decisions,
    "starts": Run.starts,
    "chat": Run.chat,
    "streams": Run.streams,
    "memory": Run.memory,
}


def about(run: Run, seconds: float) -> dict[str, object]:
    """Return where and with what it was measured."""
    tuned = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "machine": f"{len(CORES)} cores, {platform.machine()}, Python {platform.python_version()}"
        + ("" if tuned else " built without profile-guided optimisation"),
        "load": os.getloadavg()[0],
        "seconds": round(seconds),
        "off": run.setup.off(),
        "errors": run.errors,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.router", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="a part; may be given again")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--strict", action="store_true", help="exit status 2 when a target is missed")
    options = parser.parse_args(arguments)
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    run, began = Run(Setup(STATE, programs()), options.rounds), time.monotonic()
    os.sched_setaffinity(0, {core_of(OTHER)})
    for name in options.only or PARTS:
        print(f"router: {name}", flush=True)
        PARTS[name](run)
    run.rows.append(Row("wrong or missing answers", run.errors, target=0))
    os.sched_setaffinity(0, CORES)
    facts = about(run, time.monotonic() - began)
    print(f"\n{render(run.rows)}\n\n{facts['machine']}; load {facts['load']:.1f}; {facts['seconds']} s")
    if run.setup.off():
        print(f"off, since the router does not take it yet: {', '.join(run.setup.off())}")
    if options.json:
        options.json.write_text(json.dumps(as_json(run.rows, facts), indent=1) + "\n")
    if run.errors:
        return 1
    return 2 if options.strict and missed(run.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
