"""What the dashboards share: short forms of panels and of queries.

Series of objects come from both replicas of the operator, so each is the `max` of them; `namespace` and `pod` of a
router's and an engine's series come from the scrape.
"""

from __future__ import annotations

from typing import Final

from modeltiers.render.dashboard import Kind, Panel, Query

RATE: Final = "$__rate_interval"
TIER: Final = 'namespace=~"$namespace", tier=~"$tier"'
ROUTE: Final = 'namespace=~"$namespace", policy=~"$policy"'
JOB: Final = 'namespace=~"$namespace", distilljob=~"$distilljob"'
ENGINE: Final = 'namespace=~"$namespace", model_name=~"$model"'
HERE: Final = 'namespace=~"$namespace"'


def panel(
    title: str, about: str, unit: str, *queries: str | tuple[str, str], kind: Kind = "timeseries", width: int = 8
) -> Panel:
    """A panel; a query is an expression, alone or with the legend of its series."""
    made = tuple(Query(query) if isinstance(query, str) else Query(*query) for query in queries)
    return Panel(title, about, unit, made, kind, width)


def stat(title: str, about: str, query: str) -> Panel:
    """One number."""
    return panel(title, about, "none", query, kind="stat", width=4)


def rate(by: str, metric: str, selector: str = "") -> str:
    """What a counter grows by a second, over the rate interval."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}[{RATE}]))"


def highest(by: str, metric: str, selector: str) -> str:
    """A gauge that several replicas tell."""
    return f"max by ({by}) ({metric}{{{selector}}})"


def quantile(part: float, metric: str, by: str, selector: str = "") -> str:
    """A quantile of a histogram, over the rate interval."""
    return f"histogram_quantile({part}, sum by (le, {by}) (rate({metric}_bucket{{{selector}}}[{RATE}])))"


def conditions(kind: str, name: str, *, condition: str = "Ready", true: bool = True) -> str:
    """The chosen objects of a kind whose condition is True, or is not; `name` is the variable that chooses."""
    status = 'status="True"' if true else 'status!="True"'
    selector = f'kind="{kind}", condition="{condition}", {status}, namespace=~"$namespace", name=~"${name}"'
    return f"max by (namespace, name, status, reason) (modeltiers_condition{{{selector}}})"


def objects(kind: str, name: str, condition: str = "Ready") -> tuple[Panel, Panel, Panel]:
    """How many objects are well, how many are not, and which those are and why."""
    well, ill = (conditions(kind, name, condition=condition, true=true) for true in (True, False))
    return (
        stat(condition, f"{kind}s whose condition {condition} is True.", f"count({well}) or vector(0)"),
        stat(f"Not {condition}", f"{kind}s whose {condition} is False or Unknown.", f"count({ill}) or vector(0)"),
        panel(
            f"Not {condition}, and why",
            "The reason is explained in docs/reference; `kubectl describe` has the message.",
            "none",
            ill,
            kind="table",
            width=16,
        ),
    )
