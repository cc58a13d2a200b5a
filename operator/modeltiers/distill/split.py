"""Split: rows parted into training, evaluation, calibration and red team, before the teacher is asked anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

from modeltiers.distill.faults import BadData
from modeltiers.distill.snapshot import ROWS
from modeltiers.distill.stage import Result, Work
from modeltiers.distill.store import line
from modeltiers.domain.distill.counts import by_slice
from modeltiers.domain.distill.likeness import Plain, Vocabulary
from modeltiers.domain.distill.rows import Row
from modeltiers.domain.distill.split import PARTS, SEALED, Item, Parted, PartName, TooFewRows, part
from modeltiers.domain.distill.stages import Stage, hash_of
from modeltiers.domain.distill.verify import BadVerifier, judgeable, needing, ready

FILES: Final[dict[PartName, str]] = {name: f"{name}.jsonl" for name in PARTS}


def run(work: Work) -> Result:
    """Write a file for each part."""
    spec = work.plan.spec
    try:
        ready(tuple(spec.workload.verifiers))  # what cannot be run is known before the teacher is paid
    except BadVerifier as bad:
        raise BadData(f"{bad}. Create another DistillJob with one that can be run", field=bad.field) from None
    items = list(_items(work))
    _red_team(work, items)
    try:
        parted = part(items, spec.data.split, train=spec.student.trained is None, check=work.check)
    except TooFewRows as few:
        raise BadData(f"{few}{_why(work, items)}. {_WAY_OUT}", field=few.field) from None
    counts, slices = _write(work, parted)
    return Result(tuple(FILES.values()), _summary(counts, parted), _facts(parted, counts, slices))


_WAY_OUT: Final = "Bring more rows, or ask for fewer, in another DistillJob"


def rows_of(work: Work, name: str, stage: Stage) -> Iterator[Row]:
    """The rows of a file of a stage before."""
    return (Row.from_json(body) for body in work.inputs[stage].rows(name))


def _items(work: Work) -> Iterator[Item]:
    plain, vocabulary = Plain(rows_of(work, ROWS, Stage.SNAPSHOT)), Vocabulary()
    verifiers = work.plan.spec.workload.verifiers
    for done, row in enumerate(rows_of(work, ROWS, Stage.SNAPSHOT)):
        if done % 256 == 0:
            work.check()
            work.progress.at(done, plain.rows, "rows")
        text = vocabulary.text(plain.text(row))
        yield Item(row.id, row.group, text, row.part == "RedTeam", judgeable(verifiers, row.expected))


def _red_team(work: Work, items: list[Item]) -> None:
    """Refuse a red-team part with rows that every model would get wrong: it would say nothing about any."""
    unfit = [item.id for item in items if item.red_team and not item.testable]
    if unfit:
        names = ", ".join(source.name for source in work.plan.spec.data.sources if source.part == "RedTeam")
        raise BadData(
            f"{len(unfit)} red-team rows of {names} have no `expected` that verifier"
            f" {needing(work.plan.spec.workload.verifiers)} can use, so no answer could be right: say what is expected"
            " (a refusal can be found by a Regex verifier), in another DistillJob",
            field="spec.data.sources",
        )


def _why(work: Work, items: list[Item]) -> str:
    """Why rows cannot be tested, where that is what is missing."""
    name, untestable = needing(work.plan.spec.workload.verifiers), sum(not item.testable for item in items)
    if name is None or not untestable:
        return ""
    return f"; {untestable} of {len(items)} rows have no `expected` that verifier {name} can use"


def _write(work: Work, parted: Parted) -> tuple[dict[PartName, list[Any]], dict[PartName, Counter[str]]]:
    """Write the parts; returns what identifies each one's rows, and how many each has of a slice."""
    found: dict[PartName, list[Any]] = {name: [] for name in PARTS}
    slices: dict[PartName, Counter[str]] = {name: Counter() for name in PARTS}
    with ExitStack() as stack:
        files = {name: stack.enter_context(work.folder.writing(FILES[name])) for name in PARTS}
        for row in rows_of(work, ROWS, Stage.SNAPSHOT):
            name = parted.part.get(row.id)
            if name is None:
                continue
            files[name].write(line({**row.to_json(), "cluster": parted.cluster[row.id]}))
            found[name].append([row.id, row.slice])
            slices[name][row.slice or ""] += 1
    return found, slices


def _summary(rows: dict[PartName, list[Any]], parted: Parted) -> str:
    counts = ", ".join(f"{len(rows[name])} {name}" for name in PARTS)
    left = len(parted.cluster) - len(parted.part)
    said = f"{counts}; {len(set(parted.cluster.values()))} clusters, the largest of {parted.largest}"
    return f"{said}; {left} left out that are like red-team rows" if left else said


def _facts(parted: Parted, rows: dict[PartName, list[Any]], slices: dict[PartName, Counter[str]]) -> dict[str, Any]:
    facts: dict[str, Any] = {name: len(rows[name]) for name in PARTS}
    facts |= {
        "clusters": len(set(parted.cluster.values())),
        "largestCluster": parted.largest,
        "leftOut": len(parted.cluster) - len(parted.part),
        # The same whatever the order of the rows: it is what the looks at a sealed part are counted by.
        "sealed": hash_of({name: sorted(rows[name], key=str) for name in SEALED}),
        "evaluationDigest": hash_of(sorted(rows["evaluation"], key=str)),
    }
    return {**facts, "slices": {name: by_slice(slices[name]) for name in PARTS if rows[name]}}
