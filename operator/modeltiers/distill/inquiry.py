"""Whom a stage asks, from which ledger and within which budget: what all stages that ask have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modeltiers.api.distilljob import Generation
from modeltiers.distill.accounts import Account, Accounts, ledger_of
from modeltiers.distill.asking import Asking
from modeltiers.distill.client import Asked, Client
from modeltiers.distill.ledger import Ledger
from modeltiers.distill.stage import Work
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.plan import Target
from modeltiers.domain.distill.requests import Request
from modeltiers.domain.distill.spend import Cap, Purse


@dataclass(frozen=True)
class Inquiry:
    """One stage's questions to one model."""

    work: Work
    asked: Asked
    ledger: Ledger
    cap: Cap
    accounts: Accounts | None
    """What the job spends; None where the model is not paid for."""
    concurrency: int
    max_tokens: int

    def ask(self, requests: Iterable[Request], of: int, patience: Patience) -> None:
        """Ask for `of` answers, as far as the ledger has not got them."""
        self.work.check()
        spent = self.ledger.spent
        purse = Purse(self.cap, self.max_tokens, spent.tokens + spent.doubtful)
        seconds = float((self.work.plan.spec.generation or Generation()).timeout_seconds)
        client = Client(self.asked, seconds, self.concurrency)
        asking = Asking(client, self.ledger, purse, patience, self.work.stop.is_set)
        asking.told = lambda: self.work.progress.at(asking.done, of, "answers", spend=self.spend())
        asyncio.run(asking.all(requests))

    def spend(self) -> dict[str, Any]:
        """What the job spent so far, over all stages; nothing where the model is not paid for."""
        return self.accounts.told() if self.accounts else {}


def of_teacher(work: Work, *, concurrency: int, max_tokens: int) -> Inquiry:
    """Questions to the teacher."""
    accounts = Accounts.of(work)
    return _paid(work, accounts, accounts.teacher, concurrency, max_tokens)


def of_judge(work: Work) -> Inquiry:
    """Questions to the judge, which the job has."""
    accounts, judge = Accounts.of(work), work.plan.spec.judge
    assert judge is not None, "the stage has one"
    assert accounts.judge is not None, "likewise"
    return _paid(work, accounts, accounts.judge, judge.concurrency, judge.max_tokens)


def of_other(work: Work, target: Target, who: str, where: str, *, concurrency: int, max_tokens: int) -> Inquiry:
    """Questions to a model under test. Its weights are what the stage rests on, so its ledger is the stage's."""
    asked = Asked(target, who, where, where, "spec.evaluation")
    ledger = ledger_of(work, {"stage": work.digest, "model": target.model})
    return Inquiry(work, asked, ledger, Cap(), None, concurrency, max_tokens)


def _paid(work: Work, accounts: Accounts, one: Account, concurrency: int, max_tokens: int) -> Inquiry:
    return Inquiry(work, one.asked, one.ledger, accounts.cap(one), accounts, concurrency, max_tokens)
