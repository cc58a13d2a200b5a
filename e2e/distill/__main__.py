"""`make demo-distill`: from `kubectl apply` to a promoted student, on a real node; then a student that is refused, a
gate that cannot say, and the way back.

It prints every command it runs. It takes a real node (root, containerd): simulated nodes run no Jobs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from e2e import team
from e2e.cluster import Cluster, HarnessError, RealNode, preflight, recipes
from e2e.cluster.process import wait_until
from e2e.demo.tour import BOLD, END, Tour, of_here
from e2e.distill.school import JOB, TIER, School, school, settings, write_files, write_key
from e2e.distill.traffic import Traffic, told
from e2e.engine import environment as engine_environment
from e2e.operator_pod import OperatorPod
from e2e.operator_process import ROOT
from e2e.train import models

NAMESPACE = "school"
LONGEST = 1800
GROUP = "modeltiers.dev"
CALM, BUSY = 2.0, 0.1
"""Seconds between two questions of the client: most of the time, and while its answers are counted."""
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
    public_key = write_key(home)
    print(f"models and rows are there after {time.monotonic() - began:.0f} s", flush=True)
    cluster = Cluster(state / "cluster", name="distill", tied=not keep, pools=[], node=RealNode(gpus=8))
    try:
        cluster.up()
        print(cluster.timing.table(), flush=True)
        tour = Tour(cluster, state)
        _operator(cluster, public_key)
        with school(cluster, home, NAMESPACE) as made:
            _teach(tour, made)
    finally:
        if not keep:
            cluster.down()
            shutil.rmtree(state / "school", ignore_errors=True)


def _operator(cluster: Cluster, public_key: str) -> OperatorPod:
    images = [recipes.engine(), recipes.router(), recipes.distill(), recipes.trainer()]
    for made in images:
        cluster.load_image(made.archive)
    engine, router, distill, trainer = (made.reference for made in images)
    return OperatorPod(cluster, settings(engine, router, distill, trainer, public_key=public_key)).start()


def _teach(tour: Tour, made: School) -> None:
    tour.chapter("A teacher serves", "A tiny model that was trained on the task; the engine is vLLM.")
    made.apply(made.teacher())
    made.wait_ready("mt/teacher")
    tour.chapter(
        "A DistillJob, a tier that follows it, and a policy over tier and teacher",
        "The tier's model is distill://reader: until a student is promoted it serves the untrained base, and what that "
        "is not sure of goes to the teacher. A client asks the policy all the while what no model ever saw.",
    )
    began = time.monotonic()
    made.apply(made.student(), made.job(), made.policy())
    with made.asked() as traffic:
        _watch(tour, made, JOB, "Promoted", traffic)
        promoted = time.monotonic()
        tour.say(f"from kubectl apply to a promoted student: {promoted - began:.0f} s")
        tour.kubectl("get", "dj,mt,rp", "-n", NAMESPACE)
        status = made.get("dj", JOB)["status"]
        _stages(tour, status["stages"])
        report = tour.state / "report.html"
        shutil.copyfile(made.home / status["artifact"]["report"].removeprefix("pvc://"), report)
        tour.say(f"What a person reads before approving: {of_here(report)}")
        _asked(traffic, promoted, 20)
        before = [one for one in traffic.answers if one.at < promoted]
        tour.say(f"Before: {told(before)}. Since the student is live: {told(traffic.since(promoted))}.")
        _refused(tour, made)
        _cannot_say(tour, made)
        _back(tour, made, traffic)
        _tampered(tour, made, traffic)
        if traffic.failed:
            raise HarnessError(f"{traffic.failed} questions of the client were not answered")
        tour.say(f"All that the client asked, through two promotions and two ways back: {told(traffic.answers)}.")
    print(f"\n{BOLD}Everything above ran for real, but the GPUs and the size of the models.{END}")


def _stages(tour: Tour, stages: Sequence[Mapping[str, Any]]) -> None:
    """What each stage did and took, and what lay between them: whole seconds, as the Job controller keeps them."""
    times = [tuple(datetime.fromisoformat(one[word]) for word in ("started", "ended")) for one in stages]
    own = [(ended - started).total_seconds() for started, ended in times]
    for one, seconds in zip(stages, own, strict=True):
        tour.show(f"{one['name']:<18}{seconds:4.0f} s  {one['summary']}")
    whole = (times[-1][1] - times[0][0]).total_seconds()
    between = whole - sum(own)
    tour.say(
        f"from the first Job to the last {whole:.0f} s; between them {between:.0f} s, {100 * between / sum(own):.1f} %"
    )


def _asked(traffic: Traffic, since: float, count: int) -> None:
    """Wait until so many questions were answered since then."""
    traffic.pause = BUSY
    wait_until(lambda: len(traffic.since(since)) >= count, f"{count} answers", 120, poll=0.2)
    traffic.pause = CALM


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


def _back(tour: Tour, made: School, traffic: Traffic) -> None:
    tour.chapter("The way back", "An annotation that names the artifact takes the student out of its tier.")
    digest = made.get("dj", JOB)["status"]["artifact"]["digest"]
    began = time.monotonic()
    tour.kubectl("annotate", "-n", NAMESPACE, "dj", JOB, f"{GROUP}/rollback={digest}")
    _watch(tour, made, JOB, "RolledBack", traffic)
    wait_until(lambda: made.get("mt", TIER)["status"]["model"] == "pvc://models/base", "the tier to follow", 240)
    made.wait_ready(f"mt/{TIER}")
    tour.say(f"The base serves again, after {time.monotonic() - began:.0f} s: the student was live, so its tier rolls.")
    tour.kubectl("get", "dj,mt", "-n", NAMESPACE)


def _tampered(tour: Tour, made: School, traffic: Traffic) -> None:
    tour.chapter(
        "A package that was tampered with",
        "The student is approved again and gets half of the conversations. In its canary a byte of its package is "
        "changed and its pod is replaced: the engine does not start on it, and the job takes the student back.",
    )
    artifact = made.get("dj", JOB)["status"]["artifact"]
    tour.kubectl("annotate", "-n", NAMESPACE, "dj", JOB, f"{GROUP}/approve={artifact['digest']}")
    traffic.pause = BUSY
    wait_until(lambda: _at_work(made.promotion()), "the student to take requests", team.READY_SECONDS)
    package = made.home / artifact["source"].removeprefix("pvc://")
    with (package / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    began = time.monotonic()
    tour.kubectl("delete", "pod", "-n", NAMESPACE, "-l", f"{GROUP}/tier={TIER},{GROUP}/revision=r2", "--wait=false")
    _watch(tour, made, JOB, "RolledBack", traffic)
    tour.say(f"taken back {time.monotonic() - began:.0f} s after the pod went")
    traffic.pause = CALM


def _at_work(promotion: Mapping[str, Any]) -> bool:
    """Whether the canary's first step is being held: the student takes requests."""
    return promotion.get("state") == "Canary" and "since" in promotion


def _watch(tour: Tour, made: School, name: str, wanted: str, traffic: Traffic | None = None) -> None:
    """Print a line for each change, as `kubectl get dj -w` does, until the job is at the wanted end."""
    end, last = time.monotonic() + LONGEST, ""
    while time.monotonic() < end:
        status = made.get("dj", name).get("status") or {}
        said = {one["type"]: one for one in status.get("conditions", ())}
        complete, stalled = said.get("Complete", {}), said.get("Stalled", {})
        if traffic is not None:
            traffic.pause = BUSY if (status.get("promotion") or {}).get("state") == "Canary" else CALM
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
