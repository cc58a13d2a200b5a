"""The grammar of a Grafana dashboard: panels on a grid, each with its queries, and variables to choose by.

Nothing here is a fact of modeltiers. A dashboard is a plain dict in the classic model that every Grafana since 9 reads;
the data source is a variable, so that it is tied to no installation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Manifest = dict[str, Any]
Kind = Literal["timeseries", "stat", "table"]

SCHEMA_VERSION: Final = 39
WIDTH: Final = 24
HEIGHTS: Final[dict[Kind, int]] = {"timeseries": 8, "stat": 4, "table": 8}
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and the legend of its series in Grafana's `{{label}}` form."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: what it is called, what a reader should make of it, the unit of its values, and its width of 24."""

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """Something to choose by: the values that a label takes in the series of a selector."""

    name: str
    series: str
    label: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A whole dashboard; `uid` stays the same for ever, since links name it."""

    uid: str
    title: str
    about: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    def queries(self) -> Iterator[tuple[str, str]]:
        """Title of the panel and expression, for every query."""
        for row in self.rows:
            for panel in row.panels:
                yield from ((panel.title, query.expr) for query in panel.queries)


def render(board: Dashboard) -> Manifest:
    """Return what Grafana imports."""
    return {
        "annotations": {"list": []},
        "description": board.about,
        "editable": True,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": list(_panels(board.rows)),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["modeltiers"],
        "templating": {"list": [_datasource(), *(_variable(one) for one in board.variables)]},
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "title": board.title,
        "uid": board.uid,
        "version": 1,
    }


def _panels(rows: Iterable[Row]) -> Iterator[Manifest]:
    number, y = 0, 0
    for row in rows:
        number += 1
        yield {**_place(number, 0, y, WIDTH, 1), "type": "row", "title": row.title, "collapsed": False, "panels": []}
        y += 1
        for line in _lines(row.panels):
            x, height = 0, max(HEIGHTS[panel.kind] for panel in line)
            for panel in line:
                number += 1
                yield {**_place(number, x, y, panel.width, height), **_panel(panel)}
                x += panel.width
            y += height


def _lines(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    """The panels in lines, none wider than the grid."""
    line: list[Panel] = []
    for panel in panels:
        if line and sum(one.width for one in line) + panel.width > WIDTH:
            yield line
            line = []
        line.append(panel)
    if line:
        yield line


def _place(number: int, x: int, y: int, width: int, height: int) -> Manifest:
    return {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel) -> Manifest:
    targets = [_target(panel, query, chr(ord("A") + at)) for at, query in enumerate(panel.queries)]
    custom = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"} if panel.kind == "timeseries" else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": _options(panel.kind),
        **({"transformations": _TABLE} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, query: Query, ref: str) -> Manifest:
    at_once = panel.kind != "timeseries"
    return {
        "refId": ref,
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": at_once,
        "range": not at_once,
        **({"format": "table"} if panel.kind == "table" else {}),
    }


# A table shows the labels; time and, where it is always 1, the value say nothing.
_TABLE: Final = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}]


def _options(kind: Kind) -> Manifest:
    if kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
    if kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _datasource() -> Manifest:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(one: Variable) -> Manifest:
    query = f"label_values({one.series}, {one.label})"
    return {
        "name": one.name,
        "label": one.name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "Variable"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }
