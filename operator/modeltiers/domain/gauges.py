"""What the operator tells Prometheus of each object: its conditions, and the figures in its status.

From the object alone, as it was seen last; a field that is missing or of another type gives no sample. Label values are
names of objects and words of closed sets, so the number of series is bounded by the number of objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A family of gauges: its name, what it means, and its labels."""

    name: str
    meaning: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family, with the values of its labels in their order."""

    gauge: Gauge
    labels: tuple[str, ...]
    value: float


_TIER: Final = ("namespace", "tier")
_POLICY: Final = ("namespace", "policy")
_JOB: Final = ("namespace", "distilljob")

CONDITION: Final = Gauge(
    "modeltiers_condition",
    "1 for each condition of each object, as it is now",
    ("kind", "namespace", "name", "condition", "status", "reason"),
)
REPLICAS: Final = Gauge("modeltiers_tier_replicas", "Pods of a tier that exist", _TIER)
READY_REPLICAS: Final = Gauge("modeltiers_tier_ready_replicas", "Pods of a tier that answer", _TIER)
ACCELERATORS: Final = Gauge(
    "modeltiers_tier_accelerators", "Accelerators of a tier's pods, by its plan", (*_TIER, "product")
)
TIER_COST: Final = Gauge(
    "modeltiers_tier_cost_micros_per_hour",
    "Price of a tier's pods, in millionths of the currency",
    (*_TIER, "currency"),
)
WANTED: Final = Gauge("modeltiers_tier_autoscaler_wanted", "Pods that the operator's own autoscaler wants", _TIER)
ENTRY: Final = Gauge("modeltiers_policy_entry", "1 for the tier where a policy's requests enter", (*_POLICY, "tier"))
ROUTERS: Final = Gauge("modeltiers_policy_routers", "Routers that should serve a policy's present table", _POLICY)
ROUTERS_LIVE: Final = Gauge("modeltiers_policy_routers_live", "Routers that are known to serve it", _POLICY)
POLICY_COST: Final = Gauge(
    "modeltiers_policy_cost_per_thousand_micros",
    "Cost of a thousand requests, in millionths of the currency; absent while unknown",
    (*_POLICY, "currency"),
)
ALL_LARGE_COST: Final = Gauge(
    "modeltiers_policy_all_large_cost_per_thousand_micros",
    "The same on the last tier of the ladder alone; absent while unknown",
    (*_POLICY, "currency"),
)
SAVED: Final = Gauge(
    "modeltiers_policy_saved_permille",
    "Part of the second that the first saves, in thousandths; below 0 where it costs more; absent while unknown",
    _POLICY,
)
STAGE: Final = Gauge(
    "modeltiers_distill_stage", "1 for each stage that was begun, in its state", (*_JOB, "stage", "state")
)
PROGRESS: Final = Gauge(
    "modeltiers_distill_progress_ratio", "Part of the running stage that is done, by its count", _JOB
)
TEACHER_TOKENS: Final = Gauge(
    "modeltiers_distill_teacher_tokens", "Tokens that the teacher's answers counted, by kind", (*_JOB, "kind")
)
TEACHER_COST: Final = Gauge(
    "modeltiers_distill_teacher_cost_micros",
    "What they cost, in millionths of the currency; absent where no price is known",
    (*_JOB, "currency"),
)
JUDGE_TOKENS: Final = Gauge(
    "modeltiers_distill_judge_tokens", "Tokens that the judge's replies counted, by kind", (*_JOB, "kind")
)
JUDGE_COST: Final = Gauge(
    "modeltiers_distill_judge_cost_micros",
    "What they cost, in millionths of the currency; absent where no price is known",
    (*_JOB, "currency"),
)
DECISION: Final = Gauge("modeltiers_distill_gate_decision", "1 for what the gate said", (*_JOB, "decision"))
DIFFERENCE: Final = Gauge(
    "modeltiers_distill_gate_difference_permille", "Student less incumbent, in thousandths of the score", _JOB
)
LOWER: Final = Gauge("modeltiers_distill_gate_lower_permille", "Lower confidence bound of that", _JOB)
PROMOTION: Final = Gauge("modeltiers_distill_promotion", "1 for where the student stands in its tier", (*_JOB, "state"))
WEIGHT: Final = Gauge("modeltiers_distill_promotion_weight_permille", "The student's share of conversations", _JOB)

GAUGES: Final = (
    *(CONDITION, REPLICAS, READY_REPLICAS, ACCELERATORS, TIER_COST, WANTED),
    *(ENTRY, ROUTERS, ROUTERS_LIVE, POLICY_COST, ALL_LARGE_COST, SAVED),
    *(
        STAGE,
        PROGRESS,
        TEACHER_TOKENS,
        TEACHER_COST,
        JUDGE_TOKENS,
        JUDGE_COST,
        DECISION,
        DIFFERENCE,
        LOWER,
        PROMOTION,
        WEIGHT,
    ),
)
"""All of them."""


def samples(kind: str, body: Body) -> Iterator[Sample]:
    """Everything that is told of one object."""
    metadata = _map(body.get("metadata"))
    owner = (str(metadata.get("namespace", "")), str(metadata.get("name", "")))
    status = _map(body.get("status"))
    for item in _maps(status.get("conditions")):
        words = [item.get(name) for name in ("type", "status", "reason")]
        if all(isinstance(word, str) for word in words):
            yield Sample(CONDITION, (kind, *owner, *map(str, words)), 1)
    yield from _OF_KIND[kind](owner, status)


def _tier(owner: tuple[str, str], status: Body) -> Iterator[Sample]:
    sizing, cost = _map(status.get("sizing")), _map(status.get("cost"))
    yield from _number(REPLICAS, owner, status.get("replicas"))
    yield from _number(READY_REPLICAS, owner, status.get("readyReplicas"))
    each, replicas = sizing.get("gpusPerReplica"), status.get("replicas")
    if isinstance(each, int) and isinstance(replicas, int):
        yield Sample(ACCELERATORS, (*owner, str(sizing.get("product", ""))), each * replicas)
    yield from _number(TIER_COST, (*owner, str(cost.get("currency", ""))), cost.get("perHourMicros"))
    yield from _number(WANTED, owner, _map(status.get("autoscaling")).get("wanted"))


def _policy(owner: tuple[str, str], status: Body) -> Iterator[Sample]:
    table, cost = _map(status.get("table")), _map(status.get("cost"))
    currency = str(cost.get("currency", ""))
    yield from _word(ENTRY, owner, _map(status.get("entry")).get("tier"))
    yield from _number(ROUTERS, owner, table.get("pods"))
    yield from _number(ROUTERS_LIVE, owner, table.get("live"))
    yield from _number(POLICY_COST, (*owner, currency), cost.get("perThousandMicros"))
    yield from _number(ALL_LARGE_COST, (*owner, currency), cost.get("allLargePerThousandMicros"))
    yield from _number(SAVED, owner, cost.get("savedPermille"))


def _distilljob(owner: tuple[str, str], status: Body) -> Iterator[Sample]:
    for stage in _maps(status.get("stages")):
        yield from _word(STAGE, (*owner, str(stage.get("name", ""))), stage.get("state"))
    running = _map(status.get("running"))
    done, of = running.get("done"), running.get("of")
    if isinstance(done, int) and isinstance(of, int) and of > 0:
        yield Sample(PROGRESS, owner, done / of)
    spend = _map(status.get("spend"))
    for said, tokens, cost in (
        (spend, TEACHER_TOKENS, TEACHER_COST),
        (_map(spend.get("judge")), JUDGE_TOKENS, JUDGE_COST),
    ):
        yield from _number(tokens, (*owner, "prompt"), said.get("promptTokens"))
        yield from _number(tokens, (*owner, "answer"), said.get("answerTokens"))
        yield from _number(cost, (*owner, str(said.get("currency", ""))), said.get("costMicros"))
    gate, promotion = _map(status.get("gate")), _map(status.get("promotion"))
    yield from _word(DECISION, owner, gate.get("decision"))
    yield from _number(DIFFERENCE, owner, gate.get("differencePermille"))
    yield from _number(LOWER, owner, gate.get("lowerPermille"))
    yield from _word(PROMOTION, owner, promotion.get("state"))
    yield from _number(WEIGHT, owner, promotion.get("weightPermille") if promotion.get("state") else None)


_OF_KIND: Final = {"ModelTier": _tier, "RoutingPolicy": _policy, "DistillJob": _distilljob}


def _number(gauge: Gauge, labels: tuple[str, ...], value: object) -> Iterator[Sample]:
    if isinstance(value, int):
        yield Sample(gauge, labels, value)


def _word(gauge: Gauge, labels: tuple[str, ...], word: object) -> Iterator[Sample]:
    """A sample of 1 with the word as its last label."""
    if isinstance(word, str) and word:
        yield Sample(gauge, (*labels, word), 1)


def _map(value: object) -> Body:
    return value if isinstance(value, Mapping) else {}


def _maps(value: object) -> Iterator[Body]:
    yield from (item for item in (value if isinstance(value, list) else ()) if isinstance(item, Mapping))
