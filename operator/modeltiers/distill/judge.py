"""Judge: what the judge makes of the answers to the sealed items. It stands beside the verifiers and decides nothing.

Writes `judge.jsonl`, an item a line. The scores of items stay as the verifiers gave them, so a job with a judge has the
same gate as one without. An answer of nothing, or one that the server would not give, is not asked about; its score
is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modeltiers.distill.bench import Asked, Bench
from modeltiers.distill.gate import ITEMS, TARGETS
from modeltiers.distill.stage import Result, Work
from modeltiers.domain.distill.judgement import MODELS, Row, figures, judged
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.report import percent
from modeltiers.domain.distill.stages import Stage

JUDGED: Final = "judge.jsonl"
PARTS: Final = ("evaluation", "redTeam")


def run(work: Work, patience: Patience | None = None) -> Result:
    """Ask, then write what the ledger has."""
    bench, items = Bench.of(work), list(_items(work))
    of = sum(1 for _ in _asked(items))
    bench.ask(_asked(items), of, patience or Patience())
    rows = [_judged(bench, one) for one in items]
    work.folder.write_rows(JUDGED, rows)
    facts = {**bench.facts(), **figures(rows, bench.judge.min_score_permille)}
    return Result((JUDGED,), _summary(facts), facts, bench.inquiry.spend())


@dataclass(frozen=True, slots=True)
class _Item:
    """A sealed row, and what each model answered to it."""

    row: Mapping[str, Any]
    said: Mapping[str, Mapping[str, Any]]
    """Lines of `items.jsonl` by model."""


def _items(work: Work) -> Iterator[_Item]:
    """In the order of the parts. Where no other incumbent is named the base is the incumbent, and judged once."""
    found = {
        target: {row["item"]: row for row in work.inputs[stage].rows(ITEMS)}
        for target, stage in TARGETS.items()
        if stage in work.inputs
    }
    for part in PARTS:
        for row in work.inputs[Stage.SPLIT].rows(f"{part}.jsonl"):
            said = {model: found[model][row["id"]] for model in MODELS if row["id"] in found.get(model, ())}
            if said:
                yield _Item(row, said)


def _asked(items: list[_Item]) -> Iterator[Asked]:
    for one in items:
        for said in one.said.values():
            yield from ((one.row, text) for text in said["answers"] if text.strip())


def _judged(bench: Bench, one: _Item) -> Row:
    answers: dict[str, list[int | None]] = {}
    for model, said in one.said.items():
        answers[model] = [bench.score(one.row, text).permille if text.strip() else 0 for text in said["answers"]]
    right = {
        model: [
            failed is None if text.strip() else None
            for text, failed in zip(said["answers"], said["failed"], strict=True)
        ]
        for model, said in one.said.items()
    }
    return judged(next(iter(one.said.values())), answers, right)


def _summary(facts: Mapping[str, Any]) -> str:
    means = ", ".join(f"{model} {percent(mean)}" for model, mean in facts["meansPermille"].items())
    lost = f"; {facts['notScored']} answers without a score" if facts["notScored"] else ""
    agrees = f"; as the verifiers on {percent(facts['agreementPermille'])}" if "agreementPermille" in facts else ""
    return f"{facts['model']} gave {means or 'no score'}{agrees}{lost}; it decides nothing"
