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
_ENDS = frozenset({"Rejected", "Inconclusive", "BudgetExhausted"})


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
    tour.chapter("A teacher serves", "A tiny model that was trained on the task; the engine is vLLM.")
    made.apply(made.teacher())
    made.wait_ready("mt/teacher")
    tour.chapter(
        "A DistillJob, and a tier that follows it",
        "The tier's model is distill://reader: until a student is promoted it serves the untrained base.",
    )
    began = time.monotonic()
    made.apply(made.student(), made.job())
    _watch(tour, made, JOB, "Promoted")
    tour.say(f"from kubectl apply to a promoted student: {time.monotonic() - began:.0f} s")
    tour.kubectl("get", "dj,mt", "-n", NAMESPACE)
    _refused(tour, made)
    _cannot_say(tour, made)
    _back(tour, made)
    print(f"\n{BOLD}Everything above ran for real, but the GPUs and the size of the models.{END}")


def _refused(tour: Tour, made: School) -> None:
    tour.chapter(
        "A student that learnt nothing is refused",
        "The same data and teacher, another recipe: what both jobs have in common is found in the store.",
    )
    made.apply(made.job("lazy", training=dict(models.BAD_STUDENT), promotion={}))
    _watch(tour, made, "lazy", "Rejected")


def _cannot_say(tour: Tour, made: School) -> None:
    tour.chapter("Too few items to say", "A margin of a tenth of a point takes more sealed items than there are.")
    made.apply(made.job("strict", gate={"marginPermille": 1}, promotion={}))
    _watch(tour, made, "strict", "Inconclusive")


def _back(tour: Tour, made: School) -> None:
    tour.chapter("The way back", "An annotation that names the artifact takes the student out of its tier.")
    digest = made.get("dj", JOB)["status"]["artifact"]["digest"]
    tour.kubectl("annotate", "-n", NAMESPACE, "dj", JOB, f"{GROUP}/rollback={digest}")
    _watch(tour, made, JOB, "RolledBack")
    end = time.monotonic() + 240
    while made.get("mt", "small")["status"]["model"] != "pvc://models/base" and time.monotonic() < end:
        time.sleep(0.5)
    made.wait_ready("mt/small")
    tour.kubectl("get", "dj,mt", "-n", NAMESPACE)


def _watch(tour: Tour, made: School, name: str, wanted: str) -> None:
    """Print a line for each change, as `kubectl get dj -w` does, until the job is at the wanted end."""
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
        if complete.get("status") == "True" and complete["reason"] == wanted:
            tour.say(complete["message"])
            return
        if stalled.get("status") == "True" or (complete.get("status") == "True" and complete["reason"] in _ENDS):
            why = stalled if stalled.get("status") == "True" else complete
            raise HarnessError(f"{name}: {why['reason']}: {why['message']}\n{made.describe()[-6000:]}")
        time.sleep(0.5)
    raise HarnessError(f"{name} is not at its end after {LONGEST} s\n{made.describe()[-6000:]}")


if __name__ == "__main__":
    sys.exit(main())
