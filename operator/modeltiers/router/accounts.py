"""The account of a request that has ended: its decision record, its line in the log, the tokens it used.

Nothing of prompt or answer is in either.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from modeltiers.domain.routing import record
from modeltiers.router.logs import Line

if TYPE_CHECKING:
    from modeltiers.router.exchange import Ending, Exchange


class Account(Struct, frozen=True):
    """What is told of a request."""

    record: record.DecisionRecord
    line: Line
    tokens: int | None
    """All that all attempts used; None when no tier said."""


def account(exchange: Exchange, ending: Ending) -> Account:
    """Return the account of an exchange that has just ended."""
    accepted, attempts = exchange.accepted, tuple(exchange.attempts)
    cost = record.account(accepted.route.policy.ladder, attempts)
    made = record.DecisionRecord(
        format=record.FORMAT,
        id=accepted.id,
        time_ms=accepted.time_ms,
        policy=accepted.route.policy.policy.name,
        table=accepted.route.table,
        ask=accepted.ask,
        load=accepted.load,
        choice=accepted.choice,
        attempts=attempts,
        final_tier=ending.tier if ending.outcome == "Answered" else None,
        cost=cost,
    )
    prompt = cost.answer.prompt_tokens + cost.decision.prompt_tokens
    completion = cost.answer.completion_tokens + cost.decision.completion_tokens
    line = Line(
        time_ms=accepted.time_ms,
        id=accepted.id,
        policy=made.policy,
        tier=ending.tier,
        outcome=ending.outcome,
        reason=exchange.reason,
        status=ending.status,
        ms=int((time.monotonic() - accepted.began) * 1000),
        prompt_tokens=prompt,
        completion_tokens=completion,
        stream=accepted.ask.stream,
        key=accepted.key,
        attempts=len(attempts),
    )
    return Account(made, line, prompt + completion if prompt or completion or not attempts else None)
