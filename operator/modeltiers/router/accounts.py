"""The account of a request that has ended: its decision record, the tokens it used, its line in the log.

Nothing of prompt or answer is in any of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from modeltiers.domain.routing import record
from modeltiers.domain.routing.record import Attempt, DecisionRecord
from modeltiers.router.logs import Line
from modeltiers.router.outgoing import Accepted

if TYPE_CHECKING:
    from modeltiers.router.exchange import Ending, Exchange


def record_of(accepted: Accepted, attempts: Iterable[Attempt] = (), final_tier: str | None = None) -> DecisionRecord:
    """Return the decision record of a request that has ended, or that the policy refused."""
    attempts = tuple(attempts)
    route = accepted.route
    return DecisionRecord(  # by place: msgspec looks for each name among all
        record.FORMAT,
        accepted.id,
        accepted.time_ms,
        route.policy.policy.name,
        route.table,
        accepted.ask,
        accepted.load,
        accepted.choice,
        attempts,
        final_tier,
        record.account(route.policy.ladder, attempts),
    )


def used(made: DecisionRecord) -> int | None:
    """Return how many tokens all attempts used; None when tiers were asked and none said."""
    answer, decision = made.cost.answer, made.cost.decision
    tokens = answer.prompt_tokens + answer.completion_tokens + decision.prompt_tokens + decision.completion_tokens
    return tokens if tokens or not made.attempts else None


def line_of(exchange: Exchange, ending: Ending, made: DecisionRecord) -> Line:
    """Return the line for the log."""
    accepted, cost = exchange.accepted, made.cost
    return Line(
        time_ms=accepted.time_ms,
        id=accepted.id,
        policy=made.policy,
        tier=ending.tier,
        outcome=ending.outcome,
        reason=exchange.reason,
        status=ending.status,
        ms=int((time.monotonic() - accepted.began) * 1000),
        prompt_tokens=cost.answer.prompt_tokens + cost.decision.prompt_tokens,
        completion_tokens=cost.answer.completion_tokens + cost.decision.completion_tokens,
        stream=accepted.ask.stream,
        key=accepted.key,
        attempts=len(made.attempts),
    )
