"""Holds a share of traffic above the entry tier by moving the score's threshold, one request at a time.

Stochastic tracking of a quantile: after a request that went up the threshold rises a little, after one that did not it
falls a little, in the ratio that is at rest at the target share. It assumes nothing about the scores: whatever they do,
the realised share of n requests that the threshold decided is off by no more than `most_error(n)`. The price is a
threshold that never stands still: it moves by up to STEP_LAST permille at each request.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from modeltiers.domain.routing.choose import Choice
from modeltiers.domain.routing.rules import CompiledPolicy

STEP_FIRST: Final = 50.0
"""Permille that the threshold moves at most for the first request: it finds its place within some dozens."""
STEP_LAST: Final = 5.0
"""Permille that it moves at most later on: small against the spread of scores, large enough to follow a change of
traffic within about 1000 / STEP_LAST requests."""
_SETTLING: Final = 100.0
"""Requests after which the step has halved."""
_MEMORY: Final = 0.002
"""Weight of a request in the share that is shown: about the last 500 count."""
_DECIMALS: Final = 3
GRACE: Final = 20
"""A share of one or two requests is no share: so many may hit before a cap of a half is reached."""


class Held(Struct, frozen=True, gc=False):
    """The state of one policy in one process."""

    threshold_permille: float
    seen: int = 0
    share_permille: float = 0.0
    """The realised share of late, for status and metrics."""


class Share(Struct, frozen=True, gc=False):
    """A share of late, in permille, and of how many requests."""

    permille: float = 0.0
    seen: int = 0

    @property
    def weighed(self) -> float:
        """The share that a cap is held against: as if GRACE requests without a hit had come first."""
        return round(self.permille * self.seen / (self.seen + GRACE), _DECIMALS)


def share(before: Share, hit: bool) -> Share:
    """Return the share after one more request: a plain mean of the first ones, then the newest weighs most."""
    weight = max(_MEMORY, 1 / (before.seen + 1))
    moved = before.permille + weight * ((1000.0 if hit else 0.0) - before.permille)
    return Share(round(moved, _DECIMALS), before.seen + 1)


def start(policy: CompiledPolicy) -> Held:
    """Return the state before any request: the policy's own threshold."""
    share = policy.score.strong_share_permille or 0
    return Held(float(policy.score.threshold_permille), 0, float(share))


def hold(held: Held, target_permille: int, *, strong: bool) -> Held:
    """Return the state after a request that went above the entry tier, or did not, for whatever reason.

    Requests that rules send up count too, so the share is that of all traffic. Where they alone exceed the target, the
    threshold rests at its upper end.
    """
    step = max(STEP_LAST, STEP_FIRST / (1.0 + held.seen / _SETTLING))
    target = target_permille / 1000
    moved = held.threshold_permille + step * ((1.0 if strong else 0.0) - target)
    shown = held.share_permille + max(_MEMORY, 1 / (held.seen + 1)) * (
        (1000.0 if strong else 0.0) - held.share_permille
    )
    # Scores alone never drive it further past its ends than a step; what rules send up may, and must not wind it up.
    bounded = min(max(moved, -STEP_FIRST), 1000.0 + STEP_FIRST)
    return Held(round(bounded, _DECIMALS), held.seen + 1, round(shown, _DECIMALS))


def went_up(policy: CompiledPolicy, choice: Choice) -> bool:
    """Whether a choice is above the entry tier."""
    return bool(choice.tiers) and choice.tiers[0] != policy.names[0]


def most_error(requests: int) -> float:
    """Return how far, in permille, the share of the first n requests can be from the target, whatever the scores.

    Each request moves the threshold by its step times (went up - target); so the sum of what is in brackets is a sum of
    moves over steps. The threshold stays between -STEP_FIRST and 1000 + STEP_FIRST and steps never grow: that sum is at
    most the range over the last step. Rounding adds a tenth.
    """
    step = max(STEP_LAST, STEP_FIRST / (1.0 + requests / _SETTLING))
    return min(1000.0, 0.1 + 1000.0 * (1000.0 + 2 * STEP_FIRST) / (step * max(1, requests)))
