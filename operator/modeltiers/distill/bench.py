"""The judge at work: asked for the score of each answer once, and what it said of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from modeltiers.api.distilljob_asked import Judge
from modeltiers.distill.inquiry import Inquiry, of_judge
from modeltiers.distill.stage import Work
from modeltiers.domain.distill.judge import no_score, request_of, score_of
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.requests import Request

Asked = tuple[Mapping[str, Any], str]
"""A row and the text that answers it."""


class Score(NamedTuple):
    """What the judge gave an answer, in permille; None with the reason where that is no score."""

    permille: int | None
    why: str = ""


@dataclass
class Bench:
    """The judge of a stage."""

    judge: Judge
    inquiry: Inquiry
    given: Counter[int] = field(default_factory=Counter)
    """How often each score was given."""
    without: int = 0
    """Answers that it gave no score."""

    @classmethod
    def of(cls, work: Work) -> Bench:
        """The judge of a job that has one."""
        assert work.plan.spec.judge is not None, "the caller looks"
        return cls(work.plan.spec.judge, of_judge(work))

    def ask(self, answers: Iterable[Asked], of: int, patience: Patience) -> None:
        """Ask for the scores of `of` answers, as far as the ledger has not got them."""
        self.inquiry.ask((self._request(row, text) for row, text in answers), of, patience)

    def score(self, row: Mapping[str, Any], text: str) -> Score:
        """What it said of an answer, counted."""
        key = self._request(row, text).key
        found = self.inquiry.ledger.reply(key)
        if found is None:
            self.without += 1
            why = self.inquiry.ledger.refused.get(key, "not asked")
            return Score(None, f"the judge gave no reply: {why}")
        score = score_of(found["choice"])
        if score is None:
            self.without += 1
            return Score(None, no_score(found["choice"]))
        self.given[score] += 1
        return Score(score)

    def facts(self) -> dict[str, Any]:
        """Who it was, and what it gave."""
        served = self.inquiry.ledger.served
        given = {str(score): count for score, count in sorted(self.given.items())}
        model = served.model if served else self.inquiry.asked.target.model
        return {"model": model, "scored": self.given.total(), "notScored": self.without, "given": given}

    def _request(self, row: Mapping[str, Any], text: str) -> Request:
        return request_of(self.inquiry.asked.target.model, self.judge, row, text)
