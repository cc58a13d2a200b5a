"""Sealed items and how each model scored on them, read from rows that a program wrote.

Scores are whole permille: the mean over an item's samples. Whole numbers add up to the same sum in every order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, get_args

Target = Literal["student", "base", "incumbent", "teacher"]
"""Who was asked. The base is the student before training; the incumbent is what the tier serves now."""
Part = Literal["evaluation", "redTeam"]

TARGETS: Final[tuple[Target, ...]] = get_args(Target)
PARTS: Final[tuple[str, ...]] = get_args(Part)
FULL: Final = 1000
"""The best score."""


class GateError(ValueError):
    """Rows, rule or ledger that nothing can be decided from; the message names the row or field and the way out."""


class Pair(NamedTuple):
    """One item as two models met it."""

    cluster: str
    """What it hangs together with: a conversation, or near-duplicates."""
    candidate: int
    """Permille."""
    reference: int
    """Permille."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sealed item."""

    name: str
    cluster: str
    scores: Mapping[Target, int]
    """Permille; the student's and the base's are always there."""
    part: Part = "evaluation"
    slice: str | None = None
    style: Mapping[Target, int] = field(default_factory=dict)
    """How like the teacher's the wording is, in permille, where that was measured."""
    verifiable: bool = True
    """Whether its score was computed by a check, not given by a judge."""


def read_items(rows: Iterable[Mapping[str, Any]]) -> tuple[Item, ...]:
    """Read rows `{"item", "cluster", "slice", "part", "scores", "style", "verifiable"}`; other keys are left alone.

    Only item and scores must be there: an item without a cluster is one by itself, part is evaluation. Raises GateError
    for the first row that is wrong.
    """
    items: dict[str, Item] = {}
    for number, row in enumerate(rows, 1):
        item = _item(row, f"row {number}")
        if item.name in items:
            raise GateError(f"row {number}: item {item.name!r} is there twice: write each item once, samples averaged")
        items[item.name] = item
    return tuple(items.values())


def pairs_of(items: Iterable[Item], candidate: Target, reference: Target) -> tuple[Pair, ...]:
    """Two models side by side; raises GateError where one was not asked an item."""
    found = []
    for item in items:
        for target in (candidate, reference):
            if target not in item.scores:
                raise GateError(
                    f"item {item.name!r} has no score of the {target}: evaluate every model on all items, or take the"
                    f" {target} out of the rule"
                )
        found.append(Pair(item.cluster, item.scores[candidate], item.scores[reference]))
    return tuple(found)


def mean(items: Sequence[Item], target: Target) -> float | None:
    """Mean score from 0 to 1; None where no item has one."""
    scores = [item.scores[target] for item in items if target in item.scores]
    return sum(scores) / (FULL * len(scores)) if scores else None


# --- reading ----------------------------------------------------------------------------------------------------------


def _item(row: object, where: str) -> Item:
    if not isinstance(row, Mapping):
        raise GateError(f"{where} is not an object: write one JSON object a line")
    name = _text(row, "item", where)
    if name is None:
        raise GateError(f"{where}: item is missing: name each item")
    where = f"{where} (item {name!r})"
    part = row.get("part", "evaluation")
    if part not in PARTS:
        raise GateError(f"{where}: part is {part!r}; give one of {', '.join(PARTS)}: other parts are not for the gate")
    scores = _scores(row.get("scores"), "scores", where)
    missing = [target for target in ("student", "base") if target not in scores]
    if missing:
        raise GateError(f"{where}: scores has no {missing[0]}: student and base are always compared")
    verifiable = row.get("verifiable", True)
    if not isinstance(verifiable, bool):
        raise GateError(f"{where}: verifiable is {verifiable!r}; give true or false")
    cluster = _text(row, "cluster", where)
    style = _scores(row.get("style") or {}, "style", where)
    return Item(name, name if cluster is None else cluster, scores, part, _text(row, "slice", where), style, verifiable)


def _text(row: Mapping[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise GateError(f"{where}: {key} is {value!r}; give a text, or leave it out")
    return value


def _scores(value: object, key: str, where: str) -> dict[Target, int]:
    if not isinstance(value, Mapping):
        raise GateError(f"{where}: {key} is not an object; give permille by model, such as {{'student': 1000}}")
    for target, score in value.items():
        if target not in TARGETS:
            raise GateError(f"{where}: {key} has {target!r}; models are {', '.join(TARGETS)}")
        if not isinstance(score, int) or isinstance(score, bool) or not 0 <= score <= FULL:
            raise GateError(f"{where}: {key}.{target} is {score!r}; give a whole number of permille, 0 to {FULL}")
    return dict(value)
