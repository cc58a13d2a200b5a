"""`python -m e2e.soak.router`: the router for some minutes at four fifths of what this machine does, among failures.

Tables change, tiers die and come back, clients are slow or leave. Exit status 1 when an answer was not true, when
memory, descriptors or tasks grew, or when the router wrote to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import uvloop

from e2e.soak.router_clients import Clients
from e2e.soak.router_tier import Tier
from tests.router.kit.router import Refused, Router

MIB: Final = 2**20
GROWTH_MIB: Final = 8
GROWTH_FILES: Final = 24
"""Idle connections come and go; what leaks grows without end."""
GROWTH_TASKS: Final = 24
CANCEL_SECONDS: Final = 1.0
WORKERS: Final = 256
LOAD: Final = 0.8
CALIBRATE_SECONDS: Final = 5.0
TIMEOUTS: Final = {"connectMs": 500, "firstByteMs": 1_000, "idleMs": 1_000, "totalMs": 30_000}


@dataclass
class Sample:
    """What the router took at one moment."""

    memory: float
    files: int
    tasks: int
    in_flight: int


class Soak:
    """One run."""

    def __init__(self, router: Router, tiers: list[Tier], models: list[str], seed: int) -> None:
        self.router, self.tiers, self.models = router, tiers, models
        self.dice = Random(seed)  # noqa: S311 - repeatable, not secret
        self.seed = seed
        self.samples: list[Sample] = []
        self.reloads = self.refused_tables = self.deaths = 0
        self.faults: list[str] = []
        self.lag = 0.0

    async def run(self, seconds: float, rate: float | None) -> Clients:
        """Find out what the machine does, then ask four fifths of it; or ask at the rate that is given."""
        if rate is None:
            most = await self._most()
            rate = LOAD * most
            print(f"{most:.0f} requests/s at most", flush=True)
        print(f"asking {rate:.0f} requests/s for {seconds / 60:.1f} minutes", flush=True)
        clients = Clients(self.router.port, self.models, self.seed)
        work = [asyncio.create_task(one) for one in (clients.run(WORKERS, rate), self._reload(), self._kill())]
        work.append(asyncio.create_task(self._watch_lag()))
        began, spent = time.monotonic(), self.router.cpu()
        try:
            while (gone := time.monotonic() - began) < seconds:
                await asyncio.wait(work, timeout=2, return_when=asyncio.FIRST_EXCEPTION)
                self._raise(work)
                self.samples.append(await asyncio.to_thread(self._sample))
                if len(self.samples) % 15 == 0:
                    print(f"{gone:.0f} s: {self.samples[-1]}, {clients.outcomes.total()} asked", flush=True)
        finally:
            clients.stop = True
            for task in work[1:]:
                task.cancel()
            await asyncio.wait(work, timeout=30)
        gone, asked = time.monotonic() - began, clients.outcomes.total()
        print(f"{asked / gone:.0f} requests/s; router {(self.router.cpu() - spent) / gone:.0%} of a core")
        return clients

    def _raise(self, work: list[asyncio.Task[None]]) -> None:
        for task in work:
            if task.done():
                task.result()
                raise RuntimeError("a part of the soak ended by itself")

    async def _most(self) -> float:
        clients = Clients(self.router.port, self.models, self.seed)
        work = asyncio.create_task(clients.run(WORKERS, None))
        await asyncio.wait([work], timeout=CALIBRATE_SECONDS)
        clients.stop = True
        await work
        self.faults += clients.wrong
        return clients.outcomes.total() / CALIBRATE_SECONDS

    def _sample(self) -> Sample:
        status = self.router.status()
        return Sample(
            self.router.rss() / MIB, self.router.descriptors(), int(status.get("tasks", 0)), status["inFlight"]
        )

    async def _reload(self) -> None:
        """Change the table every second; one in five is bad and must change nothing."""
        ports = [tier.port for tier in self.tiers]
        while True:
            await asyncio.sleep(1)
            bad = self.dice.random() < 0.2
            version = f"v{self.reloads + self.refused_tables}"
            made = table(ports, cascade=len(self.models) > 1, version=version)
            self.router.reload('{"formatVersion": 1' if bad else made)
            self.refused_tables += bad
            self.reloads += not bad
            await asyncio.sleep(0.5)
            status = await asyncio.to_thread(self.router.status)
            shown = status["tables"]["table.json"]["version"]
            if (shown == version) is bad or bool(status["refusedTables"]) is not bad:
                self.faults.append(f"table {version}, bad: {bad}; the status says {shown} {status['refusedTables']}")

    async def _watch_lag(self) -> None:
        """Notice how late this process itself is: it is not the router's fault."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            self.lag = max(self.lag, time.monotonic() - before - 0.05)

    async def _kill(self) -> None:
        """Let one tier die for a while, never all of them."""
        while True:
            await asyncio.sleep(2 + 4 * self.dice.random())
            tier = self.dice.choice(self.tiers)
            tier.die()
            self.deaths += 1
            try:
                await asyncio.sleep(2 * self.dice.random())
            finally:
                await tier.rise()

    async def rest(self) -> Sample:
        """Wait until all is done; returns what is left then."""
        for tier in self.tiers:
            tier.calm = True
        try:
            await asyncio.to_thread(self.router.idle, 30.0)
        except AssertionError as error:
            self.faults.append(f"something is in flight for ever: {error}")
        await asyncio.sleep(8)  # idle connections are kept for some seconds
        return await asyncio.to_thread(self._sample)


def table(ports: list[int], *, cascade: bool, version: str) -> dict[str, Any]:
    """Return a table over all tiers; with a second policy that judges the lowest tier's answers, if it can."""
    health = {"intervalMs": 500, "timeoutMs": 2_000}
    breaker = {"openMs": 200}
    tiers = [
        {"name": f"t{i}", "address": f"127.0.0.1:{port}", "timeouts": TIMEOUTS, "health": health, "breaker": breaker}
        for i, port in enumerate(ports)
    ]
    policy = {
        "name": "support",
        "model": "support",
        "tiers": [tier["name"] for tier in tiers],
        "fallback": {"down": True},
    }
    policies: list[dict[str, Any]] = [policy]
    if cascade:
        accept = {"thresholdPermille": 600, "confidence": {}}
        policies.append(policy | {"name": "judged", "model": "judged", "mode": "Cascade", "accept": accept})
    return {"formatVersion": 1, "version": version, "tiers": tiers, "policies": policies}


def judge(soak: Soak, clients: Clients, before: Sample, after: Sample) -> int:
    """Print what was seen; returns 1 when something was wrong or grew."""
    third = len(soak.samples) // 3
    early, late = soak.samples[third : 2 * third] or [before], soak.samples[2 * third :] or [after]
    memory = max(one.memory for one in late) - max(one.memory for one in early)
    files, tasks = after.files - before.files, after.tasks - before.tasks
    slow = _late(soak, clients)
    wrong = soak.faults + clients.wrong + [one for tier in soak.tiers for one in tier.wrong]
    times = sorted(clients.seconds) or [0.0]
    print(", ".join(f"{name} {count}" for name, count in sorted(clients.outcomes.items())))
    print("tiers: " + ", ".join(f"{tier.name} {dict(tier.did)}" for tier in soak.tiers))
    print(f"{soak.reloads} reloads, {soak.refused_tables} bad tables refused, {soak.deaths} deaths of tiers")
    print(f"plain: p50 {1e3 * times[len(times) // 2]:.1f} ms, p99 {1e3 * times[len(times) * 99 // 100]:.1f} ms")
    print(
        f"memory {before.memory:.1f} MiB at first, {after.memory:.1f} in the end; {memory:+.1f} from the second third"
    )
    print(f"  to the last (limit {GROWTH_MIB} MiB)")
    print(f"descriptors {before.files} to {after.files}, tasks {before.tasks} to {after.tasks}")
    print(f"{len(clients.left)} left; {len(slow)} of them cost the tier more than {CANCEL_SECONDS} s and our own lag")
    print(f"this process itself was {soak.lag:.2f} s late at most")
    print(f"{len(wrong)} wrong answers")
    for one in [*wrong[:10], *slow[:5]]:
        print(f"  {one}")
    grew = memory > GROWTH_MIB or files > GROWTH_FILES or tasks > GROWTH_TASKS or after.in_flight
    return 1 if wrong or slow or grew else 0


def _late(soak: Soak, clients: Clients) -> list[str]:
    """Return whose leaving was noticed too late by the tier that worked for them."""
    found = []
    for tier in soak.tiers:
        for name, when in tier.cancelled.items():
            if name in clients.left and when - clients.left[name] > CANCEL_SECONDS + soak.lag:
                found.append(f"{name} left, {tier.name} heard of it {when - clients.left[name]:.1f} s later")
    return found


def start(ports: list[int]) -> tuple[Router, list[str]]:
    """Return a running router, and the models that it has."""
    flags = ("--write-seconds", "10")
    try:
        return Router(table(ports, cascade=True, version="v"), *flags).__enter__(), ["support", "judged"]
    except Refused as refused:
        print(f"without a cascade: {refused}", flush=True)
        return Router(table(ports, cascade=False, version="v"), *flags).__enter__(), ["support"]


async def soak(minutes: float, seed: int, rate: float | None) -> int:
    """Run it all; returns the exit status."""
    tiers = [Tier(f"t{place}", seed) for place in range(3)]
    for tier in tiers:
        await tier.rise()
    router, models = await asyncio.to_thread(start, [tier.port for tier in tiers])
    try:
        run = Soak(router, tiers, models, seed)
        before = await asyncio.to_thread(run._sample)
        clients = await run.run(minutes * 60, rate)
        code = judge(run, clients, before, await run.rest())
        if said := router.stderr():
            print(f"the router wrote to standard error: {said[:3_000]}")
            code = 1
    finally:
        await asyncio.to_thread(router.__exit__, RuntimeError, None, None)
        for tier in tiers:
            tier.die()
    print("ok" if not code else "FAILED", flush=True)
    return code


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m e2e.soak.router", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=float, help="requests a second; found out when left out")
    options = parser.parse_args()
    return uvloop.run(soak(options.minutes, options.seed, options.rate))


if __name__ == "__main__":
    sys.exit(main())
