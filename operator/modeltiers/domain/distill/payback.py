"""After how many days a student has earned what its teacher was paid, said before it is trained. Pure.

What was paid and what a day costs come from prices in the spec and in tiers; a price that is missing makes the estimate
unknown. Training's own accelerators are not counted: how long they run is not known before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modeltiers.api.distilljob import DistillJobSpec, Traffic
from modeltiers.api.modeltier import ModelTierSpec, TokenPrice
from modeltiers.domain.gate import payback as gate
from modeltiers.domain.scaling import most_pods

Tier = tuple[ModelTierSpec, Mapping[str, Any]]
"""Spec and status of a ModelTier."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Days, never (known, without days), or unknown; and how that comes."""

    how: str
    days: int | None = None
    known: bool = True

    @property
    def status(self) -> dict[str, Any]:
        """As a DistillJob's status shows it."""
        return {"how": self.how} if self.days is None else {"days": self.days, "how": self.how}

    def within(self, most: int) -> bool:
        """Whether it is known to take no more days than that."""
        return self.days is not None and self.days <= most


def estimate(
    spec: DistillJobSpec, traffic: Traffic, spend: Mapping[str, Any] | None, teacher: Tier | None, target: Tier | None
) -> Estimate:
    """Estimate it from what the teacher was paid so far; `teacher` and `target` are the tiers that the spec names."""
    large, paid = token_price(spec, teacher), _paid(spend or {})
    if large is None or not isinstance(paid, int):
        return _unknown(f"what an answer of the teacher costs: set {_where(spec)}")
    name = spec.promotion.tier_ref.name if spec.promotion and spec.promotion.tier_ref else None
    if name is None:
        return _unknown("where the student would serve: set promotion.tierRef")
    if target is None or target[0].price is None:
        return _unknown(f"what the student's accelerators cost: set spec.price of ModelTier {name}")
    each = (target[1].get("sizing") or {}).get("gpusPerReplica")
    if not isinstance(each, int):
        return _unknown(f"how many accelerators ModelTier {name} takes: it is not sized yet")
    price, gpus = target[0].price, each * most_pods(target[0])[1]
    found = gate.payback(
        gate.Prices(
            large=gate.TokenPrice(large.input_per_million_micros, large.output_per_million_micros, large.currency),
            student=gate.OwnGpus(price.gpu_hour_micros, gpus, price.currency),
        ),
        gate.Traffic(traffic.requests_per_day, traffic.prompt_tokens, traffic.answer_tokens, share_then=1000),
        paid,
        large.currency,
    )
    if found.saved_per_day_micros is None:
        return _unknown(str(found.unknown))
    after = 24 * gpus * price.gpu_hour_micros
    money = [_money(one, large.currency) for one in (paid, found.saved_per_day_micros + after, after)]
    result = "never" if found.days is None else f"{found.days} days"
    how = (
        f"{result} = {money[0]} paid for answers / ({money[1]} a day for the teacher's answers to"
        f" {traffic.requests_per_day:,} requests - {money[2]} a day for {gpus} accelerators of ModelTier {name});"
        " the training's own accelerators are not counted"
    )
    return Estimate(how, found.days)


def _paid(spend: Mapping[str, Any]) -> int | None:
    """What teacher and judge were paid; None where the teacher's price, or their common currency, is not known."""
    paid, judge = spend.get("costMicros"), spend.get("judge") or {}
    if not isinstance(paid, int) or not isinstance(judge.get("costMicros"), int):
        return paid if isinstance(paid, int) else None  # a judge on accelerators of this cluster is not paid
    return paid + int(judge["costMicros"]) if judge.get("currency") == spend.get("currency") else None


def token_price(spec: DistillJobSpec, teacher: Tier | None) -> TokenPrice | None:
    """What the teacher charges for a token; None where it charges none, or that is not known."""
    if spec.teacher.endpoint:
        return spec.teacher.endpoint.price
    return teacher[0].external.price if teacher and teacher[0].external else None


def _where(spec: DistillJobSpec) -> str:
    if spec.teacher.endpoint or spec.teacher.tier_ref is None:
        return "teacher.endpoint.price"
    return (
        f"spec.external.price of ModelTier {spec.teacher.tier_ref.name}. Of a tier on accelerators of this cluster no"
        " price of a token is known"
    )


def _unknown(what: str) -> Estimate:
    return Estimate(f"unknown: it is not known {what}", known=False)


def _money(micros: int, currency: str) -> str:
    return f"{micros / 1_000_000:,.2f} {currency}"
