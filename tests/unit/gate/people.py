"""Sealed items with scores of models that are as good as a test wants them."""

from __future__ import annotations

from random import Random
from typing import Any

from modeltiers.domain.gate.items import Item, Part

Scores = dict[str, int]


def items(
    count: int,
    *,
    gained: int = 0,
    lost: int = 0,
    base: int = 500,
    part: Part = "evaluation",
    of_slice: str | None = None,
    name: str = "i",
) -> list[Item]:
    """Items of which the incumbent and the teacher answer nine of ten, and the student likewise but for so many gained
    and lost; the base answers `base` permille of them."""
    found = []
    for number in range(count):
        right = number % 10 != 9
        student = right
        if right and lost:
            student, lost = False, lost - 1
        elif not right and gained:
            student, gained = True, gained - 1
        untrained = number * base // 1000 < (number + 1) * base // 1000
        answers = {"student": student, "incumbent": right, "teacher": right, "base": untrained}
        scores: Any = {who: 1000 * answer for who, answer in answers.items()}
        found.append(Item(f"{name}{number}", f"{name}{number}", scores, part, of_slice))
    assert not gained
    assert not lost
    return found


def flipped(count: int, share: float, seed: int) -> list[Item]:
    """A teacher that answers nine of ten, and a student that is its copy but for a share of answers turned round."""
    random = Random(seed)  # noqa: S311 - repeatable, not secret
    found = []
    for number in range(count):
        teacher = random.random() < 0.9
        student = teacher != (random.random() < share)
        scores: Any = {
            "student": 1000 * student,
            "teacher": 1000 * teacher,
            "base": 1000 * (random.random() < 0.5),
        }
        found.append(Item(f"i{number}", f"i{number}", scores))
    return found
