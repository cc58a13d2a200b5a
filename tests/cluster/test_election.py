"""The election between processes on a real API server: takeovers are measured; a leader that slept writes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from modeltiers.domain.election import Config
from modeltiers.kube import access
from modeltiers.kube.client import Api
from modeltiers.kube.election import Election
from modeltiers.kube.session import connect
from tests.cluster.kit import api_server_back, until

ROOT = Path(__file__).parents[2]
DEFAULTS = ("10", "6", "2")
QUICK = ("4", "3", "0.5")


@dataclass(eq=False)
class Candidate:
    """A replica as a process, under a ServiceAccount of its own, so that the audit log tells who wrote."""

    cluster: Cluster
    namespace: str
    name: str
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, times: tuple[str, str, str]) -> Candidate:
        """Start it."""
        kubeconfig = self.cluster.service_account_kubeconfig(self.namespace, self.name)
        command = [sys.executable, "-m", "tests.cluster.candidate", str(kubeconfig), self.namespace, self.name, *times]
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=env)
        return self

    def said(self) -> list[tuple[str, float]]:
        """What it has said: words and times."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(line[0], float(line[1])) for line in lines if len(line) == 2 and line[0].isalpha()]

    def last(self) -> str:
        """Whether it leads, by its own word."""
        words = [word for word, _ in self.said() if word in ("leads", "lost")]
        return words[-1] if words else ""

    def led_after(self, moment: float, timeout: float = 40) -> float:
        """Seconds until it led for the first time after a moment."""
        found: list[float] = []

        def leads() -> bool:
            found[:] = [at for word, at in self.said() if word == "leads" and at > moment]
            return bool(found)

        until(leads, lambda: f"{self.name} leads; it said\n{self.log.read_text()}", timeout)
        return found[0] - moment

    def writes(self) -> int:
        """Objects written, by the audit log; the lease is not counted."""
        user = f"system:serviceaccount:{self.namespace}:{self.name}"
        return sum(
            1 for seen in self.cluster.requests(user) if seen.writes and seen.resource != "leases" and seen.code < 300
        )


@pytest.fixture
def candidates(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[tuple[Candidate, Candidate]]:
    """Two candidates with the operator's rights in one namespace."""
    items: list[dict[str, Any]] = access.rbac_manifests([namespace], namespace)
    for item in items:
        if item["kind"] == "RoleBinding":
            item["subjects"] = [{"kind": "ServiceAccount", "name": n, "namespace": namespace} for n in ("a", "b")]
    for name in "ab":
        metadata = {"name": name, "namespace": namespace}
        items.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    pair = [Candidate(cluster, namespace, name, tmp_path / f"{name}.log") for name in "ab"]
    yield pair[0], pair[1]
    for candidate in pair:
        if hasattr(candidate, "process"):
            candidate.process.kill()
            candidate.process.wait()


def holder(cluster: Cluster, namespace: str) -> str:
    """Whom the lease names."""
    text = cluster.kubectl("get", "lease", "election", "-n", namespace, "-o", "json").stdout
    return str(json.loads(text)["spec"].get("holderIdentity", ""))


def test_a_standby_takes_over(cluster: Cluster, namespace: str, candidates: tuple[Candidate, Candidate]) -> None:
    """Within fifteen seconds of a kill -9, and within a retry or so of a SIGTERM; times are those of the product."""
    first, second = candidates
    first.start(DEFAULTS).led_after(0)
    second.start(DEFAULTS)
    until(lambda: cluster.requests(f"system:serviceaccount:{namespace}:b"), "the standby looks at the lease")
    killed = time.monotonic()
    first.process.kill()
    took = second.led_after(killed)
    print(f"\ntakeover after kill -9: {took:.1f} s")
    assert took <= 15
    assert second.last() == "leads"

    first.process.wait()
    first.start(DEFAULTS)
    until(lambda: first.log.read_text() == "" and first.process.poll() is None, "the first is back")
    time_to_look = len(cluster.requests(f"system:serviceaccount:{namespace}:a"))
    until(lambda: len(cluster.requests(f"system:serviceaccount:{namespace}:a")) > time_to_look + 1, "it looks")
    stopped = time.monotonic()
    second.process.terminate()
    took = first.led_after(stopped)
    print(f"takeover after SIGTERM: {took:.1f} s")
    assert took <= 4
    assert second.process.wait(timeout=10) == 0
    assert second.said()[-1][0] == "ended"
    assert holder(cluster, namespace).startswith("a_")


def test_a_leader_that_was_frozen_writes_nothing(candidates: tuple[Candidate, Candidate]) -> None:
    """Frozen at any point of its work, it finds the fence up when it wakes; four times over, in turn."""
    one, other = candidates
    one.start(QUICK).led_after(0)
    other.start(QUICK)
    for _ in range(4):
        freeze_and_wake(one, other)
        one, other = other, one


def freeze_and_wake(leader: Candidate, standby: Candidate) -> None:
    """Freeze the leader until the other leads, wake it, and watch both."""
    until(lambda: leader.last() == "leads" and leader.writes() > 20, "the leader writes")
    frozen = time.monotonic()
    leader.process.send_signal(signal.SIGSTOP)
    standby.led_after(frozen)
    before = leader.writes()
    leader.process.send_signal(signal.SIGCONT)
    until(lambda: leader.last() == "lost", "it finds out")
    at_wake = standby.writes()
    until(lambda: standby.writes() > at_wake + 20, "the new leader writes")
    assert leader.writes() == before


def test_an_outage_costs_leadership_and_no_process(cluster: Cluster, candidates: tuple[Candidate, Candidate]) -> None:
    """A leader that cannot renew stops writing by itself and leads again when the API server is back."""
    first, _ = candidates
    first.start(QUICK).led_after(0)
    stopped = time.monotonic()
    cluster.stop("kube-apiserver")
    try:
        until(lambda: first.last() == "lost", "it stops by itself", 15)
    finally:
        api_server_back(cluster)
    first.led_after(stopped)
    assert first.process.poll() is None


async def test_who_lost_the_lead_by_the_clock_alone_waits_for_it(cluster: Cluster, namespace: str) -> None:
    """When the loop is late, the time is up before any alarm has rung: waiting must let the loop go on all the same."""
    late = 0.0
    connection = await connect(cluster.kubeconfig)
    config = Config(lease=20, renew_deadline=10, retry=1)
    election = Election(Api(connection), namespace, "late", "a", config=config, clock=lambda: time.monotonic() + late)
    stopping = asyncio.Event()
    part = asyncio.create_task(election.run(stopping))
    await asyncio.wait_for(election.wait_leading(), 10)
    late = 60.0
    assert not election.is_leading()
    waiting = asyncio.create_task(election.wait_leading())
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 30)
    assert election.is_leading()
    stopping.set()
    await part
    await connection.close()
