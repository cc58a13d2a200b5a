"""Whether the operator keeps up, what it writes, and how the API server answers it."""

from __future__ import annotations

from typing import Final

from modeltiers.render.dashboard import Dashboard, Row
from modeltiers.render.dashboards.parts import RATE, panel, quantile, rate, stat

OPERATOR: Final = Dashboard(
    "modeltiers-operator",
    "modeltiers / Operator",
    "Whether the operator keeps up, what it writes, and how the API server answers it.",
    (),
    (
        Row(
            "Replicas",
            (
                stat("Leading", "Replicas that may write: 1.", "sum(modeltiers_leading)"),
                stat("Replicas", "Replicas that have the whole picture.", "sum(modeltiers_synced)"),
                stat("Tiers", "ModelTiers known.", "max(modeltiers_tiers)"),
                stat("Policies", "RoutingPolicies known.", "max(modeltiers_policies)"),
                stat("Distillations", "DistillJobs known.", "max(modeltiers_distillations)"),
                panel(
                    "Version",
                    "Of each replica.",
                    "none",
                    "count by (version) (modeltiers_build_info)",
                    kind="stat",
                    width=4,
                ),
            ),
        ),
        Row(
            "Work",
            (
                panel(
                    "Reconciles",
                    "By result. `fenced` is a replica that stopped leading in the middle of one.",
                    "ops",
                    (rate("kind, result", "modeltiers_reconcile_total"), "{{kind}} {{result}}"),
                ),
                panel(
                    "Time of a reconcile, 95 of 100",
                    "",
                    "s",
                    (
                        quantile(0.95, "modeltiers_reconcile_duration_seconds", "kind"),
                        "{{kind}}",
                    ),
                ),
                panel(
                    "Faults",
                    "`Bug` is one of ours: please report it with the log.",
                    "ops",
                    (
                        rate("kind, reason", "modeltiers_reconcile_errors_total") + " or vector(0)",
                        "{{kind}} {{reason}}",
                    ),
                ),
                panel(
                    "Queue",
                    "Keys that wait or are served.",
                    "none",
                    ("sum by (pod) (modeltiers_queue_depth)", "{{pod}}"),
                ),
                panel(
                    "Oldest wake-up",
                    "How long the oldest wake-up has waited. A standby's grows for ever, and means nothing.",
                    "s",
                    (
                        "max(modeltiers_queue_oldest_seconds and on (instance) modeltiers_leading == 1) or vector(0)",
                        "oldest",
                    ),
                ),
                panel(
                    "Objects written",
                    "`differs`: somebody or something changes what the operator keeps.",
                    "ops",
                    (rate("kind, cause", "modeltiers_writes_total"), "{{kind}} {{cause}}"),
                ),
            ),
        ),
        Row(
            "API server",
            (
                panel(
                    "Requests",
                    "By code; 0 means no answer.",
                    "reqps",
                    (rate("verb, code", "modeltiers_api_requests_total"), "{{verb}} {{code}}"),
                ),
                panel(
                    "Time of an answer, 95 of 100",
                    "",
                    "s",
                    (
                        quantile(0.95, "modeltiers_api_request_duration_seconds", "verb"),
                        "{{verb}}",
                    ),
                ),
                panel(
                    "Age of watches",
                    "A healthy watch begins anew every 100 s; 180 s make the replica not ready.",
                    "s",
                    ("max by (resource) (modeltiers_watch_age_seconds)", "{{resource}}"),
                ),
                panel(
                    "Events",
                    "By outcome; `limited` is the rate limit of one object and reason.",
                    "ops",
                    (rate("outcome", "modeltiers_events_total") + " or vector(0)", "{{outcome}}"),
                ),
                panel(
                    "Leadership",
                    "Times that the lease was gained or lost.",
                    "none",
                    (f"sum by (change) (increase(modeltiers_leadership_changes_total[{RATE}]))", "{{change}}"),
                ),
                panel(
                    "Routers asked",
                    "For their status; a router that fails leaves its counts out of the facts.",
                    "ops",
                    (rate("result", "modeltiers_router_reads_total") + " or vector(0)", "{{result}}"),
                ),
            ),
        ),
        Row(
            "Process",
            (
                panel(
                    "Event loop",
                    "How late it runs. Above 10 s the replica is restarted.",
                    "s",
                    ("max by (pod) (modeltiers_loop_lag_seconds)", "{{pod}}"),
                ),
                panel(
                    "Reading all routers",
                    "Time that the last round took.",
                    "s",
                    ("max(modeltiers_traffic_round_seconds)", "last round"),
                ),
                panel(
                    "Memory",
                    "Resident, of each replica.",
                    "bytes",
                    (
                        "process_resident_memory_bytes and on (instance) modeltiers_build_info",
                        "{{pod}}",
                    ),
                ),
            ),
        ),
    ),
)
