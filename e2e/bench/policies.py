"""What one change costs the operator when there are many policies: 500 over 1,000 tiers with simulated pods.

    python -m e2e.bench.policies

The same changes are made with few policies and with all of them, in one run: a policy's spec, a pod's readiness. Calls
are counted in the API server's audit log, and times are its own. The routers of simulated pods cannot be asked, and
their addresses may swallow what is sent to them, so this is also what a thousand unreachable routers cost.
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from e2e.bench.bare import send
from e2e.cluster import Cluster, NodePool, replays
from e2e.cluster.audit import Follower, Request
from e2e.operator_process import ROOT, USER, OperatorProcess, install
from modeltiers import names
from modeltiers.kube.session import connect

STATE = ROOT / ".state/bench-policies"
TIER = yaml.safe_load((ROOT / "examples/ladder/small.yaml").read_text())
PLACE = "policies"
POLICIES = f"/apis/{names.API_VERSION}/namespaces/{PLACE}/routingpolicies"
TIERS = f"/apis/{names.API_VERSION}/namespaces/{PLACE}/modeltiers"
MERGE = "application/merge-patch+json"
SETTINGS = {"router": {"image": "example.com/router:1", "entryReturnSeconds": 3600}}
GPUS = 8
LAG = "modeltiers_loop_lag_seconds"
CHANGES = 100
"""Changes whose time is taken."""


def tier(number: int) -> dict[str, Any]:
    """One of the thousand, which takes one GPU."""
    return {**TIER, "metadata": {"name": f"t{number}", "namespace": PLACE}, "spec": {**TIER["spec"], "replicas": 1}}


def policy(number: int) -> dict[str, Any]:
    """One of the five hundred, over two tiers of its own."""
    spec: dict[str, Any] = {
        "model": f"model-{number}",
        "tiers": [{"name": f"t{2 * number}"}, {"name": f"t{2 * number + 1}"}],
        "mode": "Cascade",
        "accept": {"confidence": {}, "thresholdPermille": 600},
        "classify": [{"name": "code", "when": {"keywords": ["function", "compile"]}, "floor": f"t{2 * number + 1}"}],
    }
    metadata = {"name": f"p{number}", "namespace": PLACE}
    return {"apiVersion": names.API_VERSION, "kind": "RoutingPolicy", "metadata": metadata, "spec": spec}


@dataclass
class Figures:
    """What was measured with one number of policies."""

    policies: int
    calls: dict[str, Counter[str]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    cpu: float = 0.0
    """Processor seconds of one change."""

    def told(self) -> str:
        """In a line, for whoever watches."""
        calls = ", ".join(f"{calls.total()} calls when {what}" for what, calls in self.calls.items())
        return f"{calls}; a table written after {self.percentile(50):.0f} ms (p99 {self.percentile(99):.0f} ms)"

    def percentile(self, place: int) -> float:
        """Milliseconds from a change to its tables."""
        return statistics.quantiles(self.latencies, n=100)[place - 1] * 1000


@dataclass
class Bench:
    """A cluster with tiers, the operator, and what it asks of the API server."""

    cluster: Cluster
    operator: OperatorProcess
    calls: Follower

    def post(self, path: str, bodies: Iterable[dict[str, Any]]) -> None:
        """Create objects."""
        self._send([("POST", path, body, "application/json") for body in bodies])

    def _send(self, calls: list[tuple[str, str, dict[str, Any], str]]) -> list[dict[str, Any]]:
        async def whole() -> list[dict[str, Any]]:
            connection = await connect(self.cluster.kubeconfig)
            try:
                return await send(connection, calls)
            finally:
                await connection.close()

        return asyncio.run(whole())

    def quiet(self, seconds: float = 4.0, limit: float = 600.0) -> list[Request]:
        """Return what the operator asked until it has asked nothing for a while, watches and leases left out."""
        found: list[Request] = []
        end = time.monotonic() + limit
        since = time.monotonic()
        while time.monotonic() - since < seconds:
            if new := [one for one in self.calls.new() if _counts(one)]:
                found += new
                since = time.monotonic()
            if time.monotonic() > end:
                raise SystemExit(f"the operator did not come to rest within {limit:.0f} s:\n{self.operator.tail()}")
            time.sleep(0.05)
        return found

    def change(self, number: int, permille: int) -> None:
        """Change the spec of one policy."""
        self._send([("PATCH", f"{POLICIES}/p{number}", {"spec": {"accept": {"thresholdPermille": permille}}}, MERGE)])

    def seconds_to_tables(self, number: int, permille: int) -> float:
        """Change a policy; returns the time from the API server's answer until both tiers' tables were written."""
        everybody = Follower(self.calls.log)
        self.change(number, permille)
        wanted = {names.table_config_map(f"t{2 * number + side}") for side in (0, 1)}
        asked = written = ""
        end = time.monotonic() + 60
        while wanted:
            for one in everybody.new():
                if one.resource == "routingpolicies" and one.user != USER and one.writes:
                    asked = one.at
                if one.resource == "configmaps" and one.user == USER and one.writes and one.name in wanted:
                    wanted.discard(one.name)
                    written = one.at
            if time.monotonic() > end:
                raise SystemExit(f"no table within 60 s:\n{self.operator.tail()}")
            time.sleep(0.01)
        return (datetime.fromisoformat(written) - datetime.fromisoformat(asked)).total_seconds()

    def set_ready(self, number: int, ready: bool) -> None:
        """Say of a tier's pod that it is ready or not, as its kubelet would."""
        label = f"{names.LABEL_TIER}=t{number}"
        pod = self.cluster.kubectl("get", "pods", "-n", PLACE, "-l", label, "-o", "name").stdout.strip()
        # A replay that there is not: the simulated kubelet leaves the pod alone.
        mark = f"{replays.ANNOTATION}-" if ready else f"{replays.ANNOTATION}=none"
        self.cluster.kubectl("annotate", "-n", PLACE, pod, mark)
        if not ready:
            said = {"status": "False", "lastTransitionTime": datetime.now(UTC).isoformat(timespec="seconds")}
            patch = {"status": {"conditions": [{"type": kind, **said} for kind in ("Ready", "ContainersReady")]}}
            self.cluster.kubectl("patch", "-n", PLACE, pod, "--subresource=status", "-p", json.dumps(patch))


def _counts(one: Request) -> bool:
    """Whether it is a call for an object; what the server is and serves is asked twice a minute, whatever there is."""
    return one.verb != "watch" and one.resource not in ("", "leases")


def counted(requests: Sequence[Request]) -> Counter[str]:
    """Calls by verb and resource."""
    return Counter(f"{one.verb} {one.resource}{'/' if one.subresource else ''}{one.subresource}" for one in requests)


def measure(bench: Bench, policies: int, entry: int) -> Figures:
    """Make the changes with this number of policies there; `entry` is the tier that loses its pod."""
    figures = Figures(policies)
    bench.quiet()
    bench.change(0, 600 + policies % 97)
    figures.calls["one policy changed"] = counted(bench.quiet())
    bench.set_ready(entry, False)
    figures.calls["one entry tier lost its pod"] = counted(bench.quiet())
    bench.set_ready(entry, True)
    figures.calls["and has it again"] = counted(bench.quiet())
    cpu = bench.operator.cpu_seconds()
    for turn in range(CHANGES):
        figures.latencies.append(bench.seconds_to_tables(3 + turn % (policies - 3), 300 + turn + policies % 97))
    bench.quiet()
    figures.cpu = (bench.operator.cpu_seconds() - cpu) / CHANGES
    return figures


def rest(bench: Bench, seconds: float = 60.0) -> tuple[Counter[str], float, float]:
    """Leave everything alone; returns the operator's calls, its processor seconds, and the latest its loop ran."""
    bench.quiet()
    cpu, end = bench.operator.cpu_seconds(), time.monotonic() + seconds
    while time.monotonic() < end:
        bench.operator.metric(LAG)  # as often as Prometheus asks: each time costs
        time.sleep(15)
    calls = counted([one for one in bench.calls.new() if _counts(one)])
    cpu = bench.operator.cpu_seconds() - cpu
    late, end = 0.0, time.monotonic() + seconds / 2
    while time.monotonic() < end:  # apart, since to look this often costs more than all the rest
        late = max(late, bench.operator.metric(LAG))
        time.sleep(0.5)
    return calls, cpu, late


def settle(bench: Bench, tiers: int) -> None:
    """Wait until every tier has its pod ready and the operator has said so."""
    end = time.monotonic() + 1800
    while time.monotonic() < end:
        said = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        ready = bench.cluster.kubectl("get", "mt", "-n", PLACE, "-o", f"jsonpath={said}").stdout.split().count("True")
        if ready == tiers:
            return
        time.sleep(3)
    raise SystemExit(f"not every tier is ready: {ready} of {tiers}\n{bench.operator.tail()}")


def run(few: int, many: int, tiers: int) -> None:
    """Run everything and print the tables."""
    shutil.rmtree(STATE, ignore_errors=True)
    pool = NodePool("gpu", -(-tiers // GPUS), gpus=GPUS)
    with Cluster(STATE, name="bench-policies", tied=True, pools=[pool]) as cluster:
        cluster.create_namespace(PLACE)
        install(cluster)
        with OperatorProcess(cluster, STATE, settings=SETTINGS) as operator:
            bench = Bench(cluster, operator, Follower(cluster.audit_log, USER))
            print(f"{tiers} tiers with a pod each", flush=True)
            began = time.monotonic()
            bench.post(TIERS, (tier(number) for number in range(tiers)))
            settle(bench, tiers)
            print(f"  ready after {time.monotonic() - began:.0f} s; {few} policies", flush=True)
            bench.post(POLICIES, (policy(number) for number in range(few)))
            first = measure(bench, few, entry=2)
            print(f"  {first.told()}", flush=True)
            print(f"  {many} policies", flush=True)
            bench.post(POLICIES, (policy(number) for number in range(few, many)))
            spread = span(bench.quiet())
            last = measure(bench, many, entry=4)
            print(f"  {last.told()}; a minute of rest", flush=True)
            resting = rest(bench)
            memory = operator.rss_mib()
        print("  the operator anew", flush=True)
        again = restart(cluster, tiers + many)
    report(first, last, many - few, spread, resting, memory, again)


def span(requests: Sequence[Request]) -> float:
    """Seconds from the first to the last table that was written."""
    times = [datetime.fromisoformat(one.at) for one in requests if one.resource == "configmaps" and one.writes]
    return (max(times) - min(times)).total_seconds()


def restart(cluster: Cluster, objects: int) -> tuple[Counter[str], float, float]:
    """Start the operator anew; returns what it wrote, the seconds until all was looked at, and its memory."""
    calls = Follower(cluster.audit_log, USER)
    began = time.monotonic()
    with OperatorProcess(cluster, STATE, name="operator-1", settings=SETTINGS) as operator:
        while operator.metric("modeltiers_reconcile_total") < objects and time.monotonic() - began < 300:
            time.sleep(0.2)
        took = time.monotonic() - began
        found = Bench(cluster, operator, calls).quiet()
        return counted([one for one in found if one.writes]), took, operator.rss_mib()


def report(
    first: Figures,
    last: Figures,
    added: int,
    spread: float,
    resting: tuple[Counter[str], float, float],
    memory: float,
    again: tuple[Counter[str], float, float],
) -> None:
    """Print what was measured, beside what it is held against."""
    columns = [f"{one.policies} policies" for one in (first, last)]
    print(f"\n{'calls of the operator':34}{columns[0]:>14}{columns[1]:>14}{'target':>10}")
    for what, calls in first.calls.items():
        print(f"{what:34}{calls.total():>14}{last.calls[what].total():>14}{'equal':>10}")
        print(f"    {', '.join(f'{n} x {call}' for call, n in last.calls[what].most_common())}")
    slow, fast = last.cpu * 1000, first.cpu * 1000
    print(f"{'processor time of a change, ms':34}{fast:>14.1f}{slow:>14.1f}{'<= 1.5 x':>10}")
    for place in (50, 99):
        ms = [one.percentile(place) for one in (first, last)]
        print(f"{f'applied to tables written, ms p{place}':34}{ms[0]:>14.0f}{ms[1]:>14.0f}{'<= 1000':>10}")
    calls, cpu, late = resting
    print(f"\n{f'{added} policies at once, s':34}{spread:>14.1f}")
    print(f"{'calls in a minute of rest':34}{calls.total():>14}{'':14}{'0':>10}")
    print(f"{'processor time of that minute, s':34}{cpu:>14.1f}")
    print(f"{'latest the loop ran, s':34}{late:>14.2f}")
    print(f"{'resident memory, MiB':34}{memory:>14.0f}{'':14}{'<= 250':>10}")
    print(f"{'writes after a restart':34}{again[0].total():>14}{'':14}{'0':>10}")
    print(f"{'all looked at after a restart, s':34}{again[1]:>14.1f}")
    print(f"{'resident memory then, MiB':34}{again[2]:>14.0f}{'':14}{'<= 250':>10}")


def main() -> int:
    """Run with the numbers of the command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.policies", description=__doc__)
    parser.add_argument("--few", type=int, default=50)
    parser.add_argument("--policies", type=int, default=500)
    parser.add_argument("--tiers", type=int, default=1000)
    asked = parser.parse_args()
    run(asked.few, asked.policies, max(asked.tiers, 2 * asked.policies))
    return 0


if __name__ == "__main__":
    sys.exit(main())
