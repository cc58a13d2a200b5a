"""Which training rows are too like a sealed one: the same prompt, nearly the same, or most of it quoted.

What is compared of a sealed row is its prompt; of a training row its prompt too, and for quotations its answers with
it. What is expected is not compared by itself: many tasks have few answers. `likeness` says what alike means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from modeltiers.api.distilljob import Decontamination
from modeltiers.domain.distill.likeness import Text, contained_pairs, near_pairs
from modeltiers.domain.distill.split import PartName, noted

Kind = Literal["Same", "NearDuplicate", "Quoted"]


@dataclass(frozen=True, slots=True)
class Side:
    """One row, training or sealed."""

    id: str
    part: PartName
    prompt: Text
    whole: Text
    """Of a training row with its answers."""

    @property
    def sealed(self) -> bool:
        """Whether it is one of a sealed part."""
        return self.part != "train"


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training row that is too like a sealed one."""

    id: str
    sealed: str
    part: PartName
    kind: Kind
    permille: int
    """Of the words, or of the sealed row's runs, how many both have."""


def overlaps(rows: Sequence[Side], spec: Decontamination, check: Callable[[], None] = noted) -> list[Overlap]:
    """The worst overlap of each training row that has one, by its id. `check` is called now and then, and may raise."""
    found: dict[str, Overlap] = {}
    for overlap in (*_prompts(rows, spec, check), *_quotes(rows, spec, check)):
        known = found.get(overlap.id)
        if known is None or (overlap.permille, overlap.sealed) > (known.permille, known.sealed):
            found[overlap.id] = overlap
    return sorted(found.values(), key=lambda overlap: overlap.id)


def _prompts(rows: Sequence[Side], spec: Decontamination, check: Callable[[], None]) -> Iterator[Overlap]:
    """By the prompt: equal texts are one, so that a text counts once however many rows have it."""
    by_text: dict[Text, list[Side]] = {}
    for row in rows:
        by_text.setdefault(row.prompt, []).append(row)
    distinct = list(by_text)
    for text, sides in by_text.items():
        if text.words:
            yield from _each(sides, sides, "Same", 1.0)
    sealed = [any(side.sealed for side in by_text[text]) for text in distinct]
    train = [any(not side.sealed for side in by_text[text]) for text in distinct]

    def wanted(one: int, other: int) -> bool:
        check()
        return (sealed[one] and train[other]) or (sealed[other] and train[one])

    for one, other, share in near_pairs(distinct, spec.near_duplicate_permille / 1000, wanted):
        yield from _each(by_text[distinct[one]], by_text[distinct[other]], "NearDuplicate", share)
        yield from _each(by_text[distinct[other]], by_text[distinct[one]], "NearDuplicate", share)


def _quotes(rows: Sequence[Side], spec: Decontamination, check: Callable[[], None]) -> Iterator[Overlap]:
    wholes = [row.whole for row in rows]

    def wanted(one: int, other: int) -> bool:
        check()
        return rows[one].sealed and not rows[other].sealed

    for one, other, share in contained_pairs(wholes, spec.words, wanted):
        yield from _each([rows[other]], [rows[one]], "Quoted", share)


def _each(ones: Sequence[Side], others: Sequence[Side], kind: Kind, share: float) -> Iterator[Overlap]:
    """Every training row of the first with every sealed one of the second."""
    for one in ones:
        for other in others:
            if other.sealed and not one.sealed:
                yield Overlap(one.id, other.id, other.part, kind, round(1000 * share))
