"""`make bench`: the operator against a bare client that makes the same applies on the same API server in the same
run.

Both sides are timed by the API server's own audit log, from the first write to the last, so that neither pays for
starting Python. The pods stay pending: there are no nodes, and what is measured is the operator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import Cluster
from e2e.cluster.audit import Request
from e2e.operator_process import ROOT, USER, OperatorProcess, install
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain import asks, catalogue
from modeltiers.domain.record import inputs_of
from modeltiers.domain.sizing import Plan
from modeltiers.domain.surge import choose_rollout
from modeltiers.kube.session import Connection, connect
from modeltiers.render.modeltier import Owner, render_tier, resolve

STATE = ROOT / ".state/bench"
EXAMPLE = yaml.safe_load((ROOT / "examples/ladder/small.yaml").read_text())
CHILDREN = ("deployments", "services", "serviceaccounts", "poddisruptionbudgets")
WORKERS = 8  # as many as the operator's


@dataclass(frozen=True)
class Span:
    """What one side took for its writes."""

    seconds: float
    writes: int


def tier(name: str, namespace: str) -> dict[str, Any]:
    """One of the thousand."""
    spec = {**EXAMPLE["spec"], "replicas": 1}
    return {**EXAMPLE, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


async def send(connection: Connection, calls: Iterable[tuple[str, str, dict[str, Any], str]]) -> list[dict[str, Any]]:
    """Make these calls with a few workers; the bare client: an aiohttp session and json, nothing else."""
    waiting = list(calls)[::-1]
    answers: list[dict[str, Any]] = []

    async def work() -> None:
        while waiting:
            verb, path, body, content = waiting.pop()
            data = json.dumps(body).encode()
            headers = {"Content-Type": content}
            async with connection.session.request(verb, connection.server + path, data=data, headers=headers) as answer:
                answer.raise_for_status()
                answers.append(await answer.json())

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return answers


def apply_call(body: dict[str, Any], *, status: bool = False) -> tuple[str, str, dict[str, Any], str]:
    """A server-side apply as a bare call."""
    group = body["apiVersion"]
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    plural = body["kind"].lower() + "s"
    metadata = body["metadata"]
    path = f"{root}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}{'/status' if status else ''}"
    return "PATCH", f"{path}?fieldManager=bench&force=true", body, "application/apply-patch+yaml"


def children(name: str, namespace: str) -> list[dict[str, Any]]:
    """The very objects that the operator applies, without owners: they belong to nobody here."""
    spec = ModelTierSpec.model_validate(tier(name, namespace)["spec"])
    plan = asks.size(spec, KNOWN, (), Settings())
    assert isinstance(plan, Plan)
    rollout = choose_rollout(None, plan.gpus, 1, single_writer=False)
    record = resolve(name, spec, plan, asks.sizing_status(plan, inputs_of(spec), None), rollout, Settings())
    bodies = render_tier(Owner(namespace, name, "00000000-0000-0000-0000-000000000000"), 1, record)
    for body in bodies:
        del body["metadata"]["ownerReferences"]
    return bodies


KNOWN = catalogue.load()


def span(requests: Sequence[Request], resources: Sequence[str] = CHILDREN) -> Span:
    """First to last write of these resources by the API server's clock."""
    writes = [r for r in requests if r.writes and r.resource in resources]
    times = [datetime.fromisoformat(r.at) for r in writes]
    return Span((max(times) - min(times)).total_seconds(), len(writes))


async def bare(kubeconfig: Path, count: int) -> None:
    """Apply the children of every tier, and a status of the size that the operator writes."""
    connection = await connect(kubeconfig)
    calls = [apply_call(body) for n in range(count) for body in children(f"t{n}", "bare")]
    await send(connection, calls)
    await connection.close()


async def create_tiers(kubeconfig: Path, count: int) -> None:
    """Create the tiers; the operator is not running yet."""
    connection = await connect(kubeconfig)
    path = "/apis/modeltiers.dev/v1alpha1/namespaces/tiers/modeltiers"
    await send(connection, [("POST", path, tier(f"t{n}", "tiers"), "application/json") for n in range(count)])
    await connection.close()


def wait_quiet(cluster: Cluster, seconds: float = 3.0, limit: float = 300.0) -> None:
    """Wait until nobody but housekeeping writes any more."""
    end = time.monotonic() + limit
    last, since = -1, time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < seconds:
        size = sum(1 for r in cluster.requests() if r.writes and r.resource not in ("leases", "nodes"))
        if size != last:
            last, since = size, time.monotonic()
        time.sleep(0.5)


def plan_milliseconds(rounds: int = 300) -> float:
    """Median time of one plan of the 70B example, pure Python, this process."""
    spec = ModelTierSpec.model_validate(yaml.safe_load((ROOT / "examples/ladder/large.yaml").read_text())["spec"])
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        asks.size(spec, KNOWN, None, Settings())
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--tiers", type=int, default=1000)
    count = parser.parse_args().tiers
    shutil.rmtree(STATE, ignore_errors=True)
    with Cluster(STATE, name="bench", tied=True) as cluster:
        for namespace in ("bare", "warm", "tiers"):
            cluster.create_namespace(namespace)
        install(cluster)
        print(f"bare client: {4 * count} applies", flush=True)
        asyncio.run(bare(cluster.kubeconfig, count))
        peer = span(cluster.requests("kubernetes-admin") or cluster.requests("admin"))
        wait_quiet(cluster)
        cluster.kubectl("delete", "namespace", "bare", "--wait=false")
        wait_quiet(cluster)
        asyncio.run(create_tiers(cluster.kubeconfig, count))
        print(f"operator: {count} tiers", flush=True)
        report(cluster, peer)
    return 0


def report(cluster: Cluster, peer: Span) -> None:
    """Run the operator over the tiers, twice, and print what it took."""
    with OperatorProcess(cluster, STATE) as operator:
        wait_quiet(cluster)
        requests = cluster.requests(USER)
        ours = span(requests)
        writes = Counter(
            f"{r.verb} {r.resource}{'/' + r.subresource if r.subresource else ''}" for r in requests if r.writes
        )
        memory, cpu = operator.rss_mib(), operator.cpu_seconds()
    before = len([r for r in cluster.requests(USER) if r.writes and r.resource != "leases"])
    with OperatorProcess(cluster, STATE, name="operator-1") as again:
        began = time.monotonic()
        wait_quiet(cluster)
        depth = again.metric("modeltiers_queue_depth")
        served = again.metric("modeltiers_reconcile_total")
        del began
    after = len([r for r in cluster.requests(USER) if r.writes and r.resource != "leases"])
    print(f"\n{'':34}{'bare client':>14}{'operator':>14}{'ratio':>8}{'target':>9}")
    print(
        f"{'children applied, s':34}{peer.seconds:14.2f}{ours.seconds:14.2f}"
        f"{ours.seconds / peer.seconds:8.2f}{'<= 1.5':>9}"
    )
    print(f"{'writes of children':34}{peer.writes:14}{ours.writes:14}{ours.writes / peer.writes:8.2f}")
    print(f"{'resident memory, MiB':34}{'':14}{memory:14.0f}{'':8}{'<= 200':>9}")
    print(f"{'processor time, s':34}{'':14}{cpu:14.1f}")
    print(f"{'one plan, ms':34}{'':14}{plan_milliseconds():14.2f}{'':8}{'<= 1':>9}")
    print(
        f"{'writes after a restart':34}{'':14}{after - before:14}{'':8}{'0':>9}"
        f"   ({served:.0f} reconciles, queue {depth:.0f})"
    )
    print("\nwhere the operator's writes went: " + ", ".join(f"{n} x {what}" for what, n in writes.most_common()))


if __name__ == "__main__":
    sys.exit(main())
