"""Filter: which of the teacher's answers become training rows. What is dropped lies beside, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from modeltiers.api.distilljob import Filters
from modeltiers.distill.faults import BadData
from modeltiers.distill.stage import Result, Work
from modeltiers.distill.store import line
from modeltiers.domain.distill.counts import by_slice
from modeltiers.domain.distill.filters import Sieve, without_trace
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.verify import BadVerifier

ANSWERS: Final = "answers.jsonl"
ROWS: Final = "rows.jsonl"
REJECTS: Final = "rejects.jsonl"


@dataclass
class Tally:
    """What became of the answers."""

    asked: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    logprobs_lost: int = 0

    @property
    def reasons_said(self) -> str:
        """The reasons, the most frequent first."""
        return ", ".join(f"{count} {name}" for name, count in self.reasons.most_common())


def run(work: Work) -> Result:
    """Write `rows.jsonl` and `rejects.jsonl`."""
    filters, tally = work.plan.spec.filters or Filters(), Tally()
    try:
        _write(work, filters, tally)
    except BadVerifier as bad:
        raise BadData(f"{bad}. Create another DistillJob with one that can be run", field=bad.field) from None
    kept, asked = tally.kept.total(), tally.asked.total()
    if kept < filters.least_rows:
        raise BadData(
            f"{kept} of {asked} answers are kept, spec.filters.leastRows is {filters.least_rows}; dropped:"
            f" {tally.reasons_said or 'none'}. Look at {work.folder.at(REJECTS)}, then create another DistillJob with"
            " other spec.filters, spec.generation or rows",
            field="spec.filters",
        )
    said = f"; dropped: {tally.reasons_said}" if tally.reasons else ""
    return Result((ROWS, REJECTS), f"{kept} of {asked} answers kept{said}", _facts(tally))


def _write(work: Work, filters: Filters, tally: Tally) -> None:
    sieve = Sieve(filters, work.plan.spec.workload.verifiers)
    with ExitStack() as stack:
        rows, rejects = (stack.enter_context(work.folder.writing(name)) for name in (ROWS, REJECTS))
        count = sum(1 for _ in work.inputs[Stage.GENERATE].rows(ANSWERS))
        for done, row in enumerate(_answers(work, filters, tally)):
            if done % 256 == 0:
                work.check()
                work.progress.at(done, count, "answers")
            name = row["slice"] or ""
            tally.asked[name] += 1
            dropped = sieve.drop(row)
            if dropped is None:
                tally.kept[name] += 1
                rows.write(line(row))
            else:
                tally.reasons[dropped.reason.value] += 1
                why = {"reason": dropped.reason.value, "detail": dropped.detail}
                rejects.write(line({"id": row["id"], "sample": row["sample"], **why, **row}))


def _answers(work: Work, filters: Filters, tally: Tally) -> Iterator[dict[str, Any]]:
    for row in work.inputs[Stage.GENERATE].rows(ANSWERS):
        if filters.reasoning == "Keep":
            yield row
            continue
        stripped, lost = without_trace(row)
        tally.logprobs_lost += lost
        yield stripped


def _facts(tally: Tally) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "answers": tally.asked.total(),
        "kept": tally.kept.total(),
        "keptPermille": round(1000 * tally.kept.total() / tally.asked.total()),
        "reasons": dict(sorted(tally.reasons.items())),
    }
    if slices := by_slice(tally.asked):
        facts["slices"] = slices
        facts["keptSlices"] = by_slice(Counter({name: tally.kept[name] for name in tally.asked}))
    return facts | ({"logprobsLost": tally.logprobs_lost} if tally.logprobs_lost else {})
