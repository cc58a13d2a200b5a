"""Whom a stage asks, from which ledger and within which budget: what generating and evaluating have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modeltiers.api.distilljob import Generation
from modeltiers.distill.asking import Asking
from modeltiers.distill.client import Asked, Client
from modeltiers.distill.faults import BadData
from modeltiers.distill.ledger import Ledger
from modeltiers.distill.stage import Work
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.plan import Plan, Target
from modeltiers.domain.distill.requests import Request
from modeltiers.domain.distill.spend import Cap, Purse, cost_micros
from modeltiers.domain.distill.stages import Stage, hash_of


@dataclass(frozen=True)
class Inquiry:
    """One stage's questions to one model."""

    work: Work
    asked: Asked
    ledger: Ledger
    cap: Cap
    counted: bool
    """Whether what it takes is the teacher's, and so counts against the budget."""
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
        """What the job spent on the teacher so far, over all stages; nothing where the model is another."""
        if not self.counted:
            return {}
        spent, price = self.ledger.spent, self.asked.target.price
        cost = {"costMicros": cost_micros(spent.tokens, price), "currency": price.currency} if price else {}
        tokens = {"promptTokens": spent.tokens.prompt, "answerTokens": spent.tokens.answer}
        return {**tokens, **cost, "inDoubt": spent.in_doubt}


def of_teacher(work: Work, *, concurrency: int, max_tokens: int) -> Inquiry:
    """Questions to the teacher. Its ledger is the same for all stages that ask it, whatever they rest on."""
    target = work.plan.teacher
    if target is None:
        raise BadData(f"the plan names no teacher, which {work.stage.value} asks", reason="InvalidPlan")
    settings = "spec.generation" if work.stage is Stage.GENERATE else "spec.evaluation"
    own = not target.external
    asked = Asked(target, "the teacher", "spec.teacher", "spec.teacher.keyRef", settings, fingerprinted=own)
    identity = hash_of({"baseUrl": target.base_url.rstrip("/"), "model": target.model})
    return Inquiry(work, asked, _ledger(work, identity), cap_of(work.plan), True, concurrency, max_tokens)


def of_other(work: Work, target: Target, who: str, where: str, *, concurrency: int, max_tokens: int) -> Inquiry:
    """Questions to a model under test. Its weights are what the stage rests on, so its ledger is the stage's."""
    asked = Asked(target, who, where, where, "spec.evaluation")
    identity = hash_of({"stage": work.digest, "model": target.model})
    return Inquiry(work, asked, _ledger(work, identity), Cap(), False, concurrency, max_tokens)


def cap_of(plan: Plan) -> Cap:
    """Where spending on the teacher stops; BadData where money is capped and no price is known."""
    budget, price = plan.spec.budget, plan.teacher.price if plan.teacher else None
    if budget is None:
        return Cap()
    if budget.cost_micros is not None and price is None:
        teacher = plan.spec.teacher
        tier = f"spec.external.price of ModelTier {teacher.tier_ref.name}" if teacher.tier_ref else ""
        where = tier or "spec.teacher.endpoint.price"
        raise BadData(
            f"spec.budget.costMicros needs the teacher's price: set {where}, or cap spec.budget.teacherTokens",
            reason="PriceUnknown",
            field="spec.budget.costMicros",
        )
    return Cap(budget.teacher_tokens, budget.cost_micros, price)


def _ledger(work: Work, identity: str) -> Ledger:
    return Ledger.read(work.root.sub(f"ledger/{identity}"), work.plan.job, work.stage.value)
