"""For each alert, series on which it fires and when, and series on which it does not.

Series and values are in promtool's notation: `1x20` is 1 twenty times more, `0+5x20` grows by 5. A step is a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

Series = dict[str, str]

CONDITION: Final = (
    'modeltiers_condition{kind="%s", namespace="shop", name="a", condition="%s", status="%s", reason="%s"}'
)


@dataclass(frozen=True)
class Case:
    """When an alert fires (minutes), with which labels and words; and worlds in which it does not, at that minute."""

    at: int
    fires: Series
    labels: dict[str, str]
    summary: str
    quiet: tuple[Series, ...] = field(default=())


def condition(kind: str, type_: str, status: str, reason: str = "Because") -> str:
    return CONDITION % (kind, type_, status, reason)


OBJECT: Final = {"namespace": "shop", "name": "a"}
POLICY: Final = {"namespace": "shop", "policy": "support"}
JOB: Final = {"namespace": "shop", "distilljob": "a"}
REQUESTS: Final = 'modeltiers_router_requests_total{namespace="shop", policy="support", tier="small", outcome="%s"}'
ATTEMPTS: Final = 'modeltiers_router_attempts_total{namespace="shop", tier="large", outcome="%s"}'
RUNNING: Final = 'modeltiers_distill_stage{namespace="shop", distilljob="a", stage="Train", state="Running"}'
PROGRESS: Final = 'modeltiers_distill_progress_ratio{namespace="shop", distilljob="a"}'
ROLLED_BACK: Final = 'modeltiers_distill_promotion{namespace="shop", distilljob="a", state="RolledBack"}'
CACHE: Final = 'vllm:kv_cache_usage_perc{namespace="shop", model_name="m", engine="0", pod="p"}'
FIRST: Final = (
    'modeltiers_router_time_to_first_token_seconds_bucket{namespace="shop", policy="support", tier="t", le="%s"}'
)
SPOOL: Final = 'modeltiers_router_spool{namespace="shop", pod="p", figure="%s"}'


def of_condition(kind: str, type_: str, status: str, at: int, summary: str, well: str) -> Case:
    """A condition that says so for long enough; not one that says otherwise, nor one that did not last."""
    said = condition(kind, type_, status)
    # The reason may change on the way: the alert is about the status.
    half = at // 2
    changing = {
        condition(kind, type_, status, "One"): f"1x{half} stale",
        condition(kind, type_, status, "Two"): f"_x{half} 1x{at}",
    }
    short = {said: f"_x{at - 2} 1x{at}"}
    return Case(at, changing, OBJECT, summary, ({condition(kind, type_, well): f"1x{at}"}, short))


CASES: Final[dict[str, Case]] = {
    "ModeltiersOperatorAbsent": Case(
        6, {}, {}, "No replica of the modeltiers operator is scraped", ({'modeltiers_build_info{version="1"}': "1x10"},)
    ),
    "ModeltiersOperatorNotLeading": Case(
        4,
        {'modeltiers_leading{pod="a"}': "0x10", 'modeltiers_leading{pod="b"}': "0x10"},
        {},
        "No replica of the modeltiers operator leads, so nothing is reconciled",
        ({'modeltiers_leading{pod="a"}': "0x10", 'modeltiers_leading{pod="b"}': "1x10"},),
    ),
    "ModeltiersOperatorTwoLeaders": Case(
        3,
        {'modeltiers_leading{pod="a"}': "1x10", 'modeltiers_leading{pod="b"}': "1x10"},
        {},
        "2 replicas of the modeltiers operator believe that they lead",
        ({'modeltiers_leading{pod="a"}': "1x10", 'modeltiers_leading{pod="b"}': "0x10"},),
    ),
    "ModeltiersOperatorBug": Case(
        10,
        {'modeltiers_reconcile_errors_total{kind="ModelTier", reason="Bug"}': "0 0 0 1x20"},
        {"kind": "ModelTier"},
        "A reconcile of a ModelTier ended in a fault of the operator's own",
        ({'modeltiers_reconcile_errors_total{kind="ModelTier", reason="Conflict"}': "0+1x20"},),
    ),
    "ModeltiersReconcileErrors": Case(
        25,
        {
            'modeltiers_reconcile_errors_total{kind="ModelTier", reason="Unavailable"}': "0+5x30",
            'modeltiers_reconcile_total{kind="ModelTier", result="ok"}': "0+5x30",
            'modeltiers_reconcile_total{kind="ModelTier", result="error"}': "0+5x30",
        },
        {"kind": "ModelTier"},
        "50% of the reconciles of ModelTiers fail",
        (
            {
                'modeltiers_reconcile_errors_total{kind="ModelTier", reason="Unavailable"}': "0+1x30",
                'modeltiers_reconcile_total{kind="ModelTier", result="ok"}': "0+9x30",
                'modeltiers_reconcile_total{kind="ModelTier", result="error"}': "0+1x30",
            },
        ),
    ),
    "ModeltiersQueueStuck": Case(
        10,
        {
            'modeltiers_queue_oldest_seconds{instance="a"}': "200x20",
            'modeltiers_leading{instance="a"}': "1x20",
        },
        {},
        "A wake-up of the operator has waited for 3m 20s",
        (
            # A standby serves nothing, so that its oldest wake-up grows.
            {'modeltiers_queue_oldest_seconds{instance="a"}': "900x20", 'modeltiers_leading{instance="a"}': "0x20"},
        ),
    ),
    "ModeltiersWatchStale": Case(
        5,
        {'modeltiers_watch_age_seconds{resource="pods", pod="a"}': "200x20"},
        {"resource": "pods"},
        "The operator's watch of pods has been silent for 3m 20s",
        ({'modeltiers_watch_age_seconds{resource="pods", pod="a"}': "100x20"},),
    ),
    "ModeltiersTierNotReady": of_condition(
        "ModelTier", "Ready", "False", 12, "ModelTier shop/a does not answer", "Unknown"
    ),
    "ModeltiersTierProgressing": of_condition(
        "ModelTier", "Ready", "Unknown", 62, "ModelTier shop/a has been on its way for an hour", "True"
    ),
    "ModeltiersTierReplicasMissing": Case(
        32,
        {
            'modeltiers_tier_replicas{namespace="shop", tier="small"}': "3x60",
            'modeltiers_tier_ready_replicas{namespace="shop", tier="small"}': "2x60",
        },
        {"namespace": "shop", "tier": "small"},
        "Of ModelTier shop/small only 2 pods answer",
        (
            {
                'modeltiers_tier_replicas{namespace="shop", tier="small"}': "3x60",
                'modeltiers_tier_ready_replicas{namespace="shop", tier="small"}': "3x60",
            },
        ),
    ),
    "ModeltiersEngineCacheFull": Case(
        25,
        {CACHE: "0.99x60"},
        {"namespace": "shop", "model_name": "m"},
        "The KV cache of m in shop has been full for ten minutes",
        ({CACHE: "0.9x60"},),
    ),
    "ModeltiersEngineQueueGrowing": Case(
        12,
        {
            'vllm:num_requests_waiting{namespace="shop", model_name="m", engine="0", pod="p"}': "30x60",
            'vllm:num_requests_running{namespace="shop", model_name="m", engine="0", pod="p"}': "10x60",
        },
        {"namespace": "shop", "model_name": "m"},
        "30 requests wait on m in shop, twice those that run",
        (
            {
                'vllm:num_requests_waiting{namespace="shop", model_name="m", engine="0", pod="p"}': "10x60",
                'vllm:num_requests_running{namespace="shop", model_name="m", engine="0", pod="p"}': "10x60",
            },
        ),
    ),
    "ModeltiersPolicyNotReady": of_condition(
        "RoutingPolicy", "Ready", "False", 7, "RoutingPolicy shop/a does not serve what it says", "Unknown"
    ),
    "ModeltiersPolicyTableNotLive": Case(
        17,
        {
            'modeltiers_policy_routers{namespace="shop", policy="support"}': "3x60",
            'modeltiers_policy_routers_live{namespace="shop", policy="support"}': "1x60",
        },
        POLICY,
        "Only 1 routers serve the present table of shop/support",
        (
            {
                'modeltiers_policy_routers{namespace="shop", policy="support"}': "3x60",
                'modeltiers_policy_routers_live{namespace="shop", policy="support"}': "3x60",
            },
        ),
    ),
    "ModeltiersRequestsFailFast": Case(
        65,
        {REQUESTS % "Answered": "0+95x120", REQUESTS % "Failed": "0+5x120"},
        POLICY,
        "Requests of shop/support fail: at 99.9 % a month's budget goes in two days",
        (
            {REQUESTS % "Answered": "0+995x120", REQUESTS % "Failed": "0+5x120"},
            # It is over: the hour remembers it, the last minutes do not.
            {REQUESTS % "Answered": "0+95x120", REQUESTS % "Failed": "0+5x50 250x60"},
            # A client that leaves and a limit are no failures of ours.
            {REQUESTS % "Answered": "0+95x120", REQUESTS % "ClientLeft": "0+50x120", REQUESTS % "Limited": "0+50x120"},
        ),
    ),
    "ModeltiersRequestsFailSlow": Case(
        390,
        {REQUESTS % "Answered": "0+99x400", REQUESTS % "Broken": "0+1x400"},
        POLICY,
        "Requests of shop/support fail: at 99.9 % a month's budget goes in five days",
        ({REQUESTS % "Answered": "0+999x400", REQUESTS % "Broken": "0+1x400"},),
    ),
    "ModeltiersTierCallsFail": Case(
        20,
        {ATTEMPTS % "Answered": "0+60x60", ATTEMPTS % "503": "0+20x60", ATTEMPTS % "Timeout": "0+20x60"},
        {"namespace": "shop", "tier": "large"},
        "40% of the calls to tier large in shop fail",
        ({ATTEMPTS % "Answered": "0+60x60", ATTEMPTS % "Escalated": "0+40x60", ATTEMPTS % "400": "0+40x60"},),
    ),
    "ModeltiersEscalationHigh": Case(
        65,
        {'modeltiers_router_escalated_share_permille{namespace="shop", policy="support", pod="p"}': "900x120"},
        POLICY,
        "Four of five judged answers of shop/support are asked again above",
        ({'modeltiers_router_escalated_share_permille{namespace="shop", policy="support", pod="p"}': "300x120"},),
    ),
    "ModeltiersFirstTokenSlow": Case(
        30,
        {FIRST % "10": "0+50x60", FIRST % "30": "0+100x60", FIRST % "+Inf": "0+100x60"},
        POLICY,
        "One in twenty requests of shop/support waits longer than 10 s for its answer",
        ({FIRST % "1": "0+100x60", FIRST % "10": "0+100x60", FIRST % "+Inf": "0+100x60"},),
    ),
    "ModeltiersRequestsLimited": Case(
        30,
        {
            'modeltiers_router_limited_total{namespace="shop", policy="support", cause="Tokens"}': "0+25x60",
            REQUESTS % "Answered": "0+75x60",
            REQUESTS % "Limited": "0+25x60",
        },
        POLICY,
        "Limits refuse 25% of shop/support",
        (
            {
                'modeltiers_router_limited_total{namespace="shop", policy="support", cause="Tokens"}': "0+5x60",
                REQUESTS % "Answered": "0+95x60",
            },
        ),
    ),
    "ModeltiersTableRefused": Case(
        10,
        {'modeltiers_router_table_reloads_total{namespace="shop", pod="p", outcome="Refused"}': "0 0 1x20"},
        {"namespace": "shop"},
        "A router in shop refused a table and serves the last good one",
        ({'modeltiers_router_table_reloads_total{namespace="shop", pod="p", outcome="Loaded"}': "0+1x20"},),
    ),
    "ModeltiersRecordsLost": Case(
        15,
        {SPOOL % "dropped_disk": "0 0 0+3x20"},
        {"namespace": "shop", "figure": "dropped_disk"},
        "Routers in shop lose decision records: dropped_disk",
        # What makes room for newer ones was not fetched in time, and is no fault of the router's.
        ({SPOOL % "dropped_old": "0+3x20"}, {SPOOL % "dropped_disk": "7x20"}),
    ),
    "ModeltiersDistillationStalled": of_condition(
        "DistillJob", "Stalled", "True", 7, "DistillJob shop/a does not go on by itself", "False"
    ),
    "ModeltiersDistillationNoProgress": Case(
        160,
        {PROGRESS: "0.5x200", RUNNING: "1x200"},
        JOB,
        "The running stage of DistillJob shop/a has not moved for two hours",
        ({PROGRESS: "0+0.001x200", RUNNING: "1x200"}, {PROGRESS: "0.5x200"}),
    ),
    "ModeltiersDistillationAwaitsApproval": of_condition(
        "DistillJob",
        "AwaitingApproval",
        "True",
        1442,
        "DistillJob shop/a has waited a day for somebody to approve its student",
        "False",
    ),
    "ModeltiersStudentTakenBack": Case(
        65,
        {ROLLED_BACK: "_x60 1x60"},
        JOB,
        "The student of DistillJob shop/a was taken back",
        ({ROLLED_BACK: "1x120"}, {ROLLED_BACK.replace("RolledBack", "Live"): "_x60 1x60"}),
    ),
}
