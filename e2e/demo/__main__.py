"""`make demo`: a control plane, the operator, a ladder of two tiers, a failure on purpose; and where this machine can
run a real node, two tiers that answer, a policy over them, and the numbers.

It prints every command it runs, so that a reader can run it again; what is simulated is said.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e2e import team
from e2e.cluster import Cluster, ExternalCluster, HarnessError, NodePool, RealNode, preflight, recipes
from e2e.demo import ladder
from e2e.demo.policy import NAMESPACE as TEAM
from e2e.demo.policy import policy
from e2e.demo.tour import BOLD, END, Tour, of_here
from e2e.engine import environment
from e2e.operator_pod import OperatorPod
from e2e.operator_process import NAMESPACE, ROOT, OperatorProcess, install

SETTINGS: dict[str, Any] = {"limits": {"unschedulableDeadlineSeconds": 60}}
MEMORY_GIB = 6
NOT_SHOWN = "the router, policies, and any answer of a model"


def main() -> int:
    """Run the tour; exit status 0 when every promise it makes was kept."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave cluster and operator running")
    parser.add_argument("--context", help="use this context of your kubeconfig instead of a private cluster")
    parser.add_argument("--fake", action="store_true", help="simulated nodes only: no root, no vLLM, no answers")
    parser.add_argument("--state", type=Path, default=ROOT / ".state/demo", help="where the cluster keeps its files")
    options = parser.parse_args()
    try:
        with _cluster(options) as cluster:
            _tour(Tour(cluster, options.state), options.keep, options.context)
    except KeyboardInterrupt:
        print("\nended by you; nothing of it is left", file=sys.stderr)
        return 130
    except (HarnessError, subprocess.CalledProcessError) as fault:
        detail = f"\n{fault.stderr}" if isinstance(fault, subprocess.CalledProcessError) and fault.stderr else ""
        print(f"\nthe demo stopped: {fault}{detail}", file=sys.stderr)
        return 1
    return 0


def _tour(tour: Tour, keep: bool, context: str | None) -> None:
    cluster = tour.cluster
    real = isinstance(cluster, Cluster) and cluster.node is not None
    with contextlib.ExitStack() as stack:
        operator = (
            _operator_pod(tour, cluster) if isinstance(cluster, Cluster) and real else _process(tour, stack, keep)
        )
        ladder.tiers(tour)
        ladder.failure(tour)
        if isinstance(cluster, Cluster) and real:
            policy(tour, cluster)
        ladder.figures(tour, operator)
        if keep:
            _kept(tour, operator, context)
            return
        ladder.end(tour, *([ladder.TIERS, TEAM] if real else [ladder.TIERS]))
    if context:
        told = f"in your cluster. Not shown: {NOT_SHOWN}"
    elif real:
        told = "for real, but the nodes with H100s, what the models say, and the GPUs"
    else:
        told = f"for real, but the GPU nodes. Not shown: {NOT_SHOWN}"
    print(f"\n{BOLD}Everything above ran {told}.{END} `make demo KEEP=1` leaves it running.")


@contextlib.contextmanager
def _cluster(options: argparse.Namespace) -> Iterator[Cluster | ExternalCluster]:
    state: Path = options.state
    if options.context:
        where = f"behind context {options.context}: CRDs, RBAC and namespace {ladder.TIERS}"
        print(f"Using your cluster {where} are applied to it.")
        print(f"Left out there: {NOT_SHOWN}; docs/first-policy.md has the steps for a cluster of yours.")
        yield ExternalCluster(options.context, state)
        return
    print("A private Kubernetes on this machine: etcd, API server, controllers and scheduler are real; two nodes with")
    print(
        "eight H100 each are simulated by kwok. The first time, the programs are built from source (about 10 minutes)."
    )
    node = None if options.fake else _node(state)
    if options.fake:
        print(f"As asked, no real node. Left out: {NOT_SHOWN}.")
    print(flush=True)
    cluster = Cluster(state, name="demo", tied=not options.keep, pools=[NodePool("h100", 2)], node=node, start_delay=2)
    try:
        cluster.up()
        print(cluster.timing.table())
        yield cluster
    finally:
        if not options.keep:
            cluster.down()
            shutil.rmtree(state / "models", ignore_errors=True)


def _node(state: Path) -> RealNode | None:
    """The real node, where this machine can run it and an engine; else say plainly what is missing."""
    lacking = [*preflight.lacks(state), *environment.lacks(), *_no_memory()]
    if lacking:
        print(f"This machine cannot run a real node, so the tour leaves out: {NOT_SHOWN}. Why:")
        print("\n".join(f"- {sentence}" for sentence in lacking))
        return None
    print("A third node is real: kubelet, containerd and vLLM, built for the CPU. Its GPUs are claimed.")
    if not environment.ready():
        print(f"First vLLM is installed into {environment.location()}: once a machine, 2 to 4 minutes, 5.5 GB of")
        print("packages checked against their hashes. Ctrl-C ends it; `make demo FAKE=1` does without.", flush=True)
        environment.install()
    return RealNode(gpus=8, enforces_policies=True)


def _no_memory() -> list[str]:
    lines = Path("/proc/meminfo").read_text().splitlines() if sys.platform == "linux" else []
    free = next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable:")), 0.0)
    said = f"{free:.1f} GiB of memory are free; two engines and the cluster take {MEMORY_GIB}: free some"
    return [] if free >= MEMORY_GIB else [said]


def _prepared(tour: Tour) -> None:
    tour.chapter(
        "Install the resources and the operator's rights", "The operator runs as its own ServiceAccount, not as admin."
    )
    install(tour.cluster)
    account = f"--as=system:serviceaccount:{NAMESPACE}:modeltiers-operator"
    tour.kubectl("auth", "can-i", "get", "secrets", account, check=False)


def _process(tour: Tour, stack: contextlib.ExitStack, keep: bool) -> OperatorProcess:
    _prepared(tour)
    operator = OperatorProcess(tour.cluster, tour.state, settings=SETTINGS)
    began = time.monotonic()
    operator.start(tied=not keep)
    tour.say(f"the operator is ready after {time.monotonic() - began:.1f} s; log: {of_here(operator.log)}")
    if not keep:
        stack.callback(operator.close)
    return operator


def _operator_pod(tour: Tour, cluster: Cluster) -> OperatorPod:
    _prepared(tour)
    made = {"router": recipes.router(), "engine": recipes.engine()}
    for one in made.values():
        cluster.load_image(one.archive)
    settings = SETTINGS | team.settings(made["engine"].reference, made["router"].reference)
    began = time.monotonic()
    operator = OperatorPod(cluster, settings).start()
    tour.say("manifests/operator.yaml, with images made on the spot and these settings of the administrator's:")
    tour.kubectl("get", "configmap", "modeltiers-settings", "-n", NAMESPACE, "-o", "jsonpath={.data.settings\\.yaml}")
    tour.kubectl("get", "pods", "-n", NAMESPACE)
    tour.say(f"ready after {time.monotonic() - began:.1f} s")
    return operator


def _kept(tour: Tour, operator: OperatorProcess | OperatorPod, context: str | None) -> None:
    tour.chapter("Left running for you")
    if context:
        print(f"   kubectl delete namespace {ladder.TIERS} removes the tiers")
    else:
        print(f'   eval "$(python -m e2e.cluster env --state {of_here(tour.state)})"; kubectl get tiering -A')
    if isinstance(operator, OperatorProcess):
        print(f"   operator: process {operator.process.pid}, port {operator.port}")
    elif not context:
        print(f"   kubectl port-forward -n {TEAM} svc/support-policy 8080:80, and ask http://127.0.0.1:8080/v1")
    if not context:
        print("   make clean ends it all")


if __name__ == "__main__":
    os.umask(0o022)  # containers run as users that nobody knows here, and must read what is written
    sys.exit(main())
