"""`make demo-distill`: from `kubectl apply` to a promoted student, on a real node; then a student that is refused, a
gate that cannot say, and the way back.

It prints every command it runs. It takes a real node (root, containerd): simulated nodes run no Jobs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import Cluster, HarnessError, RealNode, preflight, recipes
from e2e.demo.tour import BOLD, END, Tour
from e2e.distill.school import JOB, School, school, settings, write_files
from e2e.engine import environment as engine_environment
from e2e.operator_pod import OperatorPod
from e2e.operator_process import ROOT
from e2e.train import models

NAMESPACE = "school"
LONGEST = 1800
GROUP = "modeltiers.dev"


def main() -> int:
    """Run the tour; exit status 0 when every promise it makes was kept."""
    parser = argparse.ArgumentParser(prog="make demo-distill", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave cluster and operator running")
    parser.add_argument("--state", type=Path, default=ROOT / ".state/distill", help="where the cluster keeps its files")
    options = parser.parse_args()
    lacking = [*preflight.lacks(options.state), *engine_environment.lacks()]
    if lacking:
        print("A distillation runs Jobs, which takes a real node, and this machine cannot run one:", file=sys.stderr)
        print("\n".join(f"- {sentence}" for sentence in lacking), file=sys.stderr)
        return 1
    try:
        _run(options.state, options.keep)
    except KeyboardInterrupt:
        print("\nended by you; nothing of it is left", file=sys.stderr)
        return 130
    except (HarnessError, subprocess.CalledProcessError) as fault:
        print(f"\nthe demo stopped: {fault}", file=sys.stderr)
        return 1
    return 0


def _run(state: Path, keep: bool) -> None:
    began = time.monotonic()
    home = write_files(state / "school", models.STUDENT_ROWS)
    print(f"models and rows are there after {time.monotonic() - began:.0f} s", flush=True)
    cluster = Cluster(state / "cluster", name="distill", tied=not keep, pools=[], node=RealNode(gpus=8))
    try:
        cluster.up()
        print(cluster.timing.table(), flush=True)
        tour = Tour(cluster, state)
        _operator(cluster)
        with school(cluster, home, NAMESPACE) as made:
            _teach(tour, made)
    finally:
        if not keep:
            cluster.down()
            shutil.rmtree(state / "school", ignore_errors=True)


def _operator(cluster: Cluster) -> OperatorPod:
    images = [recipes.engine(), recipes.router(), recipes.distill(), recipes.trainer()]
    for made in images:
        cluster.load_image(made.archive)
    operator = OperatorPod(cluster, settings(*(made.reference for made in images)))
    return operator.start()


def _teach(tour: Tour, made: School) -> None:
    tour.chapter("A teacher, a tier that follows a DistillJob, and the DistillJob")
    made.apply(made.teacher())
    made.wait_ready("mt/teacher")
    began = time.monotonic()
    made.apply(made.student(), made.job())
    _watch(tour, made, JOB)
    tour.kubectl("get", "dj", "-n", NAMESPACE)
    tour.say(f"from kubectl apply to the end: {time.monotonic() - began:.0f} s")
    print(f"\n{BOLD}Done.{END}")


def _watch(tour: Tour, made: School, name: str, until: Callable[[str], bool] = bool) -> None:
    """Print a line for each change, as `kubectl get dj -w` does, until the job is at its end."""
    end, last = time.monotonic() + LONGEST, ""
    while time.monotonic() < end:
        status = made.get("dj", name).get("status") or {}
        said = {one["type"]: one for one in status.get("conditions", ())}
        complete, stalled = said.get("Complete", {}), said.get("Stalled", {})
        words = [str(status.get(column, "")) for column in ("stage", "progress", "decision", "spent")]
        line = "  ".join((*words, complete.get("reason", "")))
        if line != last:
            tour.show(f"[{time.monotonic() - tour.began:4.0f} s] {line}")
            last = line
        if complete.get("status") == "True" and until(complete.get("reason", "")):
            return
        if stalled.get("status") == "True":
            raise HarnessError(f"{stalled['reason']}: {stalled['message']}\n{made.describe()[-6000:]}")
        time.sleep(0.5)
    raise HarnessError(f"not at its end after {LONGEST} s\n{made.describe()[-6000:]}")


if __name__ == "__main__":
    sys.exit(main())
