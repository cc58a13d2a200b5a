"""The operator's own metrics. Labels come from fixed sets only: kinds, results, and reasons that are documented."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

from modeltiers import __version__

RECONCILES = Counter("modeltiers_reconcile", "Reconciles by kind and result", ["kind", "result"])
ERRORS = Counter(
    "modeltiers_reconcile_errors", "Reconciles that ended in a fault, by kind and reason", ["kind", "reason"]
)
SECONDS = Histogram(
    "modeltiers_reconcile_duration_seconds",
    "Time to reconcile one object",
    ["kind"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
READS = Counter("modeltiers_router_reads", "Routers asked for their status, by result", ["result"])
WRITES = Counter("modeltiers_writes", "Objects written, by kind and what made it necessary", ["kind", "cause"])


class Facts:
    """Gauges that are computed when asked for, so that they cannot be stale."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._gauges = gauges
        self._families: list[Callable[[], GaugeMetricFamily]] = []

    def add(self, family: Callable[[], GaugeMetricFamily]) -> None:
        """Add a gauge with labels of its own."""
        self._families.append(family)

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks a collector for."""
        for name, (meaning, value) in self._gauges.items():
            yield GaugeMetricFamily(name, meaning, value=value())
        for family in self._families:
            yield family()
        build = GaugeMetricFamily("modeltiers_build_info", "Version of the operator", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def register(facts: Facts, registry: CollectorRegistry = REGISTRY) -> None:
    """Expose the facts beside the counters."""
    registry.register(facts)
