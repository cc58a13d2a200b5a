"""Decontaminate: training rows that are too like a sealed one are taken out; with more than a few, the job stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from modeltiers.api.distilljob import Decontamination
from modeltiers.distill.faults import BadData
from modeltiers.distill.filter import ROWS
from modeltiers.distill.split import FILES, rows_of
from modeltiers.distill.stage import Result, Work
from modeltiers.domain.distill.likeness import Plain, Vocabulary
from modeltiers.domain.distill.overlaps import Kind, Overlap, Side, overlaps
from modeltiers.domain.distill.split import PARTS
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.verify import text_of

OVERLAPS: Final = "overlaps.jsonl"
NAMED: Final = 5
"""How many overlaps a message names."""
FIELD: Final = "spec.decontamination"


def run(work: Work) -> Result:
    """Write `rows.jsonl` and `overlaps.jsonl`."""
    spec = work.plan.spec.decontamination or Decontamination()
    found = {overlap.id: overlap for overlap in overlaps(list(_sides(work)), spec, work.check)}
    work.folder.write_rows(OVERLAPS, map(_shown, found.values()))
    dropped = Counter(found[row["id"]].kind for row in _filtered(work) if row["id"] in found)
    if dropped.total() > spec.drop_at_most:
        raise BadData(_refusal(work, spec, list(found.values()), dropped), reason="Contaminated", field=FIELD)
    kept = work.folder.write_rows(ROWS, (row for row in _filtered(work) if row["id"] not in found))
    if not kept:
        raise BadData(f"all {dropped.total()} rows overlap with sealed ones: bring other rows", field=FIELD)
    parts = Counter(overlap.part for overlap in found.values())
    facts = {
        "rows": kept,
        "dropped": dropped.total(),
        "kinds": dict(sorted(dropped.items())),
        "parts": dict(sorted(parts.items())),
    }
    return Result((ROWS, OVERLAPS), f"{kept} rows, {dropped.total()} dropped that overlap with sealed ones", facts)


def _refusal(work: Work, spec: Decontamination, found: list[Overlap], dropped: Counter[Kind]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
    named = "; ".join(f"{one.id} is like {one.sealed} of {one.part} ({one.kind})" for one in found[:NAMED])
    return (
        f"{dropped.total()} training rows overlap with sealed ones ({kinds}), {FIELD}.dropAtMost is"
        f" {spec.drop_at_most}: {named}. All are in {work.folder.at(OVERLAPS)}. Give rows that belong together"
        " one `group`, take rows out of the sources, or allow that more are dropped, in another DistillJob"
    )


def _shown(overlap: Overlap) -> dict[str, Any]:
    named = {"id": overlap.id, "sealed": overlap.sealed, "part": overlap.part, "kind": overlap.kind}
    return {**named, "overlapPermille": overlap.permille}


def _filtered(work: Work) -> Iterator[dict[str, Any]]:
    return work.inputs[Stage.FILTER].rows(ROWS)


def _sides(work: Work) -> Iterator[Side]:
    """All rows that take part: those of Split, so that what is the task's form is judged as it was there."""
    plain = Plain(row for name in PARTS for row in rows_of(work, FILES[name], Stage.SPLIT))
    answers: dict[str, list[str]] = {}
    for kept in _filtered(work):
        answers.setdefault(kept["id"], []).append(text_of(kept["answer"]))
    vocabulary = Vocabulary()
    for name in PARTS:
        for row in rows_of(work, FILES[name], Stage.SPLIT):
            prompt = whole = vocabulary.text(plain.text(row))
            for answer in answers.get(row.id, ()):
                whole = whole.and_then(vocabulary.text(answer))
            yield Side(row.id, name, prompt, whole)
