"""The first half of the tour: tiers for large GPUs, planned and explained. Their nodes are simulated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from e2e.cluster import HarnessError
from e2e.demo.tour import Tour, of_here
from e2e.operator_process import ROOT

TIERS = "demo"


class Operator(Protocol):
    """The operator, as a process or as a Pod."""

    def get(self, path: str) -> tuple[int, str]:
        """Ask its health server."""
        ...


def tiers(tour: Tour) -> None:
    """From two files to Ready, and why."""
    tour.chapter(
        "Apply a ladder of two tiers",
        "A distilled 7B model and a distilled 70B model. The files say nothing of GPU counts or tensor parallelism.",
    )
    tour.cluster.kubectl("create", "namespace", TIERS, check=False)
    tour.kubectl("apply", "--server-side", "-n", TIERS, "-k", of_here(ROOT / "examples/ladder"))
    tour.kubectl("wait", "-n", TIERS, "--for=condition=Ready", "modeltier", "--all", "--timeout=60s")
    tour.kubectl("get", "tiering", "-n", TIERS)
    tour.kubectl("get", "mt", "-n", TIERS, "-o", "wide")
    tour.chapter("Why these GPUs", "The same arithmetic without a cluster, term by term. Every number is a prediction.")
    tour.python("modeltiers.cli.main", "plan", "-f", "examples/ladder/large.yaml", said="modeltiers")
    tour.chapter("What the tiers became", "Owned by the tier, so that it all goes with it, operator or not.")
    tour.kubectl(
        "get", "-n", TIERS, "deployments,services,serviceaccounts,poddisruptionbudgets", "-l", "modeltiers.dev/tier"
    )
    tour.kubectl("get", "-n", TIERS, "pods", "-o", "wide")


def failure(tour: Tour) -> None:
    """Break one on purpose."""
    tour.chapter(
        "A failure on purpose",
        "Five replicas of the 70B model want more GPUs than the two nodes have. Nobody has to read pods to see why.",
    )
    tour.kubectl("scale", "-n", TIERS, "mt/large", "--replicas=5")
    _until(tour, "large", "Unschedulable")
    tour.kubectl("get", "mt", "-n", TIERS)
    path = '{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\\n"}{end}'
    tour.kubectl("get", "mt/large", "-n", TIERS, "-o", f"jsonpath={path}")
    tour.kubectl("get", "events", "-n", TIERS, "--field-selector=involvedObject.kind=ModelTier")
    tour.kubectl("scale", "-n", TIERS, "mt/large", "--replicas=1")
    tour.kubectl("wait", "-n", TIERS, "--for=condition=Ready", "mt/large", "--timeout=60s")


def _until(tour: Tour, tier: str, reason: str, timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    path = 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}'
    while tour.cluster.kubectl("get", "mt", tier, "-n", TIERS, "-o", path).stdout != reason:
        if time.monotonic() > end:
            raise HarnessError(f"tier {tier} did not become {reason} within {timeout:.0f} s")
        time.sleep(0.2)


def figures(tour: Tour, operator: Operator) -> None:
    """What the operator counts."""
    tour.chapter("What the operator says of itself")
    wanted = (
        "modeltiers_queue",
        "modeltiers_reconcile_total",
        "modeltiers_watch_age",
        "modeltiers_writes_total",
        "modeltiers_leading",
    )
    lines = operator.get("/metrics")[1].splitlines()
    tour.show("\n".join(line for line in lines if line.startswith(wanted)))
    found = {
        name: float(value)
        for name, _, value in (line.partition(" ") for line in lines)
        if "{" not in name and name[:1] != "#"
    }
    rss, cpu = found["process_resident_memory_bytes"] / 2**20, found["process_cpu_seconds_total"]
    tour.say(f"resident memory {rss:.0f} MiB, processor time {cpu:.1f} s")


def end(tour: Tour, *namespaces: str) -> None:
    """Delete what was applied and see that it takes everything along."""
    tour.chapter("The end: the tiers go, and everything they owned with them")
    tour.say("(The garbage collector looks for new kinds every 30 s, and ours is new here.)")
    for namespace in namespaces:
        tour.kubectl("delete", "mt,rp", "--all", "-n", namespace, "--wait=true")
    limit = time.monotonic() + 120
    left: Sequence[str] = ["?"]
    while left and time.monotonic() < limit:
        left = [found for namespace in namespaces for found in _owned(tour, namespace)]
        time.sleep(0.2)
    if left:
        raise HarnessError(f"still there after 120 s: {', '.join(left)}")
    tour.say("no Deployment, Service or Pod of theirs is left")


def _owned(tour: Tour, namespace: str) -> list[str]:
    kinds = "deployments,services,pods"
    return tour.cluster.kubectl("get", kinds, "-n", namespace, "-l", "modeltiers.dev/tier", "-o", "name").stdout.split()
