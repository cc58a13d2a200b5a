"""Counts what the requests of one policy met, where they were decided: plain sums over decision records.

The same sums can be made again from a spool of records. A request that another router forwarded is in the sums of that
router, so nothing is counted twice.
"""

from __future__ import annotations

from msgspec import Struct, field

from modeltiers.domain.routing.record import Attempt, DecisionRecord

PASSED_OVER = frozenset({"NotReady", "Saturated"})
"""Reasons of a choice that fell on a tier because the one that was wanted could not take the request."""


class TierTokens(Struct, rename="camel"):
    """Tokens that one tier was asked for, as it counted them."""

    prompt: int = 0
    """Of every attempt, those included whose answer was thrown away: all of them cost."""
    completion: int = 0
    answer_prompt: int = 0
    """Of the answers that were given."""
    answer_completion: int = 0


class Tally(Struct, rename="camel"):
    """The sums, from zero at some start; they only grow."""

    answered: dict[str, int] = field(default_factory=dict)
    """Requests by the tier whose answer was given."""
    judged: int = 0
    """Answers that were judged."""
    escalated: dict[str, int] = field(default_factory=dict)
    """Judged answers for which a tier above was asked, by the verdict's reason."""
    fallbacks: int = 0
    """Requests answered by another tier than choice and verdicts led to, since that one could not."""
    unmetered: int = 0
    """Requests whose answer came without a count of its tokens."""
    tokens: dict[str, TierTokens] = field(default_factory=dict)
    """By tier."""

    def count(self, record: DecisionRecord) -> None:
        """Add a request that has ended."""
        final, choice = record.final_tier, record.choice
        led = choice.tiers[0] if choice.tiers else None
        metered = False
        for attempt in record.attempts:
            if attempt.verdict is not None:
                self.judged += 1
                if went_up(attempt):
                    reason = attempt.verdict.reason
                    self.escalated[reason] = self.escalated.get(reason, 0) + 1
                    place = choice.tiers.index(attempt.tier) + 1
                    led = choice.tiers[place] if place < len(choice.tiers) else None
            usage = attempt.usage
            prompt, completion = usage.prompt_tokens, usage.completion_tokens
            if prompt or completion:
                found = self.tokens.get(attempt.tier)
                if found is None:
                    found = self.tokens[attempt.tier] = TierTokens()
                found.prompt += prompt
                found.completion += completion
                if attempt.outcome == "Answered":
                    metered = True
                    found.answer_prompt += prompt
                    found.answer_completion += completion
        if final is not None:
            self.answered[final] = self.answered.get(final, 0) + 1
            self.fallbacks += final != led or choice.reason in PASSED_OVER
            self.unmetered += not metered


def went_up(attempt: Attempt) -> bool:
    """Whether a tier above was asked because the answer was found wanting, also where it was given in the end.

    One that was found wanting and given at once has no reason of its own: nobody above was asked.
    """
    verdict = attempt.verdict
    return verdict is not None and not verdict.accepted and attempt.reason is not None
