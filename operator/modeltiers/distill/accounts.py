"""What the job spent on the models that it pays for, teacher and judge, each by its own ledger, within one budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modeltiers.api.modeltier import TokenPrice
from modeltiers.distill.client import Asked
from modeltiers.distill.faults import BadData
from modeltiers.distill.ledger import Ledger
from modeltiers.distill.stage import Work
from modeltiers.domain.distill.plan import Plan, Target
from modeltiers.domain.distill.spend import Cap, cost_micros
from modeltiers.domain.distill.stages import Stage, hash_of


@dataclass(frozen=True)
class Account:
    """One model that is paid for, and what it took."""

    asked: Asked
    ledger: Ledger

    @property
    def target(self) -> Target:
        """Where it is asked."""
        return self.asked.target

    def told(self) -> dict[str, Any]:
        """What the job spent on it so far, over all stages."""
        spent, price = self.ledger.spent, self.target.price
        cost = {"costMicros": cost_micros(spent.tokens, price), "currency": price.currency} if price else {}
        tokens = {"promptTokens": spent.tokens.prompt, "answerTokens": spent.tokens.answer}
        return {**tokens, **cost, "inDoubt": spent.in_doubt}


@dataclass(frozen=True)
class Accounts:
    """Those of a job: the teacher's, and the judge's where it has one."""

    plan: Plan
    teacher: Account
    judge: Account | None = None

    @classmethod
    def of(cls, work: Work) -> Accounts:
        """As the store has them; BadData where the plan does not say who they are."""
        judge = _judge(work) if work.plan.spec.judge else None
        return cls(work.plan, _teacher(work), judge)

    def told(self) -> dict[str, Any]:
        """What was spent, as status has it: the teacher's, and the judge's apart."""
        return {**self.teacher.told(), **({"judge": self.judge.told()} if self.judge else {})}

    def cap(self, own: Account) -> Cap:
        """Where asking one of them stops, given what the other took; BadData where money is capped and not known."""
        budget = self.plan.spec.budget
        if budget is None:
            return Cap()
        others = [one for one in (self.teacher, self.judge) if one is not None and one is not own]
        taken = [one.ledger.spent.tokens + one.ledger.spent.doubtful for one in others]
        tokens = sum(one.total for one in taken)
        if budget.cost_micros is None:
            return Cap(budget.teacher_tokens, other_tokens=tokens)
        prices = [self._price(one) for one in (own, *others)]
        if len({price.currency for price in prices}) > 1:
            said = " and ".join(sorted({price.currency for price in prices}))
            raise _unknown(f"prices in one currency, and teacher and judge have {said}: cap spec.budget.teacherTokens")
        micros = sum(cost_micros(one, price) for one, price in zip(taken, prices[1:], strict=True))
        return Cap(budget.teacher_tokens, budget.cost_micros, prices[0], tokens, micros)

    def _price(self, of: Account) -> TokenPrice:
        """The price of a model's tokens; none on accelerators of this cluster beside one that has a price."""
        if (price := of.target.price) is not None:
            return price
        others = [one.target.price for one in (self.teacher, self.judge) if one is not None and one is not of]
        if not of.target.external and others and others[0] is not None:
            return TokenPrice(input_per_million_micros=0, output_per_million_micros=0, currency=others[0].currency)
        named = self.plan.spec.judge if of is self.judge else self.plan.spec.teacher
        ref = named.tier_ref if named else None
        where = f"spec.external.price of ModelTier {ref.name}" if ref else f"{of.asked.field}.endpoint.price"
        raise _unknown(f"{of.asked.who}'s price: set {where}, or cap spec.budget.teacherTokens")


def _unknown(what: str) -> BadData:
    said = f"spec.budget.costMicros needs {what}"
    return BadData(said, reason="PriceUnknown", field="spec.budget.costMicros")


def _teacher(work: Work) -> Account:
    target = work.plan.teacher
    if target is None:
        raise BadData(f"the plan names no teacher, which {work.stage.value} asks or counts", reason="InvalidPlan")
    settings = "spec.generation" if work.stage is Stage.GENERATE else "spec.evaluation"
    own = not target.external
    asked = Asked(target, "the teacher", "spec.teacher", "spec.teacher.keyRef", settings, fingerprinted=own)
    # The same for all stages that ask it, whatever they rest on.
    return Account(asked, ledger_of(work, {"baseUrl": target.base_url.rstrip("/"), "model": target.model}))


def _judge(work: Work) -> Account:
    target = work.plan.judge
    if target is None:
        raise BadData(f"the plan names no judge, which {work.stage.value} asks or counts", reason="InvalidPlan")
    own = not target.external
    asked = Asked(target, "the judge", "spec.judge", "spec.judge.keyRef", "spec.judge", fingerprinted=own, role="Judge")
    # A ledger of its own, even where the teacher is the judge: what is spent on the two is told apart.
    return Account(asked, ledger_of(work, {"judge": target.base_url.rstrip("/"), "model": target.model}))


def ledger_of(work: Work, identity: dict[str, str]) -> Ledger:
    """The ledger of a model, by what identifies it."""
    return Ledger.read(work.root.sub(f"ledger/{hash_of(identity)}"), work.plan.job, work.stage.value)
