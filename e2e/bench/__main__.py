"""`make bench`: the operator against a bare client that makes the same applies on the same API server in the same run.

Both sides are timed by the API server's own audit log, from the first write to the last, so that neither pays for
starting Python. The cluster's controllers are stopped meanwhile, so that both have the machine to themselves; they are
started again before memory is read, so that it is that of an operator with pods and events.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from e2e.bench.bare import apply_call, send
from e2e.cluster import Cluster
from e2e.cluster.audit import Request
from e2e.cluster.process import wait_until
from e2e.operator_process import ROOT, USER, OperatorProcess, install
from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain import asks, catalogue
from modeltiers.domain import record as records
from modeltiers.domain.record import inputs_of
from modeltiers.domain.sizing import Plan
from modeltiers.domain.surge import choose_rollout
from modeltiers.kube.session import connect
from modeltiers.render.modeltier import render_tier, resolve
from modeltiers.render.owner import Owner

STATE = ROOT / ".state/bench"
EXAMPLE = yaml.safe_load((ROOT / "examples/ladder/small.yaml").read_text())
CHILDREN = ("deployments", "services", "serviceaccounts", "poddisruptionbudgets")
APPLIED = (*CHILDREN, "modeltiers")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Span:
    """What one side took for its writes."""

    seconds: float
    writes: int


def tier(name: str, namespace: str) -> dict[str, Any]:
    """One of the thousand."""
    spec = {**EXAMPLE["spec"], "replicas": 1}
    return {**EXAMPLE, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


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


def span(requests: Sequence[Request], resources: Sequence[str]) -> Span:
    """First to last write of these resources by the API server's clock."""
    writes = [r for r in requests if r.writes and r.resource in resources]
    times = [datetime.fromisoformat(r.at) for r in writes]
    return Span((max(times) - min(times)).total_seconds(), len(writes))


async def bare(kubeconfig: Path, count: int) -> None:
    """Apply the children of every tier, and to every tier a status of the size that the operator writes."""
    connection = await connect(kubeconfig)
    calls: list[tuple[str, str, dict[str, Any], str]] = []
    for number in range(count):
        bodies = children(f"t{number}", "bare")
        calls += [apply_call(body) for body in bodies]
        record = records.load(bodies[-1]["metadata"]["annotations"][names.ANNOTATION_RECORD])
        assert record
        metadata = {"name": f"t{number}", "namespace": "bare"}
        status = {"observedGeneration": 1, "sizing": dict(record.sizing)}
        body = {"apiVersion": names.API_VERSION, "kind": "ModelTier", "metadata": metadata, "status": status}
        calls.append(apply_call(body, status=True))
    await send(connection, calls)
    await connection.close()


async def create_tiers(kubeconfig: Path, namespace: str, count: int) -> None:
    """Create the tiers; the operator is not running yet."""
    connection = await connect(kubeconfig)
    path = f"/apis/modeltiers.dev/v1alpha1/namespaces/{namespace}/modeltiers"
    await send(connection, [("POST", path, tier(f"t{n}", namespace), "application/json") for n in range(count)])
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


def replica_sets(cluster: Cluster) -> int:
    """How many Deployments their controller has taken up."""
    return len(cluster.kubectl("get", "replicasets", "-n", "tiers", "-o", "name").stdout.splitlines())


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
        for namespace in ("bare", "tiers"):
            cluster.create_namespace(namespace)
        install(cluster)
        asyncio.run(create_tiers(cluster.kubeconfig, "bare", count))
        for controller in CONTROLLERS:
            cluster.stop(controller)
        print(f"bare client: {5 * count} applies", flush=True)
        skip = len(cluster.requests())
        asyncio.run(bare(cluster.kubeconfig, count))
        peer = span(cluster.requests()[skip:], APPLIED)
        asyncio.run(forget(cluster.kubeconfig, "bare"))
        asyncio.run(create_tiers(cluster.kubeconfig, "tiers", count))
        print(f"operator: {count} tiers", flush=True)
        measured(cluster, count, peer)
    return 0


async def forget(kubeconfig: Path, namespace: str) -> None:
    """Delete the bare client's tiers and children, so that the operator finds nothing of them."""
    connection = await connect(kubeconfig)
    roots = ["/apis/apps/v1/{}/deployments", "/apis/modeltiers.dev/v1alpha1/{}/modeltiers", "/api/v1/{}/services"]
    roots += ["/apis/policy/v1/{}/poddisruptionbudgets"]
    where = f"namespaces/{namespace}"
    await send(connection, [("DELETE", root.format(where), {}, "application/json") for root in roots])
    await connection.close()


def measured(cluster: Cluster, count: int, peer: Span) -> None:
    """Run the operator over the tiers, then with the controllers back, then anew; print what each took."""
    with OperatorProcess(cluster, STATE) as operator:
        began = time.monotonic()
        while operator.metric("modeltiers_reconcile_total") < count and time.monotonic() - began < 300:
            time.sleep(0.5)
        wait_quiet(cluster)
        requests = cluster.requests(USER)
        ours, cpu = span(requests, APPLIED), operator.cpu_seconds()
        writes = Counter(f"{r.verb} {r.resource}" for r in requests if r.writes and r.resource in APPLIED)
        print(f"controllers back ({time.monotonic() - began:.0f} s)", flush=True)
        for controller in CONTROLLERS:
            cluster.start(controller)
        # On a busy machine they say nothing for longer than a quiet one is waited for.
        wait_until(lambda: replica_sets(cluster) >= count, "a ReplicaSet for each Deployment", 300, poll=1)
        wait_quiet(cluster)
        memory = operator.rss_mib()
    before = sum(1 for r in cluster.requests(USER) if r.writes and r.resource != "leases")
    with OperatorProcess(cluster, STATE, name="operator-1") as again:
        print("operator anew", flush=True)
        end = time.monotonic() + 120
        while again.metric("modeltiers_reconcile_total") < count and time.monotonic() < end:
            time.sleep(0.5)
        wait_quiet(cluster)
        served, again_memory = again.metric("modeltiers_reconcile_total"), again.rss_mib()
    after = sum(1 for r in cluster.requests(USER) if r.writes and r.resource != "leases")
    rows = [
        ("applied, s", f"{peer.seconds:.2f}", f"{ours.seconds:.2f}", f"{ours.seconds / peer.seconds:.2f}", "<= 1.5"),
        ("applies", f"{peer.writes}", f"{ours.writes}", f"{ours.writes / peer.writes:.2f}", ""),
        ("applies a second", f"{peer.writes / peer.seconds:.0f}", f"{ours.writes / ours.seconds:.0f}", "", ""),
        ("processor time, s", "", f"{cpu:.1f}", "", ""),
        ("resident memory, MiB", "", f"{memory:.0f}", "", "<= 200"),
        ("resident memory after a restart, MiB", "", f"{again_memory:.0f}", "", "<= 200"),
        ("writes after a restart", "", f"{after - before}", "", "0"),
        ("reconciles after a restart", "", f"{served:.0f}", "", ""),
        ("one plan, ms", "", f"{plan_milliseconds():.2f}", "", "<= 1"),
    ]
    print(f"\n{f'{count} tiers':38}{'bare client':>13}{'operator':>11}{'ratio':>8}{'target':>9}")
    for what, bare_side, our_side, ratio, target in rows:
        print(f"{what:38}{bare_side:>13}{our_side:>11}{ratio:>8}{target:>9}")
    print("\nthe operator's applies: " + ", ".join(f"{n} x {what}" for what, n in writes.most_common()))


if __name__ == "__main__":
    sys.exit(main())
