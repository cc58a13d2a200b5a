"""What the requests of a policy met of late: increments of the routers' counters, in a window that moves.

Counters only grow, from zero at a start that has a name. So whatever is read, in whatever order: nothing is counted
twice, nothing is negative, and what a router had counted and nobody read before it ended is missing, not guessed. All
numbers are integers. Clock and readings come in from outside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Label = tuple[str, str]
"""What is counted, and of which tier or for which reason; empty where it is neither."""
Counts = Mapping[Label, int]

MOST_LABELS: Final = 20
"""The most tiers or reasons of one counter that are listened to."""
LARGEST: Final = 10**15
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
_TOKENS: Final = ("prompt", "completion", "answerPrompt", "answerCompletion")
_NAMED: Final = ("answered", "escalated")
_PLAIN: Final = ("judged", "fallbacks", "unmetered")
GPU_MILLIS: Final = "gpuMillis"
"""By tier: milliseconds that its pods held one accelerator, as the operator saw them."""
SERVED: Final = "served"
"""By tier: tokens of all its policies."""
LOST: Final = "lost"
"""Routers that went, or began anew, while they could not be asked."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one router process had counted of one policy."""

    policy: str
    start: str
    """Names the start from which it counts."""
    seconds: float
    """How long it had counted."""
    counts: Counts


def readings(status: Mapping[str, Any]) -> list[Reading]:
    """Return the counters in a router's /status; what is odd is left out."""
    found = status.get("counters")
    return [read for one in found if (read := _reading(one)) is not None] if isinstance(found, list) else []


def _reading(entry: object) -> Reading | None:
    if not isinstance(entry, dict):
        return None
    policy, start, seconds = entry.get("policy"), entry.get("start"), entry.get("seconds")
    if not (isinstance(policy, str) and isinstance(start, str) and 0 < len(start) <= 64):
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        return None
    return Reading(policy, start, float(seconds), dict(_counts(entry)))


def _counts(entry: Mapping[str, Any]) -> Iterator[tuple[Label, int]]:
    for kind in _PLAIN:
        if _is_count(entry.get(kind)):
            yield (kind, ""), entry[kind]
    for kind in _NAMED:
        for label, count in _labelled(entry.get(kind)):
            if _is_count(count):
                yield (kind, label), count
    for tier, tokens in _labelled(entry.get("tokens")):
        for kind in _TOKENS if isinstance(tokens, dict) else ():
            if _is_count(tokens.get(kind)):
                yield (kind, tier), tokens[kind]


def _labelled(value: object) -> list[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else ()
    return [(label, one) for label, one in items if _WORD.fullmatch(label)][:MOST_LABELS]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


@dataclass(slots=True)
class _Source:
    """One start of counting: the least and the most that it was seen with. What lies between was counted here."""

    least: dict[Label, int] | None
    """None: it began while we watched, from zero."""
    most: dict[Label, int]
    heard: float


@dataclass(eq=False)
class Window:
    """The sums over the last `seconds`, in so many buckets; times are of one monotonic clock."""

    began: float
    seconds: float = 3600.0
    buckets: int = 60
    _sources: dict[str, _Source] = field(default_factory=dict)
    _kept: dict[int, dict[Label, int]] = field(default_factory=dict)  # by the bucket's number
    _sums: dict[Label, int] = field(default_factory=dict)
    _newest: int = 0

    def take(self, reading: Reading, asked: float, now: float) -> Counts:
        """Add what a router has counted since it was read last; returns that.

        Of a start that lies within the window all is new. Of an older one it is not known when it was counted, so the
        first reading is only where the next ones begin.
        """
        self._expire(now)
        source = self._sources.get(reading.start)
        if source is None:
            seen = asked - reading.seconds >= max(self.began, now - self.seconds)
            if not seen and not self._sums:
                self.began = max(self.began, asked)  # nothing was counted yet: the watching begins with this reading
            source = _Source(None if seen else dict(reading.counts), {} if seen else dict(reading.counts), now)
            self._sources[reading.start] = source
        source.heard = max(source.heard, now)
        grown: dict[Label, int] = {}
        for label, count in reading.counts.items():
            before = source.most.get(label, 0)
            if count > before:
                source.most[label] = count
                grown[label] = count - before
        if source.least is not None:  # an answer that came late: it was asked before the first one
            for label, before in source.least.items():
                count = reading.counts.get(label, 0)
                if count < before:
                    source.least[label] = count
                    grown[label] = grown.get(label, 0) + before - count
        self.add(grown, now)
        return grown

    def knows(self, start: str) -> bool:
        """Whether this start of counting was read before."""
        return start in self._sources

    def whole(self, start: str) -> bool:
        """Whether all that was counted from this start is in the sums, or was."""
        source = self._sources.get(start)
        return source is not None and source.least is None

    def add(self, counts: Counts, now: float) -> None:
        """Add what was counted elsewhere."""
        self._expire(now)
        bucket = self._kept.setdefault(self._number(now), {})
        for label, count in counts.items():
            if count:
                bucket[label] = bucket.get(label, 0) + count
                self._sums[label] = self._sums.get(label, 0) + count

    def sums(self, now: float) -> Counts:
        """Return what was counted since `since`."""
        self._expire(now)
        return dict(self._sums)

    def since(self, now: float) -> float:
        """Return when the time that is counted begins: at a bucket's begin, or where the watching began."""
        return max(self.began, (self._number(now) - self.buckets + 1) * self._width)

    def full(self, now: float) -> bool:
        """Whether it was watched for as long as the window is."""
        return self.since(now) > self.began

    @property
    def _width(self) -> float:
        return self.seconds / self.buckets

    def _number(self, now: float) -> int:
        return math.floor(now / self._width)

    def _expire(self, now: float) -> None:
        number = self._number(now)
        if number <= self._newest:
            return
        self._newest = number
        for old in [old for old in self._kept if old <= number - self.buckets]:
            for label, count in self._kept.pop(old).items():
                self._sums[label] -= count
        self._sums = {label: count for label, count in self._sums.items() if count}
        since = now - self.seconds
        self._sources = {start: source for start, source in self._sources.items() if source.heard >= since}


# --- status -----------------------------------------------------------------------------------------------------------


def traffic_of(counts: Counts, ladder: Sequence[str], since: str, until: str, *, partial: bool) -> dict[str, Any]:
    """The part of a policy's status; `ladder` has the names of the tiers in order."""
    answered = [(name, counts.get(("answered", name), 0)) for name in ladder]
    requests = sum(count for _, count in answered)
    judged = counts.get(("judged", ""), 0)
    reasons = sorted((-count, reason) for (kind, reason), count in counts.items() if kind == "escalated")
    status: dict[str, Any] = {"since": since, "until": until, "requests": requests, "judged": judged}
    if requests:
        status["shares"] = [
            {"name": name, "requests": count, "permille": permille(count, requests)} for name, count in answered
        ]
        status["fallbackPermille"] = permille(counts.get(("fallbacks", ""), 0), requests)
    if judged:
        status["escalatedPermille"] = permille(-sum(count for count, _ in reasons), judged)
    if reasons:
        status["escalations"] = [{"reason": reason, "requests": -count} for count, reason in reasons[:16]]
    status["partial"] = partial
    return status


def permille(part: int, whole: int) -> int:
    """Return a part in thousandths of the whole, rounded to the nearest, at most all of it."""
    return min(1000, (2000 * part + whole) // (2 * whole))


def due(shown: Mapping[str, Any], fresh: Mapping[str, Any], age: float | None, least: float) -> bool:
    """Whether fresh facts are worth a write of their own: another number, and not too soon after the last.

    Both have `traffic` and `cost` as in a status; `age` is how old the shown ones are, in seconds, None if unknown. A
    cost that moves by less than a hundredth is no news: idle time alone moves it all the while.
    """
    if age is not None and age < least:
        return False
    return _numbers(shown) != _numbers(fresh) or _moved(shown.get("cost") or {}, fresh.get("cost") or {})


def _numbers(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (facts.get("traffic") or {}).items() if key not in ("since", "until")}


def _moved(shown: Mapping[str, Any], fresh: Mapping[str, Any]) -> bool:
    if any(shown.get(key) != fresh.get(key) for key in ("currency", "unknown", "formula")):
        return True
    pairs = [(shown.get(key), fresh.get(key)) for key in ("perThousandMicros", "allLargePerThousandMicros")]
    return any(
        before != now if before is None or now is None else abs(now - before) * 100 > abs(before)
        for before, now in pairs
    )
