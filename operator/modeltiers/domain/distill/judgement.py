"""What a judge's scores say: each model's mean, and whether the judge can be trusted. Pure.

It can be trusted as far as it tells right answers from wrong ones where the verifiers know which is which. Both shares
count: a judge that likes everything passes all right answers, and all wrong ones, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modeltiers.domain.distill.scores import Score, score
from modeltiers.domain.gate.items import FULL

MARK: Final = 500
"""From so many permille on an answer counts as liked, where `minScorePermille` does not say."""
MODELS: Final = ("student", "incumbent", "base", "teacher")

Row = Mapping[str, Any]
"""A line of `judge.jsonl`: `item`, `cluster`, `slice`, `part`; by model `scores`, the mean of its answers' scores where
there is one, `answers`, each answer's score or None, and `right`, what the verifiers say of each; None where the judge
was not asked."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How judge and verifiers agree over single answers; a share is None where there is no such answer."""

    mark: int
    answers: int
    agreement: Score | None
    """Answers on which both say the same."""
    passed: Score | None
    """Of the right answers, those that the judge likes."""
    caught: Score | None
    """Of the wrong answers, those that it does not like."""

    @property
    def tells(self) -> bool | None:
        """Whether it is shown to do better than chance: by the lower bounds of both shares. None: not to be said."""
        if self.passed is None or self.caught is None:
            return None
        return self.passed.low + self.caught.low > 1


def judged(item: Row, answers: Mapping[str, Sequence[int | None]], right: Mapping[str, Sequence[bool | None]]) -> Row:
    """The line of an item, whose answers have these scores."""
    kept = {name: item[name] for name in ("item", "cluster", "slice", "part")}
    scored = {model: [one for one in each if one is not None] for model, each in answers.items()}
    means = {model: round(sum(some) / len(some)) for model, some in scored.items() if some}
    return {**kept, "scores": means, "answers": dict(answers), "right": dict(right)}


def trust(rows: Sequence[Row], mark: int | None) -> Trust:
    """How far the judge agrees with the verifiers, over all models' answers that have a score."""
    limit = mark or MARK
    pairs = list(_pairs(rows, limit))
    return Trust(
        limit,
        len(pairs),
        _share((cluster, likes == right) for cluster, likes, right in pairs),
        _share((cluster, likes) for cluster, likes, right in pairs if right),
        _share((cluster, not likes) for cluster, likes, right in pairs if not right),
    )


def _pairs(rows: Sequence[Row], mark: int) -> Iterator[tuple[str, bool, bool]]:
    for row in rows:
        for model, scores in row["answers"].items():
            for given, right in zip(scores, row["right"][model], strict=True):
                if given is not None and right is not None:
                    yield str(row["cluster"]), given >= mark, right


def _share(found: Iterator[tuple[str, bool]]) -> Score | None:
    return score(({"cluster": cluster, "scores": {"": FULL * yes}} for cluster, yes in found), "")


def figures(rows: Sequence[Row], mark: int | None) -> dict[str, Any]:
    """As small figures for status and provenance, in permille."""
    evaluation = [row for row in rows if row["part"] == "evaluation"]
    means = {model: one for model in MODELS if (one := score(evaluation, model)) is not None}
    found = trust(rows, mark)
    shares = {"agreement": found.agreement, "passed": found.passed, "caught": found.caught}
    return {
        "meansPermille": {model: round(FULL * one.mean) for model, one in means.items()},
        "markPermille": found.mark,
        "answers": found.answers,
        **{f"{name}Permille": round(FULL * one.mean) for name, one in shares.items() if one is not None},
    }
