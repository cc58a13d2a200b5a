"""The alerts: what is worth waking somebody for, when, and what to read then.

Each names a section of docs/runbooks.md. A rule is a plain dict in Prometheus' own format, so that promtool and a
PrometheusRule read the same. Thresholds are for a day's common sense, not for a service level that somebody promised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Manifest = dict[str, Any]
Severity = Literal["critical", "warning", "info"]

RUNBOOKS: Final = "https://modeltiers.dev/docs/runbooks"
_NO_ANSWER: Final = 'outcome=~"Connect|Timeout|Broken|429|5.."'


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; `summary` is a line with the object's name, in Prometheus' templates."""

    name: str
    expr: str
    hold: str
    severity: Severity
    summary: str


def _condition(kind: str, condition: str, status: str) -> str:
    selector = f'kind="{kind}", condition="{condition}", status="{status}"'
    return f"max by (namespace, name) (modeltiers_condition{{{selector}}}) == 1"


def _failing(window: str) -> str:
    """Share of the requests that ended without an answer, by policy; what a client did or a limit refused is not."""
    every = 'outcome!~"ClientLeft|Limited"'
    failed = (
        f'sum by (namespace, policy) (rate(modeltiers_router_requests_total{{outcome=~"Failed|Broken"}}[{window}]))'
    )
    return f"{failed} / sum by (namespace, policy) (rate(modeltiers_router_requests_total{{{every}}}[{window}]))"


def _calls(selector: str) -> str:
    return f"sum by (namespace, tier) (rate(modeltiers_router_attempts_total{{{selector}}}[5m]))"


OPERATOR: Final = (
    Alert(
        "ModeltiersOperatorAbsent",
        "absent(modeltiers_build_info)",
        "5m",
        "critical",
        "No replica of the modeltiers operator is scraped",
    ),
    Alert(
        "ModeltiersOperatorNotLeading",
        "sum(modeltiers_leading) == 0",
        "2m",
        "critical",
        "No replica of the modeltiers operator leads, so nothing is reconciled",
    ),
    Alert(
        "ModeltiersOperatorTwoLeaders",
        "sum(modeltiers_leading) > 1",
        "1m",
        "critical",
        "{{ $value }} replicas of the modeltiers operator believe that they lead",
    ),
    Alert(
        "ModeltiersOperatorBug",
        'sum by (kind) (increase(modeltiers_reconcile_errors_total{reason="Bug"}[15m])) > 0',
        "0m",
        "warning",
        "A reconcile of a {{ $labels.kind }} ended in a fault of the operator's own",
    ),
    Alert(
        "ModeltiersReconcileErrors",
        "sum by (kind) (rate(modeltiers_reconcile_errors_total[10m]))"
        " / sum by (kind) (rate(modeltiers_reconcile_total[10m])) > 0.2",
        "10m",
        "warning",
        "{{ $value | humanizePercentage }} of the reconciles of {{ $labels.kind }}s fail",
    ),
    Alert(
        "ModeltiersQueueStuck",
        "max(modeltiers_queue_oldest_seconds and on (instance) modeltiers_leading == 1) > 120",
        "5m",
        "warning",
        "A wake-up of the operator has waited for {{ $value | humanizeDuration }}",
    ),
    Alert(
        "ModeltiersWatchStale",
        "max by (resource) (modeltiers_watch_age_seconds) > 180",
        "2m",
        "warning",
        "The operator's watch of {{ $labels.resource }} has been silent for {{ $value | humanizeDuration }}",
    ),
)
TIERS: Final = (
    Alert(
        "ModeltiersTierNotReady",
        _condition("ModelTier", "Ready", "False"),
        "10m",
        "critical",
        "ModelTier {{ $labels.namespace }}/{{ $labels.name }} does not answer",
    ),
    Alert(
        "ModeltiersTierProgressing",
        _condition("ModelTier", "Ready", "Unknown"),
        "1h",
        "warning",
        "ModelTier {{ $labels.namespace }}/{{ $labels.name }} has been on its way for an hour",
    ),
    Alert(
        "ModeltiersTierReplicasMissing",
        "max by (namespace, tier) (modeltiers_tier_ready_replicas)"
        " < max by (namespace, tier) (modeltiers_tier_replicas)",
        "30m",
        "warning",
        "Of ModelTier {{ $labels.namespace }}/{{ $labels.tier }} only {{ $value }} pods answer",
    ),
    Alert(
        "ModeltiersEngineCacheFull",
        "avg by (namespace, model_name) (avg_over_time(vllm:kv_cache_usage_perc[10m])) > 0.95",
        "10m",
        "warning",
        "The KV cache of {{ $labels.model_name }} in {{ $labels.namespace }} has been full for ten minutes",
    ),
    Alert(
        "ModeltiersEngineQueueGrowing",
        "sum by (namespace, model_name) (vllm:num_requests_waiting)"
        " > 2 * sum by (namespace, model_name) (vllm:num_requests_running)",
        "10m",
        "warning",
        "{{ $value }} requests wait on {{ $labels.model_name }} in {{ $labels.namespace }}, twice those that run",
    ),
)
ROUTING: Final = (
    Alert(
        "ModeltiersPolicyNotReady",
        _condition("RoutingPolicy", "Ready", "False"),
        "5m",
        "critical",
        "RoutingPolicy {{ $labels.namespace }}/{{ $labels.name }} does not serve what it says",
    ),
    Alert(
        "ModeltiersPolicyTableNotLive",
        "max by (namespace, policy) (modeltiers_policy_routers_live)"
        " < max by (namespace, policy) (modeltiers_policy_routers)",
        "15m",
        "warning",
        "Only {{ $value }} routers serve the present table of {{ $labels.namespace }}/{{ $labels.policy }}",
    ),
    Alert(
        "ModeltiersRequestsFailFast",
        f"({_failing('1h')} > 0.0144) and ({_failing('5m')} > 0.0144)",
        "2m",
        "critical",
        "Requests of {{ $labels.namespace }}/{{ $labels.policy }} fail: at 99.9 % a month's budget goes in two days",
    ),
    Alert(
        "ModeltiersRequestsFailSlow",
        f"({_failing('6h')} > 0.006) and ({_failing('30m')} > 0.006)",
        "15m",
        "warning",
        "Requests of {{ $labels.namespace }}/{{ $labels.policy }} fail: at 99.9 % a month's budget goes in five days",
    ),
    Alert(
        "ModeltiersTierCallsFail",
        f"{_calls(_NO_ANSWER)} / {_calls('')} > 0.2",
        "10m",
        "warning",
        "{{ $value | humanizePercentage }} of the calls to tier {{ $labels.tier }} in {{ $labels.namespace }} fail",
    ),
    Alert(
        "ModeltiersEscalationHigh",
        "avg by (namespace, policy) (avg_over_time(modeltiers_router_escalated_share_permille[30m])) > 800",
        "30m",
        "warning",
        "Four of five judged answers of {{ $labels.namespace }}/{{ $labels.policy }} are asked again above",
    ),
    Alert(
        "ModeltiersFirstTokenSlow",
        "histogram_quantile(0.95, sum by (le, namespace, policy)"
        " (rate(modeltiers_router_time_to_first_token_seconds_bucket[10m]))) > 10",
        "15m",
        "warning",
        "One in twenty requests of {{ $labels.namespace }}/{{ $labels.policy }} waits longer than 10 s for its answer",
    ),
    Alert(
        "ModeltiersRequestsLimited",
        "sum by (namespace, policy) (rate(modeltiers_router_limited_total[10m]))"
        " / sum by (namespace, policy) (rate(modeltiers_router_requests_total[10m])) > 0.1",
        "15m",
        "warning",
        "Limits refuse {{ $value | humanizePercentage }} of {{ $labels.namespace }}/{{ $labels.policy }}",
    ),
    Alert(
        "ModeltiersTableRefused",
        'sum by (namespace) (increase(modeltiers_router_table_reloads_total{outcome="Refused"}[10m])) > 0',
        "0m",
        "warning",
        "A router in {{ $labels.namespace }} refused a table and serves the last good one",
    ),
    Alert(
        "ModeltiersRecordsLost",
        'sum by (namespace, figure) (delta(modeltiers_router_spool{figure=~"dropped_(full|disk|long)"}[15m])) > 0',
        "0m",
        "warning",
        "Routers in {{ $labels.namespace }} lose decision records: {{ $labels.figure }}",
    ),
)
DISTILLATION: Final = (
    Alert(
        "ModeltiersDistillationStalled",
        _condition("DistillJob", "Stalled", "True"),
        "5m",
        "warning",
        "DistillJob {{ $labels.namespace }}/{{ $labels.name }} does not go on by itself",
    ),
    Alert(
        "ModeltiersDistillationNoProgress",
        "max by (namespace, distilljob) (changes(modeltiers_distill_progress_ratio[2h])) == 0"
        ' and on (namespace, distilljob) modeltiers_distill_stage{state="Running"} == 1',
        "30m",
        "warning",
        "The running stage of DistillJob {{ $labels.namespace }}/{{ $labels.distilljob }} has not moved for two hours",
    ),
    Alert(
        "ModeltiersDistillationAwaitsApproval",
        _condition("DistillJob", "AwaitingApproval", "True"),
        "1d",
        "info",
        "DistillJob {{ $labels.namespace }}/{{ $labels.name }} has waited a day for somebody to approve its student",
    ),
    Alert(
        "ModeltiersStudentTakenBack",
        'max by (namespace, distilljob) (modeltiers_distill_promotion{state="RolledBack"}) == 1'
        " unless on (namespace, distilljob) max by (namespace, distilljob)"
        ' (modeltiers_distill_promotion{state="RolledBack"} offset 1h)',
        "0m",
        "info",
        "The student of DistillJob {{ $labels.namespace }}/{{ $labels.distilljob }} was taken back",
    ),
)

ALERTS: Final = {"operator": OPERATOR, "tiers": TIERS, "routing": ROUTING, "distillation": DISTILLATION}
"""By the name of the file, which is that of the group."""


def render(group: str, alerts: tuple[Alert, ...]) -> Manifest:
    """Return a file of rules."""
    return {"groups": [{"name": f"modeltiers-{group}", "rules": [_rule(alert) for alert in alerts]}]}


def _rule(alert: Alert) -> Manifest:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "runbook_url": f"{RUNBOOKS}#{alert.name.lower()}"},
    }
