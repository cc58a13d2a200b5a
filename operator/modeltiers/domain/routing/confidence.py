"""From the logprobs of an answer to a few numbers, and from all that was seen to one probability: the fusion.

A heuristic until a calibration replaces its numbers: it orders answers and moves with every sign, and nobody has fitted
it to outcomes. All its numbers stand in one block.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log, sqrt
from typing import Final

from msgspec import Struct

from modeltiers.domain.routing.answer import Answer, Logs
from modeltiers.domain.routing.table import Confidence

# --- the fusion's numbers ---------------------------------------------------------------------------------------------


class Term(Struct, frozen=True):
    """One contribution to the log-odds: weight x (value - zero), the difference kept between low and high."""

    weight: float
    zero: float
    low: float
    high: float

    def of(self, value: float) -> float:
        """Return the contribution of a value."""
        return self.weight * min(self.high, max(self.low, value - self.zero))


FUSION: Final = "heuristic-1"
"""Names the numbers of this block in records; other numbers have another name."""
QUANTILE: Final = Term(weight=1.5, zero=-1.2, low=-3.0, high=1.2)
"""Low quantile of the tokens' logprobs, the strongest sign: the mean of a long answer hides the one token that was a
guess. Neutral at -1.2 nats, a token given 30 %."""
MARGIN: Final = Term(weight=0.3, zero=0.7, low=-2.0, high=1.5)
"""The same quantile of the margins over the best alternative. Weak: it follows the quantile closely and adds only
whether a doubt was between two words or among many. Neutral at 0.7 nats: twice as likely. Above that it adds no more
than the quantile does, and takes back half at most of what the quantile takes."""
ENTROPY: Final = Term(weight=-0.6, zero=0.5, low=-0.5, high=3.0)
"""Mean entropy of the alternatives, in nats: doubt that is spread over the answer. Neutral at 0.5."""
GIVE_UP_TOKENS: Final = 12
"""Tokens that must have been scored before an answer is given up for its probability."""
GIVE_UP_SLACK: Final = 6.0
"""How far the log-odds may still rise, times the root of the tokens scored: 1.7 after 12, 1.2 after 24, 0.6 after
100. A quantile's error falls with that root."""
DIGITS: Final = 6
"""Decimals of a probability that are kept; of a feature, four."""

# ----------------------------------------------------------------------------------------------------------------------


class Signals(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The numbers that stand for the logprobs of an answer."""

    scored: int
    """Tokens that were looked at."""
    quantile: float
    """Of the logprobs, in nats, at most 0."""
    margin: float | None = None
    """The same quantile of the margins; None: no alternatives came."""
    entropy: float | None = None
    thinking: bool = False
    """Whether the thinking counted too."""
    unknown: int = 0
    """Tokens whose logprob the engine did not know; they do not count."""


def signals(confidence: Confidence, answer: Answer) -> Signals | None:
    """Return the numbers for an answer's logprobs; None where none came. Time: that of sorting its tokens."""
    logs, thinking = answer.logs, answer.thinking
    both = confidence.thinking and bool(thinking.logprobs)
    if both:
        logs = Logs(
            thinking.logprobs + logs.logprobs,
            thinking.margins + logs.margins,
            thinking.entropies + logs.entropies,
            thinking.unknown + logs.unknown,
        )
    count = len(logs.logprobs)
    if not count:
        return None
    permille = confidence.quantile_permille
    alternatives = len(logs.margins)
    return Signals(
        scored=count,
        quantile=round(quantile(logs.logprobs, permille), 4),
        margin=round(quantile(logs.margins, permille), 4) if alternatives else None,
        entropy=round(sum(logs.entropies) / alternatives, 4) if alternatives else None,
        thinking=both,
        unknown=logs.unknown,
    )


def quantile(values: list[float], permille: int) -> float:
    """Return the value below which this share of the values lies: one of them, the lower of two."""
    return sorted(values)[(len(values) - 1) * permille // 1000]


def confidence_log_odds(found: Signals) -> float:
    """Return what the logprobs add to the log-odds. Rises with quantile and margin, falls with entropy; continuous."""
    total = QUANTILE.of(found.quantile)
    if found.margin is not None:
        # A margin that speaks for the answer supports the quantile and never overrules it.
        most = total if total > 0.0 else -total / 2
        total += min(MARGIN.of(found.margin), most)
    if found.entropy is not None:
        total += ENTROPY.of(found.entropy)
    return total


def log_odds(permille: float) -> float:
    """Return the log-odds of a probability in permille, between 0 and 1000, both left out."""
    return log(permille / (1000.0 - permille))


def fused(prior_permille: int, found: Signals | None, failed_permille: Iterable[int]) -> float:
    """Return the probability that an answer is good enough, from 0 to 1.

    `failed_permille` are the weights of the failed validators: each takes that share of the odds.
    """
    total = log_odds(prior_permille) + (confidence_log_odds(found) if found is not None else 0.0)
    odds = exp(total)
    for weight in failed_permille:
        odds *= (1000 - weight) / 1000
    return round(odds / (1.0 + odds), DIGITS)


def hopeless(probability: float, threshold_permille: int, scored: int) -> bool:
    """Whether a probability is so far below the threshold that more tokens can hardly lift it over."""
    if scored < GIVE_UP_TOKENS or threshold_permille <= 0 or probability * 1000 >= threshold_permille:
        return False
    if probability <= 0.0 or threshold_permille >= 1000:
        return probability <= 0.0
    return log_odds(probability * 1000) + GIVE_UP_SLACK / sqrt(scored) < log_odds(threshold_permille)
