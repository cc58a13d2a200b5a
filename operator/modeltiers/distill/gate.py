"""Gate: all models' scores on the same sealed items, and whether the student is good enough."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from modeltiers.api.distilljob import Gate
from modeltiers.distill.faults import BadData
from modeltiers.distill.report import write_report
from modeltiers.distill.stage import Result, Work
from modeltiers.distill.store import Folder
from modeltiers.domain.distill.stages import Stage, hash_of
from modeltiers.domain.gate.decide import Decision, decide
from modeltiers.domain.gate.items import GateError, read_items
from modeltiers.domain.gate.looks import Ledger, open_ledger, read_ledger
from modeltiers.domain.gate.report import to_mapping
from modeltiers.domain.gate.rule import Rule, SliceRule

ITEMS: Final = "items.jsonl"
DECISION: Final = "decision.json"
TARGETS: Final[Mapping[str, Stage]] = {
    "student": Stage.EVALUATE_STUDENT,
    "base": Stage.EVALUATE_BASE,
    "incumbent": Stage.EVALUATE_INCUMBENT,
    "teacher": Stage.EVALUATE_TEACHER,
}


def run(work: Work) -> Result:
    """Put the scores together, decide, and enter the look before the decision is told."""
    rows = list(_joined(work))
    red_team = any(row["part"] == "redTeam" for row in rows)
    wanted, look = work.plan.spec.gate or Gate(), _look(work)
    try:
        rule, items = rule_of(wanted, red_team=red_team), read_items(rows)
        decision = decide(rule, items, _ledger(work.sealed(), rows), look)
    except GateError as fault:
        raise BadData(str(fault), field="spec.gate") from fault
    if decision.alpha is not None:
        # A file a look: two gates at once do not overwrite each other's.
        entry = replace(decision.ledger, spent=((look, decision.alpha),))
        work.sealed().write(f"{entry.sealed}/{look}.json", json.dumps(entry.to_mapping()).encode())
    said = to_mapping(decision)
    work.folder.write_rows(ITEMS, rows)
    work.folder.write(DECISION, json.dumps(said, indent=1, ensure_ascii=False).encode())
    summary = f"{decision.outcome}: {decision.why}"[:1000]
    notes = {"report": write_report(work, work.folder)}
    return Result((DECISION, ITEMS), summary, _facts(decision, said), notes=notes)


def rule_of(gate: Gate, *, red_team: bool) -> Rule:
    """The rule that the spec asks for."""
    return Rule(
        margin=gate.margin_permille,
        teacher_margin=gate.teacher_margin_permille,
        alpha=gate.alpha_permille,
        power=gate.power_permille,
        max_looks=gate.looks,
        slices=tuple(SliceRule(one.name, one.margin_permille) for one in gate.slices),
        out_of_slice_margin=gate.out_of_slice_margin_permille,
        gain=gate.gain_permille,
        red_team_margin=gate.red_team_margin_permille if red_team else None,
    )


def sealed_digest(rows: list[dict[str, Any]]) -> str:
    """What the sealed set is known by, whatever job looks at it."""
    return hash_of(sorted((row["part"], row["item"]) for row in rows))


def _look(work: Work) -> str:
    """What is looked at: the rule and the answers, whatever else the report rests on."""
    answers = {name: work.inputs[stage].facts(ITEMS).sha256 for name, stage in TARGETS.items() if stage in work.inputs}
    rule = (work.plan.spec.gate or Gate()).model_dump(mode="json", by_alias=True, exclude_none=True)
    return hash_of({"rule": rule, "answers": answers})


def _ledger(shelf: Folder, rows: list[dict[str, Any]]) -> Ledger:
    """What was spent on these items, by all jobs of the store."""
    older = []
    for name in shelf.names():
        try:
            older.append(read_ledger(json.loads(shelf.read(name))))
        except ValueError as fault:
            raise BadData(f"{shelf.at(name)}: {fault}", reason="StoreChanged") from fault
    return open_ledger(sealed_digest(rows), (row["item"] for row in rows), older)


def _joined(work: Work) -> Iterator[dict[str, Any]]:
    """The items with every model's score, in the order of the student's."""
    found = {
        target: {row["item"]: row for row in work.inputs[stage].rows(ITEMS)}
        for target, stage in TARGETS.items()
        if stage in work.inputs
    }
    # Where no other incumbent is named, the tier serves the student's base.
    found.setdefault("incumbent", found["base"])
    for name, row in found["student"].items():
        scores = {target: rows[name]["score"] for target, rows in found.items() if name in rows}
        teacher = found["teacher"].get(name)
        style = {target: likeness(rows[name], teacher) for target, rows in found.items() if teacher and name in rows}
        kept = {key: row[key] for key in ("item", "cluster", "slice", "part")}
        yield {**kept, "scores": scores, "style": {key: style[key] for key in ("student", "base") if key in style}}


def likeness(row: Mapping[str, Any], teacher: Mapping[str, Any]) -> int:
    """How like the teacher's answer another is in its words, in permille: what both share, of all they have (F1)."""
    one, other = (Counter(" ".join(of["answers"]).lower().split()) for of in (row, teacher))
    both, all_of = (one & other).total(), one.total() + other.total()
    return 1000 * 2 * both // all_of if all_of else 1000


def _facts(decision: Decision, said: Mapping[str, Any]) -> dict[str, Any]:
    means = said["meansPermille"]
    facts = {key: said.get(key) for key in ("decision", "items", "needed", "differencePermille", "lowerPermille")}
    facts |= {f"{target}Permille": means.get(target) for target in TARGETS}
    return {**facts, "why": decision.why[:1000], "more": said["more"], "looks": said["looks"]}
