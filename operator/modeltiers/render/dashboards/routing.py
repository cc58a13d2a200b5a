"""What requests met, what it cost, and what was refused."""

from __future__ import annotations

from typing import Final

from modeltiers.render.dashboard import Dashboard, Row, Variable
from modeltiers.render.dashboards.parts import HERE, RATE, ROUTE, highest, objects, panel, quantile, rate

_BY: Final = "namespace, policy"
_BY_TIER: Final = "namespace, policy, tier"
_NAME: Final = "{{namespace}}/{{policy}}"
_FIRST: Final = "modeltiers_router_time_to_first_token_seconds"
_ANSWERED: Final = f'{ROUTE}, outcome="Answered"'
_ESCALATED: Final = f"avg by ({_BY}) (modeltiers_router_escalated_share_permille{{{ROUTE}}}) / 1000"
_ROUTERS: Final = highest(_BY, "modeltiers_policy_routers", ROUTE)
_LIVE: Final = highest(_BY, "modeltiers_policy_routers_live", ROUTE)
_BY_CURRENCY: Final = "namespace, policy, currency"
_CALLS: Final = rate("namespace, tier", "modeltiers_router_attempts_total", HERE)
_NO_ANSWER: Final = 'outcome=~"Connect|Timeout|Broken|429|5.."'
_FAILED: Final = rate("namespace, tier", "modeltiers_router_attempts_total", f"{HERE}, {_NO_ANSWER}")

ROUTING: Final = Dashboard(
    "modeltiers-routing",
    "modeltiers / Routing",
    "What requests met, who answered them, how much went up the ladder, what it cost, and what was refused.",
    (
        Variable("namespace", "modeltiers_condition", "namespace"),
        Variable("policy", 'modeltiers_condition{kind="RoutingPolicy", namespace=~"$namespace"}', "name"),
    ),
    (
        Row(
            "Policies",
            (
                *objects("RoutingPolicy", "policy"),
                panel(
                    "Routers with the present table",
                    "Of all that should serve it. Below 1, some still serve the last good one.",
                    "percentunit",
                    (
                        _LIVE + " / " + _ROUTERS,
                        _NAME,
                    ),
                ),
                panel(
                    "Where requests enter",
                    "The tier before whose routers the policy's Service stands.",
                    "none",
                    highest(_BY_TIER, "modeltiers_policy_entry", ROUTE),
                    kind="table",
                ),
                panel(
                    "Saved against the last tier alone",
                    "Below 0 where the ladder costs more. Absent while it is not known.",
                    "percentunit",
                    (
                        highest(_BY, "modeltiers_policy_saved_permille", ROUTE) + " / 1000",
                        _NAME,
                    ),
                ),
            ),
        ),
        Row(
            "Requests",
            (
                panel(
                    "By outcome",
                    "Answered, or how else they ended. ClientLeft is the client's doing.",
                    "reqps",
                    (
                        rate("namespace, policy, outcome", "modeltiers_router_requests_total", ROUTE),
                        "{{namespace}}/{{policy}} {{outcome}}",
                    ),
                ),
                panel(
                    "By the tier that answered",
                    "The share of the small tier is what saves.",
                    "reqps",
                    (
                        rate(
                            _BY_TIER,
                            "modeltiers_router_requests_total",
                            _ANSWERED,
                        ),
                        "{{namespace}}/{{policy}} {{tier}}",
                    ),
                ),
                panel(
                    "Answers by decision",
                    "Accepted and Escalated were judged; Kept was wanting, and no tier above it could answer.",
                    "reqps",
                    (
                        rate("namespace, policy, decision", "modeltiers_router_decisions_total", ROUTE),
                        "{{namespace}}/{{policy}} {{decision}}",
                    ),
                ),
                panel(
                    "Escalated of late",
                    "Share of judged answers for which a tier above was asked, as each router counts it.",
                    "percentunit",
                    (
                        _ESCALATED,
                        _NAME,
                    ),
                ),
                panel(
                    "Why answers were given",
                    "The reason of the choice or of the judgement; docs/reference/routing.md has them all.",
                    "reqps",
                    (
                        f"topk(10, {rate('namespace, policy, reason', 'modeltiers_router_decisions_total', ROUTE)})",
                        "{{namespace}}/{{policy}} {{reason}}",
                    ),
                ),
                panel(
                    "Being answered",
                    "Requests in flight on all routers of the namespaces.",
                    "none",
                    (f"sum by (namespace) (modeltiers_router_in_flight{{{HERE}}})", "{{namespace}}"),
                ),
            ),
        ),
        Row(
            "Time",
            (
                panel(
                    "First token",
                    "From the request to the first of its answer, as the client sees it.",
                    "s",
                    (
                        quantile(0.5, _FIRST, _BY_TIER, ROUTE),
                        "{{namespace}}/{{policy}} {{tier}} 50",
                    ),
                    (
                        quantile(0.95, _FIRST, _BY_TIER, ROUTE),
                        "{{namespace}}/{{policy}} {{tier}} 95",
                    ),
                ),
                panel(
                    "Between events of a stream, 95 of 100",
                    "As sent to the client.",
                    "s",
                    (
                        quantile(0.95, "modeltiers_router_inter_token_seconds", _BY_TIER, ROUTE),
                        "{{namespace}}/{{policy}} {{tier}}",
                    ),
                ),
                panel(
                    "Held to be judged, 95 of 100",
                    "From the first token of a judged answer until it was given: the price of judging.",
                    "s",
                    (
                        quantile(0.95, "modeltiers_router_held_seconds", _BY, ROUTE),
                        _NAME,
                    ),
                ),
                panel(
                    "A call to a tier, 95 of 100",
                    "From its start to its end.",
                    "s",
                    (
                        quantile(0.95, "modeltiers_router_upstream_seconds", _BY_TIER, ROUTE),
                        "{{namespace}}/{{policy}} {{tier}}",
                    ),
                ),
                panel(
                    "The router's own time, 99 of 100",
                    "From the whole request to its dispatch.",
                    "s",
                    (quantile(0.99, "modeltiers_router_overhead_seconds", "namespace", HERE), "{{namespace}}"),
                ),
                panel(
                    "Event loops",
                    "How late the latest router of each namespace is. Above 5 s it is restarted.",
                    "s",
                    (highest("namespace", "modeltiers_router_loop_lag_seconds", HERE), "{{namespace}}"),
                ),
            ),
        ),
        Row(
            "Tokens and cost",
            (
                panel(
                    "Tokens a second",
                    "`decision` is what was used and not given: answers found wanting, and calls that were stopped.",
                    "none",
                    (
                        rate("tier, kind, use", "modeltiers_router_tokens_total", ROUTE),
                        "{{tier}} {{kind}} {{use}}",
                    ),
                ),
                panel(
                    "Cost a second",
                    "By the prices in the table, in units of the currency.",
                    "none",
                    (
                        rate("namespace, policy, use", "modeltiers_router_cost_micros_total", ROUTE) + " / 1e6",
                        "{{namespace}}/{{policy}} {{use}}",
                    ),
                ),
                panel(
                    "Cost of a thousand requests",
                    "Over the window of status.cost, beside the same requests on the last tier alone.",
                    "none",
                    (
                        highest(_BY_CURRENCY, "modeltiers_policy_cost_per_thousand_micros", ROUTE) + " / 1e6",
                        "{{namespace}}/{{policy}} {{currency}}",
                    ),
                    (
                        highest(_BY_CURRENCY, "modeltiers_policy_all_large_cost_per_thousand_micros", ROUTE) + " / 1e6",
                        "{{namespace}}/{{policy}} {{currency}} last tier alone",
                    ),
                ),
            ),
        ),
        Row(
            "Refused and failed",
            (
                panel(
                    "Calls that failed",
                    "Share of the calls to a tier: Connect, Timeout, Broken, 429 and 5xx.",
                    "percentunit",
                    (
                        _FAILED + " / " + _CALLS,
                        "{{tier}}",
                    ),
                ),
                panel(
                    "Limits",
                    "Requests that a limit of the policy or of a key refused, by what was short.",
                    "reqps",
                    (
                        rate("namespace, policy, cause", "modeltiers_router_limited_total", ROUTE),
                        "{{namespace}}/{{policy}} {{cause}}",
                    ),
                ),
                panel(
                    "Refused before any tier was asked",
                    "By status; and clients refused before a request was read.",
                    "reqps",
                    (rate("status", "modeltiers_router_refused_total", HERE), "{{status}}"),
                    (
                        rate("cause", "modeltiers_router_clients_refused_total", HERE),
                        "{{cause}}",
                    ),
                ),
                panel(
                    "Health of addresses",
                    "Times that an address of a tier was found well or not.",
                    "none",
                    (
                        f"sum by (tier, state) (increase(modeltiers_router_health_changes_total{{{HERE}}}[{RATE}]))",
                        "{{tier}} {{state}}",
                    ),
                ),
                panel(
                    "Tables read",
                    "Refused: the last good table goes on serving; the router's /status says why.",
                    "none",
                    (
                        f"sum by (outcome) (increase(modeltiers_router_table_reloads_total{{{HERE}}}[{RATE}]))",
                        "{{outcome}}",
                    ),
                ),
                panel(
                    "Records and log lines lost",
                    "Decision records dropped by the spool, and log lines that nobody read.",
                    "none",
                    (
                        f'sum by (figure) (modeltiers_router_spool{{{HERE}, figure=~"dropped_.*|waiting"}})',
                        "records {{figure}}",
                    ),
                    (f"sum(modeltiers_router_log_lines_dropped_total{{{HERE}}})", "log lines"),
                ),
            ),
        ),
    ),
)
