"""Where each DistillJob is, what its teacher has cost, and what came of it."""

from __future__ import annotations

from typing import Final

from modeltiers.render.dashboard import Dashboard, Row, Variable
from modeltiers.render.dashboards.parts import JOB, conditions, highest, objects, panel

_BY_JOB: Final = "namespace, distilljob"
_BY_CURRENCY: Final = "namespace, distilljob, currency"

DISTILLATION: Final = Dashboard(
    "modeltiers-distillation",
    "modeltiers / Distillation",
    "Where each DistillJob is, what its teacher has cost, what the gate said, and where its student stands.",
    (
        Variable("namespace", "modeltiers_condition", "namespace"),
        Variable("distilljob", 'modeltiers_condition{kind="DistillJob", namespace=~"$namespace"}', "name"),
    ),
    (
        Row(
            "Jobs",
            (
                *objects("DistillJob", "distilljob", "Complete"),
                panel(
                    "Stages",
                    "The state of every stage that was begun.",
                    "none",
                    highest("namespace, distilljob, stage, state", "modeltiers_distill_stage", JOB),
                    kind="table",
                    width=12,
                ),
                panel(
                    "Waits for a person",
                    "Approve with `kubectl modeltiers approve dj/NAME`, after reading the report.",
                    "none",
                    conditions("DistillJob", "distilljob", condition="AwaitingApproval"),
                    kind="table",
                    width=12,
                ),
                panel(
                    "Progress of the running stage",
                    "By its own count. Flat for long: look at the stage's pod.",
                    "percentunit",
                    (highest(_BY_JOB, "modeltiers_distill_progress_ratio", JOB), "{{distilljob}}"),
                ),
                panel(
                    "Tokens of the teacher",
                    "As its own answers counted them.",
                    "none",
                    (
                        highest("namespace, distilljob, kind", "modeltiers_distill_teacher_tokens", JOB),
                        "{{distilljob}} {{kind}}",
                    ),
                ),
                panel(
                    "Cost of the teacher",
                    "In units of the currency. Absent where no price is known.",
                    "none",
                    (
                        highest(_BY_CURRENCY, "modeltiers_distill_teacher_cost_micros", JOB) + " / 1e6",
                        "{{distilljob}} {{currency}}",
                    ),
                ),
            ),
        ),
        Row(
            "Gate and promotion",
            (
                panel(
                    "What the gate said",
                    "Pass, Fail, or Inconclusive: too few items to say.",
                    "none",
                    highest("namespace, distilljob, decision", "modeltiers_distill_gate_decision", JOB),
                    kind="table",
                ),
                panel(
                    "Student less incumbent",
                    "In points of the score, with the lower bound that decides.",
                    "percentunit",
                    (
                        highest(_BY_JOB, "modeltiers_distill_gate_difference_permille", JOB) + " / 1000",
                        "{{distilljob}} difference",
                    ),
                    (
                        highest(_BY_JOB, "modeltiers_distill_gate_lower_permille", JOB) + " / 1000",
                        "{{distilljob}} lower bound",
                    ),
                ),
                panel(
                    "The student's share of conversations",
                    "Grows by the steps of the canary; 0 after it was taken back.",
                    "percentunit",
                    (
                        highest(_BY_JOB, "modeltiers_distill_promotion_weight_permille", JOB) + " / 1000",
                        "{{distilljob}}",
                    ),
                ),
                panel(
                    "Where students stand",
                    "AwaitingApproval, Canary, Settling, Live or RolledBack.",
                    "none",
                    highest("namespace, distilljob, state", "modeltiers_distill_promotion", JOB),
                    kind="table",
                    width=12,
                ),
            ),
        ),
    ),
)
