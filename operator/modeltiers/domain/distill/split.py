"""How rows are parted: which belong together, and which part each belongs to.

What belongs together stays together: rows of one group, and rows that are alike. A part is filled in the order of a
hash over seed and group, so that neither the order of rows nor the clock has a say, and a row more moves few others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from modeltiers.api.distilljob import Split
from modeltiers.domain.distill.likeness import Text, contained_pairs, near_pairs

PartName = Literal["train", "evaluation", "calibration", "redTeam"]
PARTS: Final[tuple[PartName, ...]] = ("train", "evaluation", "calibration", "redTeam")
SEALED: Final[tuple[PartName, ...]] = ("evaluation", "calibration", "redTeam")
RUN: Final = 8
"""Words of a run when rows are parted."""


class TooFewRows(ValueError):
    """The rows do not suffice; `field` of the spec asks for too many."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Item:
    """What the split knows of a row."""

    id: str
    group: str
    text: Text
    red_team: bool = False
    testable: bool = True
    """Whether the verifiers can judge an answer to it."""


class Union:
    """Which of so many things belong together."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def find(self, one: int) -> int:
        """The one that stands for all that this one belongs to."""
        while self._above[one] != one:
            self._above[one] = self._above[self._above[one]]
            one = self._above[one]
        return one

    def join(self, one: int, other: int) -> None:
        """Let two belong together."""
        low, high = sorted((self.find(one), self.find(other)))
        self._above[high] = low

    def apart(self, one: int, other: int) -> bool:
        """Whether two do not belong together yet."""
        return self.find(one) != self.find(other)


def noted() -> None:
    """Nothing: what `check` is where nobody waits."""


def clusters(items: Sequence[Item], near: float, check: Callable[[], None] = noted) -> list[list[int]]:
    """Rows that belong together, by their index: of one group, the same, or alike. `check` is called now and then."""
    union = Union(len(items))
    groups: dict[str, int] = {}
    same: dict[Text, int] = {}
    for index, item in enumerate(items):
        union.join(index, groups.setdefault(item.group, index))
        if item.text.words:
            union.join(index, same.setdefault(item.text, index))
    distinct = list(same.values())
    rows = [items[index].text for index in distinct]

    def apart(one: int, other: int) -> bool:
        check()
        return union.apart(distinct[one], distinct[other])

    if near < 1:
        for one, other, _ in near_pairs(rows, near, apart):
            union.join(distinct[one], distinct[other])
        for one, other, _ in contained_pairs(rows, RUN, apart):
            union.join(distinct[one], distinct[other])
    found: dict[int, list[int]] = defaultdict(list)
    for index in range(len(items)):
        found[union.find(index)].append(index)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Parted:
    """Where each row goes, by its id; one that is like a red-team row and none itself goes nowhere."""

    part: dict[str, PartName]
    cluster: dict[str, str]
    largest: int


def part(items: Sequence[Item], spec: Split, *, train: bool = True, check: Callable[[], None] = noted) -> Parted:
    """Part the rows; raises TooFewRows. `train`: whether a training part is needed. `check` may raise to end early."""
    together = clusters(items, spec.near_duplicate_permille / 1000, check)
    rest = [rows for rows in together if not any(items[index].red_team for index in rows)]
    able = [rows for rows in rest if all(items[index].testable for index in rows)]
    able.sort(key=lambda rows: _rank(items, rows, spec.seed))
    evaluation, left = _fill(able, spec.evaluation)
    calibration, _ = _fill(left, spec.calibration)
    where: dict[str, PartName] = {items[index].id: "train" for rows in rest for index in rows}
    where |= {items[index].id: "evaluation" for rows in evaluation for index in rows}
    where |= {items[index].id: "calibration" for rows in calibration for index in rows}
    where |= {item.id: "redTeam" for item in items if item.red_team}
    _enough(spec, Counter(where.values()), able, train=train)
    first = [min(items[index].id for index in rows) for rows in together]
    return Parted(
        where,
        {items[index].id: name for name, rows in zip(first, together, strict=True) for index in rows},
        max(map(len, together), default=0),
    )


def _rank(items: Sequence[Item], rows: Iterable[int], seed: int) -> str:
    return min(hashlib.sha256(f"{seed} {items[index].group}".encode()).hexdigest() for index in rows)


def _fill(able: Sequence[list[int]], wanted: int) -> tuple[list[list[int]], list[list[int]]]:
    """Clusters in order as long as they fit, and those left; what is missing comes from the smallest of these."""
    taken, left, count = [], [], 0
    for rows in able:
        if count + len(rows) <= wanted:
            taken.append(rows)
            count += len(rows)
        else:
            left.append(rows)
    if count < wanted and left:
        smallest = min(left, key=len)  # the first of them: larger than what is missing, or it would have been taken
        taken.append(smallest)
        left.remove(smallest)
    return taken, left


def _enough(spec: Split, counts: Counter[PartName], able: Sequence[list[int]], *, train: bool) -> None:
    have = (
        f"{sum(map(len, able))} rows in {len(able)} clusters can be tested, the largest has"
        f" {max(map(len, able), default=0)}"
    )
    asked: dict[PartName, int] = {"evaluation": spec.evaluation, "calibration": spec.calibration}
    for name, wanted in asked.items():
        if counts[name] < wanted:
            raise TooFewRows(f"spec.data.split.{name}", f"{wanted} rows are wanted, {counts[name]} are left: {have}")
    if train and not counts["train"]:
        sealed = sum(asked.values())
        raise TooFewRows("spec.data.split.evaluation", f"no row is left to train on: {sealed} are to be sealed, {have}")
