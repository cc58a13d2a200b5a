"""The acceptance threshold of a student: from how sure it was of answers, and which of them were right. Pure.

A promise is made: of the answers that a route accepts at the threshold, at most so many are wrong, as sure as was asked
for. Thresholds are tried from the strictest that enough answers reach, downwards, and the last that holds is taken; a
fixed order, in which the first failure ends the search, keeps the promise without a correction for many tries
(fixed-sequence testing, as in learn-then-test). Each try is an exact binomial test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, lgamma, log, log1p
from typing import Any, Final

from modeltiers.domain.routing.answer import read_answer
from modeltiers.domain.routing.confidence import fused, signals
from modeltiers.domain.routing.table import Accept, Confidence

STEP: Final = 5
"""Permille between two thresholds that are tried."""
CONFIDENCE: Final = Confidence()
PRIOR: Final = Accept().prior_permille
"""The route must look at answers as it was calibrated: these are what a policy has when it says nothing else."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer: how sure the student was, and whether it was right."""

    probability: int
    """Permille, as the router would work it out."""
    right: bool


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was found."""

    threshold: int | None
    """Permille; None where no threshold keeps the promise."""
    answers: int
    accepted: int
    """Of them, at the threshold."""
    wrong: int
    """Of those."""
    upper: int | None
    """Upper bound of the share of wrong answers among them, in permille."""


def probability_of(choice: dict[str, Any], logprobs: Sequence[dict[str, Any]] | None) -> int | None:
    """How sure the router would be of an answer, in permille; None where it has no logprobs."""
    tokens = [
        {
            "token": one["token"],
            "logprob": one["logprob"],
            "top_logprobs": [{"token": text, "logprob": value} for text, value in one["top"][: CONFIDENCE.top]],
        }
        for one in logprobs or ()
    ]
    if not tokens:
        return None
    reply = {"choices": [{"index": 0, "message": choice, "finish_reason": "stop", "logprobs": {"content": tokens}}]}
    found = signals(CONFIDENCE, read_answer("chat", json.dumps(reply).encode()))
    return None if found is None else int(1000 * fused(PRIOR, found, ()))


def calibrate(judged: Iterable[Judged], max_wrong_permille: int, confidence_permille: int) -> Calibrated:
    """Choose the threshold."""
    known = sorted(judged, key=lambda one: -one.probability)
    most, error = max_wrong_permille / 1000, 1 - confidence_permille / 1000
    fewest = ceil(log(error) / log1p(-most))  # with less, not even answers that are all right would prove it
    best: tuple[int, int, int] | None = None
    for threshold in range(1000 - 1000 % STEP, -1, -STEP):
        accepted = [one for one in known if one.probability >= threshold]
        if len(accepted) < fewest:
            continue
        wrong = sum(not one.right for one in accepted)
        if binomial_below(len(accepted), wrong, most) > error:
            break
        best = (threshold, len(accepted), wrong)
    if best is None:
        return Calibrated(None, len(known), 0, 0, None)
    threshold, taken, wrong = best
    return Calibrated(threshold, len(known), taken, wrong, ceil(1000 * upper_bound(taken, wrong, error)))


def binomial_below(n: int, k: int, p: float) -> float:
    """Chance of at most `k` of `n`, each with chance `p`; exact but for rounding."""
    if k >= n:
        return 1.0
    logs = [
        lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + (i * log(p) if i else 0.0) + (n - i) * log1p(-p)
        for i in range(k + 1)
    ]
    top = max(logs)
    return min(1.0, exp(top) * sum(exp(one - top) for one in logs))


def upper_bound(n: int, k: int, error: float) -> float:
    """The Clopper-Pearson upper bound of a share, of which `k` of `n` were seen."""
    if k >= n:
        return 1.0
    low, high = k / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if binomial_below(n, k, middle) > error:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of which the student was about as sure."""

    sure: int
    """The mean of how sure it was, in permille."""
    answers: int
    right: int


def reliability(judged: Iterable[Judged], bins: int = 10) -> tuple[Bin, ...]:
    """Answers by how sure the student was, in at most so many bins of about equal number."""
    known = sorted(judged, key=lambda one: (one.probability, one.right))
    bins = min(bins, len(known))
    cuts = [len(known) * number // bins for number in range(bins + 1)] if bins else []
    parts = [known[start:end] for start, end in pairwise(cuts)]
    return tuple(
        Bin(round(sum(one.probability for one in some) / len(some)), len(some), sum(one.right for one in some))
        for some in parts
    )
