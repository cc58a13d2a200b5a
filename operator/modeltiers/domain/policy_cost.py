"""What the requests of a policy cost, and what they would have cost on the last tier alone.

Pure and exact: every number that goes in is shown with its unit, and one rounding, to the nearest millionth, comes at
the end. What was not measured, or has no price, makes the result unknown, with the way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.domain.policy_traffic import GPU_MILLIS, SERVED, Counts

LEAST_REQUESTS: Final = 100
"""Requests below which a cost per thousand is an accident."""
LEAST_TOKENS: Final = 10_000
"""Tokens that a tier must have served before its cost per token counts as measured."""
UNMETERED_PERMILLE: Final = 50
"""Share of answers without a count of tokens above which tokens are not known well enough."""
_HOUR_MILLIS: Final = 3_600_000
FORMULA: Final = (
    "perThousandMicros = 1000 x (sum of the parts) / requests. Part of a tier with accelerators: gpuSeconds / 3600 x"
    " gpuHourPrice x tokens / allTokens, so idle time is included and policies share a tier by tokens (equally, 1 /"
    " policies, where allTokens is 0). Part of an external tier: (promptTokens x inputPrice + completionTokens x"
    " outputPrice) / 1000000; thrown-away answers included. allLargePerThousandMicros = 1000 x (what the answers'"
    " tokens cost on the last tier) / requests: (answerPromptTokens + answerCompletionTokens) x gpuSeconds / 3600 x"
    " gpuHourPrice / allTokens of that tier, or their tokens at its prices. savedPermille = 1000 x (1 -"
    " perThousandMicros / allLargePerThousandMicros). All over traffic.since to traffic.until; gpuSeconds are pods with"
    " a node x accelerators, as seen at each reading."
)


@dataclass(frozen=True, slots=True)
class TierMoney:
    """What is known of a tier's price. Prices are in millionths of the currency."""

    name: str
    external: bool = False
    gpu_hour: int | None = None
    """Of one accelerator for an hour."""
    tokens: tuple[int, int] | None = None
    """Of a million tokens of prompts and of answers."""
    currency: str | None = None
    policies: int = 1
    """How many policies cross it."""

    @classmethod
    def of(cls, name: str, spec: ModelTierSpec | None) -> TierMoney:
        """Read a ModelTier; None for one that is not there or not valid."""
        if spec is None:
            return cls(name)
        if spec.external is not None:
            price = spec.external.price
            tokens = (price.input_per_million_micros, price.output_per_million_micros) if price else None
            return cls(name, True, tokens=tokens, currency=price.currency if price else None)
        gpu_hour = spec.price.gpu_hour_micros if spec.price else None
        return cls(name, False, gpu_hour, currency=spec.price.currency if spec.price else None)

    def shared_by(self, policies: int) -> TierMoney:
        """Return the same for a tier that so many policies cross."""
        return replace(self, policies=max(1, policies))


def cost_of(counts: Counts, ladder: Sequence[TierMoney], *, partial: bool) -> dict[str, Any]:
    """The cost in a policy's status, from what was counted over a window; `ladder` in the order of the policy."""
    requests = sum(counts.get(("answered", tier.name), 0) for tier in ladder)
    used = [tier for tier in ladder if _tokens(counts, tier) or counts.get((GPU_MILLIS, tier.name), 0)]
    missing = _unmeasured(counts, requests, partial) or _unpriced([*used, ladder[-1]])
    if missing:
        return {"formula": FORMULA, "unknown": missing}
    currency = next(tier.currency for tier in [*used, ladder[-1]] if tier.currency)
    actual = _per_thousand(sum((_part(counts, tier) for tier in used), Fraction()), requests)
    cost: dict[str, Any] = {"formula": FORMULA, "currency": currency, "perThousandMicros": actual}
    large = ladder[-1]
    if reason := _immeasurable(counts, large):
        cost["unknown"] = reason
    else:
        alone = _per_thousand(_alone(counts, ladder), requests)
        cost["allLargePerThousandMicros"] = alone
        if alone:
            cost["savedPermille"] = max(-1_000_000, round(1000 * (1 - Fraction(actual, alone))))
    cost["inputs"] = [{"name": name, "value": value} for name, value in _inputs(counts, ladder, used, requests)]
    return cost


# --- what is not known ------------------------------------------------------------------------------------------------


def _unmeasured(counts: Counts, requests: int, partial: bool) -> str | None:
    if requests < LEAST_REQUESTS:
        return f"fewer than {LEAST_REQUESTS} requests were answered in the time that was counted"
    if partial:
        return "some routers could not be asked, so requests are missing; let the operator reach their admin port"
    unmetered = counts.get(("unmetered", ""), 0)
    if unmetered * 1000 > requests * UNMETERED_PERMILLE:
        share = f"over {UNMETERED_PERMILLE / 10:g}% of the answers came without a count of their tokens"
        return f"{share}; have the tier's API send usage"
    return None


def _unpriced(tiers: Sequence[TierMoney]) -> str | None:
    for tier in tiers:
        if tier.external and tier.tokens is None:
            return f"ModelTier {tier.name} has no price of tokens; set spec.external.price"
        if not tier.external and tier.gpu_hour is None:
            return f"ModelTier {tier.name} has no price; set spec.price"
    currencies = sorted({tier.currency for tier in tiers if tier.currency})
    if len(currencies) > 1:
        return f"tiers charge in {' and '.join(currencies)}, which do not add up; give all tiers one currency"
    return None


def _immeasurable(counts: Counts, large: TierMoney) -> str | None:
    if large.external:
        return None
    served = counts.get((SERVED, large.name), 0)
    if served < LEAST_TOKENS or not counts.get((GPU_MILLIS, large.name), 0):
        return (
            f"all-large: ModelTier {large.name} served fewer than {LEAST_TOKENS} tokens in the time that was counted,"
            " so what a token costs there is not measured"
        )
    return None


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _per_thousand(micros: Fraction, requests: int) -> int:
    return round(1000 * micros / requests)


def _tokens(counts: Counts, tier: TierMoney) -> int:
    return counts.get(("prompt", tier.name), 0) + counts.get(("completion", tier.name), 0)


def _hours_micros(counts: Counts, tier: TierMoney) -> Fraction:
    """What the tier's accelerators cost in all."""
    assert tier.gpu_hour is not None
    return Fraction(counts.get((GPU_MILLIS, tier.name), 0) * tier.gpu_hour, _HOUR_MILLIS)


def _priced(tier: TierMoney, prompt: int, completion: int) -> Fraction:
    assert tier.tokens is not None
    return Fraction(prompt * tier.tokens[0] + completion * tier.tokens[1], 1_000_000)


def _part(counts: Counts, tier: TierMoney) -> Fraction:
    """What of a tier this policy pays for."""
    if tier.external:
        return _priced(tier, counts.get(("prompt", tier.name), 0), counts.get(("completion", tier.name), 0))
    served = counts.get((SERVED, tier.name), 0)
    share = Fraction(_tokens(counts, tier), served) if served else Fraction(1, tier.policies)
    return _hours_micros(counts, tier) * share


def _alone(counts: Counts, ladder: Sequence[TierMoney]) -> Fraction:
    """What the tokens of all answers would have cost on the last tier."""
    prompt, completion = _answers(counts, ladder)
    large = ladder[-1]
    if large.external:
        return _priced(large, prompt, completion)
    return (prompt + completion) * _hours_micros(counts, large) / counts[SERVED, large.name]


def _answers(counts: Counts, ladder: Sequence[TierMoney]) -> tuple[int, int]:
    prompt = sum(counts.get(("answerPrompt", tier.name), 0) for tier in ladder)
    completion = sum(counts.get(("answerCompletion", tier.name), 0) for tier in ladder)
    return prompt, completion


# --- inputs -----------------------------------------------------------------------------------------------------------


def _inputs(
    counts: Counts, ladder: Sequence[TierMoney], used: Sequence[TierMoney], requests: int
) -> Iterator[tuple[str, str]]:
    prompt, completion = _answers(counts, ladder)
    yield "requests", f"{requests} requests"
    yield "answerPromptTokens", f"{prompt} tokens"
    yield "answerCompletionTokens", f"{completion} tokens"
    for tier in ladder:
        if tier in used or tier is ladder[-1]:
            for name, value in _inputs_of(counts, tier).items():
                yield f"{tier.name}.{name}", value


def _inputs_of(counts: Counts, tier: TierMoney) -> Mapping[str, str]:
    if tier.external:
        assert tier.tokens is not None
        return {
            "promptTokens": f"{counts.get(('prompt', tier.name), 0)} tokens",
            "completionTokens": f"{counts.get(('completion', tier.name), 0)} tokens",
            "inputPrice": f"{tier.tokens[0]} millionths of {tier.currency} a million tokens",
            "outputPrice": f"{tier.tokens[1]} millionths of {tier.currency} a million tokens",
        }
    millis = counts.get((GPU_MILLIS, tier.name), 0)
    served = counts.get((SERVED, tier.name), 0)
    shared = {} if served else {"policies": f"{tier.policies} policies"}
    return {
        "gpuSeconds": f"{millis // 1000}.{millis % 1000:03d} seconds of one accelerator",
        "gpuHourPrice": f"{tier.gpu_hour} millionths of {tier.currency} an hour of one accelerator",
        "tokens": f"{_tokens(counts, tier)} tokens",
        "allTokens": f"{served} tokens",
        **shared,
    }
