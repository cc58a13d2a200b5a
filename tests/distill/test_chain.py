"""From rows as a user brings them to training rows and scores: the stages over each other's real outcomes."""

from __future__ import annotations

import json
from pathlib import Path

from modeltiers.distill.run import run_stage, stage_folder
from modeltiers.distill.store import Folder
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Outcome, Stage
from tests.distill.kit import TeacherProcess, local
from tests.distill.teacher import MODEL
from tests.unit.test_distill_stages import SPEC

STAGES = (
    Stage.SNAPSHOT,
    Stage.SPLIT,
    Stage.GENERATE,
    Stage.FILTER,
    Stage.DECONTAMINATE,
    Stage.EVALUATE_TEACHER,
    Stage.EVALUATE_BASE,
)


def test_stages_take_what_others_leave(server: TeacherProcess, tmp_path: Path) -> None:
    """And all of it a second time is found in the store: nothing is asked."""
    go_through(server, local(tmp_path / "store"), tmp_path)


def go_through(server: TeacherProcess, store: Folder, tmp_path: Path) -> None:
    """Run the stages in this store, twice."""
    sums = [(one, 1000 - 3 * one) for one in range(200)]
    lines = [{"messages": [{"role": "user", "content": f"What is {a} + {b}?"}], "expected": a + b} for a, b in sums]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"sources": SPEC["data"]["sources"], "split": {"evaluation": 40, "nearDuplicatePermille": 1000}}
    near = {"words": 64, "nearDuplicatePermille": 1000}
    target = {"baseUrl": server.base_url, "model": MODEL}
    spec = {**SPEC, "data": data, "decontamination": near}
    plan = Plan.model_validate(
        {"job": "demo", "spec": spec, "teacher": target, "engine": target, "sources": {"rows": str(rows)}}
    )
    outcomes: dict[Stage, Outcome] = {}
    facts = {}
    for stage in STAGES:
        made, _ = run_stage(plan, store, stage, outcomes)
        outcomes[stage], facts[stage] = made.outcome, made.facts
    assert facts[Stage.GENERATE]["answered"] == 160
    trained = list(stage_folder(store, Stage.DECONTAMINATE, outcomes[Stage.DECONTAMINATE].digest).rows("rows.jsonl"))
    assert len(trained) == 160
    assert facts[Stage.EVALUATE_TEACHER]["score"] == facts[Stage.EVALUATE_BASE]["score"] == 1000
    asked = len(server.asked())
    assert all(run_stage(plan, store, stage, outcomes)[1] for stage in STAGES)
    assert len(server.asked()) == asked == 160 + 2 * 40 + 1
