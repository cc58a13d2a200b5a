"""A decision as a program stores it: plain values, in permille, bounds rounded away from the middle."""

from __future__ import annotations

from math import ceil, floor
from typing import Any, Final

from modeltiers.domain.gate.decide import Decision
from modeltiers.domain.gate.paired import Comparison
from modeltiers.domain.gate.verdict import Verdict

_FIRST: Final = ("needed", "differencePermille", "lowerPermille")


def to_mapping(decision: Decision) -> dict[str, Any]:
    """The decision with every comparison. `needed` and the figures after it are those of the first: the student against
    its reference; they are absent where nothing was looked at."""
    first = _verdict(decision.verdicts[0]) if decision.verdicts else {}
    told = {key: value for key, value in first.items() if key in _FIRST}
    return {
        "decision": decision.outcome,
        "why": decision.why,
        "items": decision.items,
        **told,
        "more": decision.more,
        "alpha": decision.alpha,
        "looks": len(decision.ledger.spent),
        "comparisons": [_verdict(one) for one in decision.verdicts],
        "findings": [
            {"reason": one.reason, "outcome": one.outcome, "message": one.message} for one in decision.findings
        ],
        "meansPermille": {target: round(1000 * value) for target, value in decision.means.items()},
    }


def _verdict(one: Verdict) -> dict[str, Any]:
    return {
        "name": one.name,
        "reference": one.reference,
        "outcome": one.outcome,
        "why": one.why,
        "marginPermille": one.margin,
        "items": one.n,
        "needed": one.needed,
        "more": one.more,
        **(_seen(one.seen) if one.seen else {}),
    }


def _seen(seen: Comparison) -> dict[str, Any]:
    return {
        "differencePermille": round(1000 * seen.difference),
        # Rounding first keeps a bound that is whole but for the last digit of a float.
        "lowerPermille": max(-1000, floor(round(1000 * seen.lower, 6))),
        "upperPermille": min(1000, ceil(round(1000 * seen.upper, 6))),
        "pValue": seen.p_value,
        "pWorse": seen.p_worse,
        "clusters": seen.clusters,
        "discordancePermille": round(1000 * seen.discordance),
        "designEffect": round(seen.design_effect, 3),
    }
