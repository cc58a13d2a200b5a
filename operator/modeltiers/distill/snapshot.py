"""Snapshot: the rows of all sources as they are now, checked and scrubbed, in one file that stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from modeltiers.distill.faults import BadData
from modeltiers.distill.hook import Hook
from modeltiers.distill.sources import lines
from modeltiers.distill.stage import Result, Work
from modeltiers.domain.distill.rows import KEYS, BadRow, Row, parse_line, read_row
from modeltiers.domain.distill.scrub import BadPattern, Scrubber

ROWS: Final = "rows.jsonl"
BATCH: Final = 64
"""Rows whose texts the hook is given at once."""
NAMED: Final = 10
"""How many ignored keys are named."""


@dataclass
class Tally:
    """What was met."""

    sources: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    expected: int = 0
    recorded: int = 0
    repeated: int = 0

    @property
    def rows(self) -> int:
        """Rows kept."""
        return self.sources.total()


def run(work: Work) -> Result:
    """Write `rows.jsonl`."""
    try:
        scrubber = Scrubber(work.plan.spec.data.scrub)
    except BadPattern as bad:
        raise BadData(f"{bad}. Create another DistillJob with one that it takes", field=bad.field) from None
    tally = Tally()
    found = _found(work, scrubber, tally)
    if work.plan.spec.data.scrub and work.plan.spec.data.scrub.hook:
        found = _hooked(work, scrubber, found)
    work.folder.write_rows(ROWS, (row.to_json() for row in _kept(work, found, tally)))
    if not tally.rows:
        names = ", ".join(source.name for source in work.plan.spec.data.sources)
        raise BadData(f"no row is in {names}: put JSON lines with `messages` there", field="spec.data.sources")
    return Result((ROWS,), _summary(tally, scrubber), _facts(tally, scrubber))


def _found(work: Work, scrubber: Scrubber, tally: Tally) -> Iterator[Row]:
    for source in work.plan.spec.data.sources:
        address = work.plan.sources.get(source.name)
        if address is None:
            raise BadData(f"the plan says not where source {source.name} is", reason="InvalidPlan")
        for line in lines(source.name, address):
            try:
                body = parse_line(line.content)
                row = scrubber.row(read_row(body, source.name, source.part))
            except BadRow as bad:
                raise BadData(f"{line.where}: {bad}", field=f"spec.data.sources[{source.name}]") from None
            tally.ignored.update(body.keys() - KEYS)
            yield row


def _hooked(work: Work, scrubber: Scrubber, rows: Iterator[Row]) -> Iterator[Row]:
    if work.plan.scrubber is None:
        raise BadData("the plan says not where the scrubber is", reason="InvalidPlan")
    with Hook(work.plan.scrubber) as hook:
        hook.wait(work)
        while batch := list(islice(rows, BATCH)):
            work.check()
            yield from scrubber.hooked(batch, hook.scrubbed)


def _kept(work: Work, rows: Iterator[Row], tally: Tally) -> Iterator[Row]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            tally.repeated += 1
            continue
        seen.add(row.id)
        tally.sources[row.source] += 1
        tally.expected += row.expected is not None
        tally.recorded += row.recorded is not None
        if tally.rows % 256 == 0:
            work.check()
            work.progress.at(tally.rows, 0, "rows")
        yield row


def _summary(tally: Tally, scrubber: Scrubber) -> str:
    said = [f"{tally.rows} rows, {tally.expected} with an expected answer"]
    said += [f"{tally.repeated} repeated ones left out"] * bool(tally.repeated)
    said += [f"{scrubber.counts.total()} texts replaced"] * bool(scrubber.counts)
    named = ", ".join(sorted(tally.ignored)[:NAMED])
    said += [f"keys not read: {named[:200]}"] * bool(tally.ignored)
    return "; ".join(said)


def _facts(tally: Tally, scrubber: Scrubber) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rows": tally.rows,
        "expected": tally.expected,
        "recorded": tally.recorded,
        "repeated": tally.repeated,
        "sources": dict(sorted(tally.sources.items())),
        "scrubbed": dict(sorted(scrubber.counts.items())),
    }
    if tally.ignored:
        facts["ignoredKeys"] = {name[:64]: count for name, count in sorted(tally.ignored.most_common(NAMED))}
    return facts
