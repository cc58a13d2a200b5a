"""The contract between what we count and what dashboards and alerts ask: every name, label and word is one of ours.

What the engine serves is what a real vLLM served (`python -m e2e.engine record metrics`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modeltiers.cli.metrics_page import operator_metrics, router_metrics
from modeltiers.controllers.metrics import PLAIN, Facts, Objects, register
from modeltiers.controllers.store import DISTILL, POLICY, TIER, Store
from modeltiers.domain import conditions, gauges, policy_reasons
from modeltiers.domain.distill import reasons as distill_reasons
from modeltiers.render import dashboard
from modeltiers.render.alerts import ALERTS
from modeltiers.render.dashboards import DASHBOARDS
from modeltiers.router.exchange import Outcome

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "tests/router/captures/metrics.prom"
TARGET = {"namespace", "pod", "instance", "job"}
"""Labels that a scrape adds."""
AGGREGATIONS = {"sum", "max", "avg", "count", "topk", "by", "on", "and", "or", "unless", "offset"}
FUNCTIONS = {"absent", "rate", "increase", "changes", "delta", "avg_over_time", "histogram_quantile", "vector"}

QUERIES = [
    *((f"{name}: {title}", query) for name, board in DASHBOARDS.items() for title, query in board.queries()),
    *((alert.name, alert.expr) for group in ALERTS.values() for alert in group),
]
VARIABLES = [(f"{name}: {one.name}", one) for name, board in DASHBOARDS.items() for one in board.variables]


def engine_labels() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(ENGINE.read_text()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


OURS = {
    name: {*one.labels, *(("le",) if name.endswith("_bucket") else ())}
    for one in (*operator_metrics(), *router_metrics())
    for name in one.series()
}
KNOWN = OURS | engine_labels()


def selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each metric that a query names, with what its labels have to be."""
    for name, inside in re.findall(r"\b((?:modeltiers_|vllm:|process_)\w+)(?:\{([^}]*)\})?", query):
        yield name, dict(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inside))


def words(query: str) -> set[str]:
    """The names that are left when metrics, matchers, windows and numbers are taken away: functions and labels."""
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:modeltiers_|vllm:|process_)\w+", " ", query)
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"\b\d[\w.]*", " ", rest)))


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_every_name_and_label_that_is_asked_for_exists(where: str, query: str) -> None:
    found = list(selectors(query))
    assert found
    for name, matchers in found:
        assert name in KNOWN, f"nothing serves {name}"
        served_by_operator = name in OURS and not name.startswith("modeltiers_router_")
        scraped = set() if served_by_operator and "namespace" in KNOWN[name] else TARGET
        assert set(matchers) <= KNOWN[name] | scraped, f"{name} has no label {set(matchers) - KNOWN[name] - scraped}"
    grouped = words(query) - FUNCTIONS - AGGREGATIONS
    # Adding two sides together, a label has to be on each; one that is on none is a slip of the pen.
    assert grouped <= TARGET | {label for name, _ in found for label in KNOWN[name]}, query


CONDITIONS = {*conditions.ORDER, *policy_reasons.ORDER, *distill_reasons.ORDER}
STATES = {"Running", "Waiting", "Complete", "Failed"}
WORDS: dict[tuple[str, str], set[str]] = {
    ("modeltiers_condition", "kind"): {TIER, POLICY, DISTILL},
    ("modeltiers_condition", "condition"): CONDITIONS,
    ("modeltiers_condition", "status"): {"True", "False", "Unknown"},
    ("modeltiers_router_requests_total", "outcome"): set(get_args(Outcome)),
    ("modeltiers_router_table_reloads_total", "outcome"): {"Loaded", "Refused", "Gone"},
    ("modeltiers_distill_stage", "state"): STATES,
    ("modeltiers_distill_promotion", "state"): {"AwaitingApproval", "Canary", "Settling", "Live", "RolledBack"},
}


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_every_word_that_a_label_has_to_be_is_one_that_it_can_be(where: str, query: str) -> None:
    for name, matchers in selectors(query):
        for label, value in matchers.items():
            for word in value.split("|") if (name, label) in WORDS else ():
                assert word in WORDS[name, label], f"{name}: {label} is never {word}"


@pytest.mark.parametrize(("where", "variable"), VARIABLES, ids=[where for where, _ in VARIABLES])
def test_what_is_chosen_by_exists(where: str, variable: dashboard.Variable) -> None:
    ((name, _),) = selectors(variable.series)
    assert variable.label in KNOWN[name] | TARGET


def test_every_metric_of_ours_is_on_the_page_and_means_something() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    for one in (*operator_metrics(), *router_metrics()):
        assert f"`{one.series()[0] if one.type == 'counter' else one.name}`" in page
        assert len(one.meaning) > 8, one.name
        assert re.fullmatch(r"modeltiers_[a-z][a-z_]*[a-z]", one.name), one.name
    assert not re.search(r"\.\n\n|TODO", page.split("## The operator")[1])


def test_a_dashboard_is_what_grafana_reads() -> None:
    for name, board in DASHBOARDS.items():
        made = dashboard.render(board)
        assert json.loads((ROOT / f"charts/modeltiers/files/dashboards/{name}.json").read_text()) == made
        panels = made["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(set(cells)) == len(cells), "two panels lie over each other"
        assert max(x for x, _ in cells) < dashboard.WIDTH
        chosen = {one["name"] for one in made["templating"]["list"]}
        used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(panels)))
        assert used <= chosen, f"{name} uses {used - chosen}"
        legends = [(query.legend, query.expr) for row in board.rows for panel in row.panels for query in panel.queries]
        for legend, expression in legends:
            assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= set(re.findall(r"\w+", expression)) | TARGET


# --- what is told of objects -----------------------------------------------------------------------------------------


def body(kind: str, status: dict[str, Any], version: int = 1) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": "a", "uid": "u", "resourceVersion": str(version)}
    return {"kind": kind, "metadata": metadata, "spec": {}, "status": status}


def told(kind: str, status: dict[str, Any]) -> dict[tuple[str, ...], float]:
    found = {(one.gauge.name, *one.labels): one.value for one in gauges.samples(kind, body(kind, status))}
    assert all(len(one.labels) == len(one.gauge.labels) for one in gauges.samples(kind, body(kind, status)))
    return found


READY = {"type": "Ready", "status": "True", "reason": "Serving", "message": "secret words", "observedGeneration": 1}


def test_a_tier_tells_its_conditions_pods_accelerators_and_cost() -> None:
    status = {
        "conditions": [READY],
        "replicas": 3,
        "readyReplicas": 2,
        "sizing": {"gpusPerReplica": 4, "product": "H100"},
        "cost": {"perHourMicros": 36_000_000, "currency": "USD"},
        "autoscaling": {"wanted": 5},
    }
    assert told(TIER, status) == {
        ("modeltiers_condition", TIER, "shop", "a", "Ready", "True", "Serving"): 1,
        ("modeltiers_tier_replicas", "shop", "a"): 3,
        ("modeltiers_tier_ready_replicas", "shop", "a"): 2,
        ("modeltiers_tier_accelerators", "shop", "a", "H100"): 12,
        ("modeltiers_tier_cost_micros_per_hour", "shop", "a", "USD"): 36_000_000,
        ("modeltiers_tier_autoscaler_wanted", "shop", "a"): 5,
    }


def test_a_policy_tells_its_entry_routers_and_what_it_saves() -> None:
    status = {
        "entry": {"tier": "small", "since": "2026-01-01T00:00:00Z"},
        "table": {"version": "v", "live": 1, "pods": 2},
        "cost": {"perThousandMicros": 8, "allLargePerThousandMicros": 60, "savedPermille": 867, "currency": "USD"},
    }
    assert told(POLICY, status) == {
        ("modeltiers_policy_entry", "shop", "a", "small"): 1,
        ("modeltiers_policy_routers", "shop", "a"): 2,
        ("modeltiers_policy_routers_live", "shop", "a"): 1,
        ("modeltiers_policy_cost_per_thousand_micros", "shop", "a", "USD"): 8,
        ("modeltiers_policy_all_large_cost_per_thousand_micros", "shop", "a", "USD"): 60,
        ("modeltiers_policy_saved_permille", "shop", "a"): 867,
    }


def test_a_distillation_tells_its_stages_spend_decision_and_promotion() -> None:
    status = {
        "stages": [{"name": "Split", "state": "Complete"}, {"name": "Train", "state": "Running"}],
        "running": {"done": 25, "of": 100, "unit": "steps"},
        "spend": {"promptTokens": 7, "answerTokens": 8, "costMicros": 9, "currency": "USD"},
        "gate": {"decision": "Pass", "differencePermille": 5, "lowerPermille": -12},
        "promotion": {"state": "Canary", "weightPermille": 50},
    }
    job = ("shop", "a")
    assert told(DISTILL, status) == {
        ("modeltiers_distill_stage", *job, "Split", "Complete"): 1,
        ("modeltiers_distill_stage", *job, "Train", "Running"): 1,
        ("modeltiers_distill_progress_ratio", *job): 0.25,
        ("modeltiers_distill_teacher_tokens", *job, "prompt"): 7,
        ("modeltiers_distill_teacher_tokens", *job, "answer"): 8,
        ("modeltiers_distill_teacher_cost_micros", *job, "USD"): 9,
        ("modeltiers_distill_gate_decision", *job, "Pass"): 1,
        ("modeltiers_distill_gate_difference_permille", *job): 5,
        ("modeltiers_distill_gate_lower_permille", *job): -12,
        ("modeltiers_distill_promotion", *job, "Canary"): 1,
        ("modeltiers_distill_promotion_weight_permille", *job): 50,
    }


@pytest.mark.parametrize("kind", [TIER, POLICY, DISTILL])
@pytest.mark.parametrize(
    "status",
    [
        {},
        {
            "conditions": None,
            "stages": 3,
            "table": [],
            "cost": "x",
            "entry": {"tier": 7},
            "running": {"done": 1, "of": 0},
        },
        {"conditions": [None, {"type": "Ready"}, {"type": 1, "status": "True", "reason": "X"}], "replicas": "3"},
    ],
)
def test_of_a_status_that_says_nothing_nothing_is_told(kind: str, status: dict[str, Any]) -> None:
    assert told(kind, status) == {}


def test_objects_are_told_anew_only_when_they_change_and_not_after_they_are_gone() -> None:
    store = Store()
    registry = CollectorRegistry()
    register(Facts(dict.fromkeys(PLAIN, lambda: 0.0), lambda: {"pods": 3.0}, Objects(store)), registry)

    def scraped() -> str:
        return generate_latest(registry).decode()

    pods = 'modeltiers_tier_replicas{namespace="shop",tier="a"}'
    store.put(TIER, body(TIER, {"replicas": 1}, 1))
    assert f"{pods} 1.0" in scraped() and f"{pods} 1.0" in scraped()
    store.put(TIER, body(TIER, {"replicas": 2}, 2))
    assert f"{pods} 2.0" in scraped()
    assert 'modeltiers_watch_age_seconds{resource="pods"} 3.0' in scraped()
    store.drop_tier(body(TIER, {}, 3))
    assert pods not in scraped()
