"""Runs one stage, or all of them in turn, over a store; the same code in a pod and on a laptop."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Mapping
from typing import Final

from modeltiers.distill import manifest
from modeltiers.distill.faults import BadData
from modeltiers.distill.stage import Progress, Run, Work
from modeltiers.distill.store import Folder
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Outcome, Stage, before, digest_of, next_stage

log = logging.getLogger(__name__)

# A module a stage, imported when it is to run: only training needs torch.
MODULES: Final[Mapping[Stage, str]] = {
    Stage.SNAPSHOT: "snapshot",
    Stage.SPLIT: "split",
    Stage.GENERATE: "generate",
    Stage.FILTER: "filter",
    Stage.DECONTAMINATE: "decontaminate",
    Stage.TRAIN: "train",
    Stage.EVALUATE_TEACHER: "evaluate",
    Stage.EVALUATE_BASE: "evaluate",
    Stage.EVALUATE_INCUMBENT: "evaluate",
    Stage.EVALUATE_STUDENT: "evaluate",
    Stage.JUDGE: "judge",
    Stage.GATE: "gate",
    Stage.CALIBRATE: "calibrate",
    Stage.PACKAGE: "package",
}


def stage_folder(root: Folder, stage: Stage, digest: str) -> Folder:
    """Where a stage with these inputs lies."""
    return root.sub(f"stages/{stage.value}/{digest}")


def run_stage(
    plan: Plan,
    root: Folder,
    stage: Stage,
    outcomes: Mapping[Stage, Outcome],
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> tuple[manifest.Manifest, bool]:
    """Run a stage unless its outcome is there already; returns its manifest, and whether it was there."""
    digest = digest_of(stage, plan.spec, outcomes)
    folder = stage_folder(root, stage, digest)
    if (found := manifest.read(folder)) is not None:
        log.info("%s %s: found in the store", stage.value, digest)
        return found, True
    inputs = {other: stage_folder(root, other, outcomes[other].digest) for other in before(stage, plan.spec)}
    for other, lies in inputs.items():
        known = manifest.read(lies)
        if known is None or known.outcome.output != outcomes[other].output:
            raise BadData(
                f"{lies.path} has not the outcome of {other.value} that {stage.value} rests on: the store was changed",
                reason="StoreChanged",
            )
    work = Work(plan, stage, digest, root, folder, inputs, progress or Progress(), stop or threading.Event())
    work.check()
    return manifest.write(folder, stage, digest, _code(stage)(work), plan.job), False


def run_all(plan: Plan, root: Folder, *, stop: threading.Event | None = None) -> dict[Stage, manifest.Manifest]:
    """Run stage after stage until the job is at its end."""
    done: dict[Stage, manifest.Manifest] = {}
    outcomes: dict[Stage, Outcome] = {}
    while (step := next_stage(plan.spec, outcomes)) is not None:
        done[step.stage], reused = run_stage(plan, root, step.stage, outcomes, stop=stop)
        outcomes[step.stage] = done[step.stage].outcome
        log.info("%s: %s%s", step.stage.value, done[step.stage].body["summary"], " (from the store)" if reused else "")
    return done


def _code(stage: Stage) -> Run:
    found: Run = importlib.import_module(f"modeltiers.distill.{MODULES[stage]}").run
    return found
