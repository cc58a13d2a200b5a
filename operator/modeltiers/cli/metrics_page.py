"""Every metric of the operator and the router as the code declares it, and the reference page of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.metrics_core import Metric

from modeltiers.api.crd import HEADER
from modeltiers.controllers import metrics as operator
from modeltiers.domain.gauges import GAUGES, Gauge
from modeltiers.kube import metrics as api
from modeltiers.router.metrics import Metrics

_INTRO: Final = """
The operator serves `/metrics` on its port (8080). Both of its replicas tell of every object, so take the highest of the
two: `max by (namespace, name) (...)`. The labels `namespace`, `tier`, `policy` and `distilljob` name the object, so a
scrape has to keep them (`honorLabels: true` of a ServiceMonitor).

A router serves `/metrics` on its admin port (8081), and its engine's at `/engine/metrics` beside it. It does not know
the namespace that it is in; a PodMonitor adds `namespace` and `pod`. The metrics of vLLM that dashboards and alerts
may use are those of the scrape in `tests/monitoring/vllm.prom`.
"""


@dataclass(frozen=True, slots=True)
class Family:
    """One family of metrics: the name that its declaration gives it, its type, labels, and meaning."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str

    def series(self) -> tuple[str, ...]:
        """Return the names that Prometheus stores it under."""
        if self.type == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (f"{self.name}_total",) if self.type == "counter" else (self.name,)


def operator_metrics() -> list[Family]:
    """Return what the operator declares."""
    declared = (
        *(operator.RECONCILES, operator.ERRORS, operator.SECONDS, operator.READS, operator.WRITES),
        *(api.REQUESTS, api.SECONDS, api.EVENTS, api.LEADERSHIP),
    )
    plain = [Gauge(name, meaning, ()) for name, meaning in operator.PLAIN.items()]
    gauges = [*plain, operator.WATCH_AGE, operator.BUILD, *GAUGES]
    return [
        *(_family(metric, found) for metric in declared for found in metric.describe()),
        *(Family(gauge.name, "gauge", gauge.labels, gauge.meaning) for gauge in gauges),
    ]


def router_metrics() -> list[Family]:
    """Return what a router declares."""
    return [_family(found, found) for found in Metrics().collect()]


def metrics_page() -> str:
    """Return the page."""
    lines = [f"<!-- {HEADER} -->", "", "# Metrics", *_INTRO.splitlines(), ""]
    for title, families in (("The operator", operator_metrics()), ("The router", router_metrics())):
        lines += [f"## {title}", "", *_table(families), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(families: Iterable[Family]) -> Iterator[str]:
    yield from ("| metric | type | labels | meaning |", "|---|---|---|---|")
    for one in sorted(families, key=lambda family: family.name):
        name = one.series()[0] if one.type == "counter" else one.name
        yield f"| `{name}` | {one.type} | {', '.join(one.labels)} | {one.meaning.rstrip('.')} |"


def _family(labelled: Any, found: Metric) -> Family:
    # prometheus_client has no public word for the names of a family's labels while there is no sample of it.
    return Family(found.name, found.type, tuple(labelled._labelnames), found.documentation)
