"""Counts what the router does: plain numbers while requests run, Prometheus text when somebody asks.

Every label value comes from configuration or from a closed set in the code, so the number of series is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from modeltiers.domain.routing.record import DecisionRecord
    from modeltiers.router.exchange import Ending, Exchange

PREFIX: Final = "modeltiers_router_"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_USES: Final = ("answer", "decision")
OVERHEAD: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)


class Histogram:
    """Counts by upper bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts as Prometheus wants them."""
        so_far, made = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            made.append((bound, float(so_far)))
        return made


class Book:
    """What the requests of one policy met at one tier: found once for an attempt, then counted in."""

    __slots__ = ("between", "first", "tokens", "upstream")

    def __init__(self) -> None:
        self.first, self.between, self.upstream = Histogram(SECONDS), Histogram(SECONDS), Histogram(SECONDS)
        self.tokens = {"answer": [0, 0], "decision": [0, 0]}
        """Of the prompt and of the completion, by use: answer, or decision, which is all that was not given."""


class Metrics(Collector):
    """All figures of one process."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        """By policy, tier, outcome and reason."""
        self.attempts: defaultdict[tuple[str, str], int] = defaultdict(int)
        """By tier and outcome: Answered, or what failed."""
        self.revisions: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        """By tier, revision and outcome, for tiers that have two revisions."""
        self.decisions: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        """By policy, decision and reason: of the choice, or of the judgement."""
        self.books: defaultdict[tuple[str, str], Book] = defaultdict(Book)
        """By policy and tier."""
        self.cost: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        """Millionths of the currency unit by policy: of answers, and of decisions."""
        self.held: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        """By policy: from the first token of a judged answer until it was given."""
        self.own = Histogram(OVERHEAD)
        self.reloads: defaultdict[str, int] = defaultdict(int)
        self.refused: defaultdict[str, int] = defaultdict(int)
        """Requests that no tier saw, by status."""
        self.health_changes: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.tables: list[tuple[str, str]] = []
        """File and version of each table in force."""
        self.shares: Callable[[], Mapping[str, float]] = dict
        """The share that escalated of late, in permille, by policy."""
        self.limited: Mapping[Any, int] = {}
        """Requests that a limit refused, by policy and what was short."""
        self.clients: Mapping[str, int] = {}
        """Connections and requests that were refused before they were read, by cause."""
        self.spool: Callable[[], Mapping[str, int]] = dict
        """The spool's figures, if there is one."""
        self.dropped_lines: Callable[[], int] = int
        self.in_flight = 0
        self.loop_lag = 0.0

    def ended(self, exchange: Exchange, ending: Ending, record: DecisionRecord) -> None:
        """Count a request that has ended."""
        policy = record.policy
        self.requests[policy, ending.tier, ending.outcome, record.choice.reason] += 1
        if ending.outcome == "Answered":
            self.decisions[policy, exchange.decision, exchange.reason] += 1
        for attempt in record.attempts:
            usage = attempt.usage
            if usage.prompt_tokens:
                use = "answer" if attempt.outcome == "Answered" else "decision"
                sums = self.books[policy, attempt.tier].tokens[use]
                sums[0] += usage.prompt_tokens
                sums[1] += usage.completion_tokens
        cost, sums = record.cost, self.cost[policy]
        sums[0] += cost.answer_micros
        sums[1] += cost.decision_micros

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield _counter("requests", "Requests answered.", ("policy", "tier", "outcome", "reason"), self.requests)
        yield _counter("attempts", "Attempts on tiers.", ("tier", "outcome"), self.attempts)
        labels = ("tier", "revision", "outcome")
        yield _counter("revision_attempts", "Attempts on tiers that have two revisions.", labels, self.revisions)
        labels = ("policy", "decision", "reason")
        yield _counter("decisions", "Answers by how they came to be given.", labels, self.decisions)
        used = ("policy", "tier", "kind", "use")
        yield _counter("tokens", "Tokens used by answers, and by what was not given.", used, self._tokens())
        cost = {(policy, use): sums[at] for policy, sums in self.cost.items() for at, use in enumerate(_USES)}
        yield _counter("cost_micros", "Millionths of the currency unit.", ("policy", "use"), cost)
        held: dict[tuple[str, ...], Histogram] = {(policy,): histogram for policy, histogram in self.held.items()}
        yield _histogram("held_seconds", "From a judged answer's first token until it was given.", held, ("policy",))
        yield _histogram(
            "time_to_first_token_seconds", "From the request to the first of its answer.", self._times("first")
        )
        yield _histogram("inter_token_seconds", "Between two events of a stream.", self._times("between"))
        yield _histogram("upstream_seconds", "From an attempt's start to its end.", self._times("upstream"))
        own = HistogramMetricFamily(f"{PREFIX}overhead_seconds", "Own time from a request to its dispatch.")
        own.add_metric((), self.own.buckets(), self.own.total)
        yield own
        reloads = {(outcome,): count for outcome, count in self.reloads.items()}
        refused = {(status,): count for status, count in self.refused.items()}
        yield _counter("refused", "Requests that no tier saw, by status.", ("status",), refused)
        yield _counter("health_changes", "Addresses found well or not.", ("tier", "state"), self.health_changes)
        yield _counter("table_reloads", "Tables read, by outcome.", ("outcome",), reloads)
        yield _gauge("table_info", "Tables in force.", ("table", "version"), dict.fromkeys(self.tables, 1))
        shares = {(policy,): share for policy, share in self.shares().items()}
        yield _gauge("escalated_share_permille", "Share of late that escalated.", ("policy",), shares)
        yield _counter("limited", "Requests that a limit refused.", ("policy", "cause"), self.limited)
        clients = {(cause,): count for cause, count in self.clients.items()}
        yield _counter("clients_refused", "Clients refused before a request was read.", ("cause",), clients)
        spool = {(figure,): value for figure, value in self.spool().items()}
        yield _gauge("spool", "Figures of the spool of decision records.", ("figure",), spool)
        yield CounterMetricFamily(
            f"{PREFIX}log_lines_dropped", "Lines that nobody read in time.", value=self.dropped_lines()
        )
        yield GaugeMetricFamily(f"{PREFIX}in_flight", "Requests being answered.", value=self.in_flight)
        yield GaugeMetricFamily(
            f"{PREFIX}loop_lag_seconds", "How late the event loop was, last time.", value=self.loop_lag
        )

    def _tokens(self) -> dict[tuple[str, ...], int]:
        return {
            (policy, tier, kind, use): sums[at]
            for (policy, tier), book in self.books.items()
            for use, sums in book.tokens.items()
            for at, kind in enumerate(("prompt", "completion"))
            if sums[0]
        }

    def _times(self, name: str) -> dict[tuple[str, ...], Histogram]:
        found: dict[tuple[str, ...], Histogram] = {labels: getattr(book, name) for labels, book in self.books.items()}
        return {labels: histogram for labels, histogram in found.items() if any(histogram.counts)}

    def text(self) -> bytes:
        """Return the Prometheus exposition."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for label, value in values.items():
        family.add_metric(label, value)
    return family


def _histogram(
    name: str, text: str, found: Mapping[tuple[str, ...], Histogram], labels: tuple[str, ...] = ("policy", "tier")
) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for values, histogram in found.items():
        family.add_metric(values, histogram.buckets(), histogram.total)
    return family
