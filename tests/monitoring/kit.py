"""What the tests of dashboards and alerts share: queries as Grafana would send them, and whose metrics are in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

from e2e.prometheus import Prometheus
from modeltiers.cli.metrics_page import operator_metrics, router_metrics
from modeltiers.render.dashboards import DASHBOARDS

Source = Literal["operator", "router", "engine"]
NAME: Final = re.compile(r"\b(?:modeltiers_|vllm:|process_)\w+")
OF_OPERATOR: Final = {name for one in operator_metrics() for name in one.series()}
OF_ROUTER: Final = {name for one in router_metrics() for name in one.series()}


def source(name: str) -> Source:
    """Who serves a metric."""
    if name.startswith("vllm:"):
        return "engine"
    return "router" if name in OF_ROUTER else "operator"


def panels(*sources: Source) -> Iterator[tuple[str, str]]:
    """Dashboard with panel, and query, for each query whose metrics come from these alone."""
    for name, board in DASHBOARDS.items():
        for title, expression in board.queries():
            if {source(metric) for metric in NAME.findall(expression)} <= set(sources):
                yield f"{name}: {title}", expression


def asked(expression: str) -> str:
    """The query as Grafana sends it when all is chosen."""
    return re.sub(r"\$(?!__)\w+", ".*", expression.replace("$__rate_interval", "5m"))


def empty(prometheus: Prometheus, *sources: Source) -> list[str]:
    """The panels of which a query has no series."""
    return [f"{title}: {query}" for title, query in panels(*sources) if not prometheus.query(asked(query))]
