"""`make soak`: tiers come, change and go for some minutes; the operator's memory and descriptors must stay flat.

It ends by itself. Exit status 1 when something grew, when a tier was left behind, or when the operator reported a bug.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from e2e.bench.__main__ import EXAMPLE
from e2e.cluster import Cluster, NodePool
from e2e.operator_process import ROOT, OperatorProcess, install

STATE = ROOT / ".state/soak"
TIERS = 40
GROWTH_MIB = 12
GROWTH_FILES = 10


def main() -> int:
    """Churn and measure."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    shutil.rmtree(STATE, ignore_errors=True)
    with Cluster(STATE, name="soak", tied=True, pools=[NodePool("h100", 8)]) as cluster:
        cluster.create_namespace("soak")
        install(cluster)
        with OperatorProcess(cluster, STATE) as operator:
            return _judge(_churn(cluster, operator, options.minutes * 60), operator)


def _churn(cluster: Cluster, operator: OperatorProcess, seconds: float) -> list[tuple[float, int]]:
    """Apply, change, scale and delete tiers at random, the same way every time; returns a sample a round."""
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    samples: list[tuple[float, int]] = []
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        bodies = [_tier(f"t{dice.randrange(TIERS)}", dice) for _ in range(10)]
        text = "\n---\n".join(json.dumps(body) for body in bodies)
        cluster.kubectl("apply", "-n", "soak", "--server-side", "--force-conflicts", "-f", "-", input=text)
        gone = [f"t{dice.randrange(TIERS)}" for _ in range(4)]
        cluster.kubectl("delete", "mt", "-n", "soak", "--ignore-not-found", "--wait=false", *gone)
        time.sleep(1.5)
        rounds += 1
        samples.append((operator.rss_mib(), len(list(Path(f"/proc/{operator.process.pid}/fd").iterdir()))))
        if rounds % 10 == 0:
            memory, files = samples[-1]
            served = operator.metric("modeltiers_reconcile_total")
            print(f"round {rounds}: {memory:.0f} MiB, {files} descriptors, {served:.0f} reconciles", flush=True)
    return samples


def _tier(name: str, dice: random.Random) -> dict[str, Any]:
    spec = {**EXAMPLE["spec"], "replicas": dice.randrange(3), "sizing": {"concurrency": dice.choice([8, 16, 32])}}
    return {**EXAMPLE, "metadata": {"name": name}, "spec": spec}


def _judge(samples: list[tuple[float, int]], operator: OperatorProcess) -> int:
    """Compare the second third with the last: the first third is warming up."""
    third = len(samples) // 3
    early, late = samples[third : 2 * third], samples[2 * third :]
    grown = max(m for m, _ in late) - max(m for m, _ in early)
    files = max(f for _, f in late) - max(f for _, f in early)
    bugs = operator.metric("modeltiers_reconcile_errors_total", reason="Bug")
    depth = operator.metric("modeltiers_queue_depth")
    print(f"{len(samples)} rounds; memory grew by {grown:.1f} MiB (limit {GROWTH_MIB})")
    print(f"descriptors grew by {files} (limit {GROWTH_FILES})")
    print(f"reconciles that failed by a bug: {bugs:.0f}; queue at the end: {depth:.0f}")
    return 1 if grown > GROWTH_MIB or files > GROWTH_FILES or bugs else 0


if __name__ == "__main__":
    sys.exit(main())
