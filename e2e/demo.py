"""`make demo`: a guided tour over real parts. A control plane, the operator, a ladder of two tiers, one failure on
purpose.

It prints every command it runs, so that a reader can run it again; what is simulated (the GPU nodes) is said.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from e2e.cluster import Cluster, ExternalCluster, HarnessError, NodePool
from e2e.operator_process import NAMESPACE, ROOT, OperatorProcess, install

STATE = ROOT / ".state/demo"
TIERS = "demo"
BOLD, DIM, END = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Tour:
    """Prints what happens and runs it."""

    def __init__(self, cluster: Cluster | ExternalCluster) -> None:
        self.cluster = cluster
        self.began = time.monotonic()
        self.step = 0

    def chapter(self, title: str, text: str = "") -> None:
        """Begin a step of the tour."""
        self.step += 1
        print(f"\n{BOLD}{self.step}. {title}{END}  {DIM}[{time.monotonic() - self.began:.0f} s]{END}")
        if text:
            print(textwrap.fill(text, 110, initial_indent="   ", subsequent_indent="   "))

    def kubectl(self, *args: str, show: bool = True, check: bool = True) -> str:
        """Run kubectl, print the command and what it says."""
        print(f"   {DIM}$ kubectl {shlex.join(args)}{END}")
        done = self.cluster.kubectl(*args, check=check)
        text = (done.stdout + done.stderr).rstrip()
        if show and text:
            print(textwrap.indent(text, "   "))
        return text


def main() -> int:
    """Run the tour; exit status 0 when every promise it makes was kept."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave cluster and operator running")
    parser.add_argument("--context", help="use this context of your kubeconfig instead of a private cluster")
    options = parser.parse_args()
    try:
        with _cluster(options.context, options.keep) as cluster:
            tour = Tour(cluster)
            with contextlib.ExitStack() as stack:
                operator = _operator(tour, stack, options.keep)
                _ladder(tour)
                _explained(tour)
                _failure(tour)
                _numbers(tour, operator)
                _farewell(tour, operator, options.keep, options.context)
    except (HarnessError, subprocess.CalledProcessError) as fault:
        detail = f"\n{fault.stderr}" if isinstance(fault, subprocess.CalledProcessError) and fault.stderr else ""
        print(f"\nthe demo stopped: {fault}{detail}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _cluster(context: str | None, keep: bool) -> Iterator[Cluster | ExternalCluster]:
    if context:
        print(f"Using your cluster behind context {context}: CRD, RBAC and the namespace {TIERS} are applied to it.")
        yield ExternalCluster(context, STATE)
        return
    print(
        "A private Kubernetes on this machine: etcd, API server, controllers and scheduler are real; the two nodes with"
    )
    print(
        "eight H100 each are simulated by kwok. The first time, the programs are built from source (about 8 minutes).\n"
    )
    cluster = Cluster(STATE, name="demo", tied=not keep, pools=[NodePool("h100", 2)], start_delay=2)
    cluster.up()
    print(cluster.timing.table())
    try:
        yield cluster
    finally:
        if not keep:
            cluster.down()


def _operator(tour: Tour, stack: contextlib.ExitStack, keep: bool) -> OperatorProcess:
    tour.chapter(
        "Install the resources and the operator's rights", "The operator runs as its own ServiceAccount, not as admin."
    )
    install(tour.cluster)
    tour.kubectl(
        "auth", "can-i", "get", "secrets", f"--as=system:serviceaccount:{NAMESPACE}:modeltiers-operator", check=False
    )
    operator = OperatorProcess(tour.cluster, STATE, settings={"limits": {"unschedulableDeadlineSeconds": 60}})
    began = time.monotonic()
    operator.start(tied=not keep)
    print(f"   the operator is ready after {time.monotonic() - began:.1f} s; log: {operator.log.relative_to(ROOT)}")
    if not keep:
        stack.callback(operator.stop)
    return operator


def _ladder(tour: Tour) -> None:
    tour.chapter(
        "Apply a ladder of two tiers",
        "A distilled 7B model and a distilled 70B model. The files say nothing of GPU counts or tensor parallelism.",
    )
    tour.cluster.kubectl("create", "namespace", TIERS, check=False)
    tour.kubectl("apply", "--server-side", "-n", TIERS, "-k", str((ROOT / "examples/ladder").relative_to(Path.cwd())))
    tour.kubectl("wait", "-n", TIERS, "--for=condition=Ready", "modeltier", "--all", "--timeout=60s")
    tour.kubectl("get", "tiering", "-n", TIERS)
    tour.kubectl("get", "mt", "-n", TIERS, "-o", "wide", show=True)


def _explained(tour: Tour) -> None:
    tour.chapter("Why these GPUs", "The same arithmetic without a cluster, term by term. Every number is a prediction.")
    command = ["modeltiers", "plan", "-f", str(Path("examples/ladder/large.yaml"))]
    print(f"   {DIM}$ {shlex.join(command)}{END}")
    plan = subprocess.run(
        [sys.executable, "-m", "modeltiers.cli.main", *command[1:]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
    )
    print(textwrap.indent(plan.stdout.rstrip(), "   "))
    tour.chapter("What the tiers became", "Owned by the tier, so that it all goes with it, operator or not.")
    tour.kubectl(
        "get", "-n", TIERS, "deployments,services,serviceaccounts,poddisruptionbudgets", "-l", "modeltiers.dev/tier"
    )
    tour.kubectl("get", "-n", TIERS, "pods", "-o", "wide")


def _failure(tour: Tour) -> None:
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


def _numbers(tour: Tour, operator: OperatorProcess) -> None:
    tour.chapter("What the operator says of itself")
    wanted = (
        "modeltiers_queue",
        "modeltiers_reconcile_total",
        "modeltiers_watch_age",
        "modeltiers_writes_total",
        "modeltiers_leading",
    )
    lines = [line for line in operator.get("/metrics")[1].splitlines() if line.startswith(wanted)]
    print(textwrap.indent("\n".join(lines), "   "))
    print(f"   resident memory {operator.rss_mib():.0f} MiB, processor time {operator.cpu_seconds():.1f} s")


def _farewell(tour: Tour, operator: OperatorProcess, keep: bool, context: str | None) -> None:
    if keep:
        tour.chapter("Left running for you")
        kubeconfig = (
            f"export KUBECONFIG={tour.cluster.kubeconfig}"
            if isinstance(tour.cluster, Cluster)
            else f"kubectl --context {context}"
        )
        print(
            f"   {kubeconfig}\n   kubectl get tiering -A\n"
            f"   operator: process {operator.process.pid}, port {operator.port}"
        )
        print("   make clean ends it all" if not context else f"   kubectl delete namespace {TIERS} removes the tiers")
        return
    tour.chapter("The end: the tiers go, and everything they owned with them")
    print("   (The garbage collector looks for new kinds every 30 s, and ours is new here.)")
    tour.kubectl("delete", "mt", "--all", "-n", TIERS, "--wait=true")
    _gone(tour)
    print(f"\n{BOLD}Everything above ran for real, but the GPU nodes.{END} `make demo KEEP=1` leaves it running.")


def _gone(tour: Tour, timeout: float = 90) -> None:
    end = time.monotonic() + timeout
    left: Sequence[str] = ["?"]
    while left and time.monotonic() < end:
        left = tour.cluster.kubectl(
            "get", "deployments,services,pods", "-n", TIERS, "-l", "modeltiers.dev/tier", "-o", "name"
        ).stdout.split()
        time.sleep(0.2)
    if left:
        raise HarnessError(f"still there after {timeout:.0f} s: {', '.join(left)}")
    print("   no Deployment, Service or Pod of theirs is left")


if __name__ == "__main__":
    sys.exit(main())
