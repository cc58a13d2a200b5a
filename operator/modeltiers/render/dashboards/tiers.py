"""What tiers there are, what stands in their way, what they cost, and how their engines are."""

from __future__ import annotations

from typing import Final

from modeltiers.render.dashboard import Dashboard, Row, Variable
from modeltiers.render.dashboards.parts import ENGINE, TIER, highest, objects, panel, quantile, rate

_ACCELERATORS: Final = highest("namespace, tier, product", "modeltiers_tier_accelerators", TIER)

TIERS: Final = Dashboard(
    "modeltiers-tiers",
    "modeltiers / Tiers",
    "What tiers there are, what stands in their way, what they cost, and how their engines are.",
    (
        Variable("namespace", "modeltiers_condition", "namespace"),
        Variable("tier", 'modeltiers_tier_replicas{namespace=~"$namespace"}', "tier"),
        Variable("model", 'vllm:num_requests_running{namespace=~"$namespace"}', "model_name"),
    ),
    (
        Row(
            "Tiers",
            (
                *objects("ModelTier", "tier"),
                panel(
                    "Pods",
                    "Ready below the rest: a rollout, or pods that do not come up.",
                    "none",
                    (highest("namespace, tier", "modeltiers_tier_replicas", TIER), "{{tier}} pods"),
                    (highest("namespace, tier", "modeltiers_tier_ready_replicas", TIER), "{{tier}} ready"),
                    (highest("namespace, tier", "modeltiers_tier_autoscaler_wanted", TIER), "{{tier}} wanted"),
                ),
                panel(
                    "Accelerators",
                    "By the plan of each tier, for the pods that exist.",
                    "none",
                    (
                        f"sum by (product) ({_ACCELERATORS})",
                        "{{product}}",
                    ),
                ),
                panel(
                    "Cost an hour",
                    "At spec.price, for the pods that exist, in units of the currency.",
                    "none",
                    (
                        highest("namespace, tier, currency", "modeltiers_tier_cost_micros_per_hour", TIER) + " / 1e6",
                        "{{tier}} {{currency}}",
                    ),
                ),
            ),
        ),
        Row(
            "Load of engines",
            (
                panel(
                    "Requests on engines",
                    "Waiting while others run: the engine is full.",
                    "none",
                    (f"sum by (model_name) (vllm:num_requests_running{{{ENGINE}}})", "{{model_name}} running"),
                    (f"sum by (model_name) (vllm:num_requests_waiting{{{ENGINE}}})", "{{model_name}} waiting"),
                ),
                panel(
                    "KV cache in use",
                    "Near 1, requests wait or are preempted.",
                    "percentunit",
                    (highest("model_name, pod", "vllm:kv_cache_usage_perc", ENGINE), "{{model_name}} {{pod}}"),
                ),
                panel(
                    "Tokens a second",
                    "Prompt tokens read and answer tokens written.",
                    "none",
                    (
                        rate("model_name", "vllm:prompt_tokens_total", ENGINE),
                        "{{model_name}} prompt",
                    ),
                    (
                        rate("model_name", "vllm:generation_tokens_total", ENGINE),
                        "{{model_name}} answer",
                    ),
                ),
                panel(
                    "Preemptions a second",
                    "Requests that were put back because the KV cache was full; each is computed again.",
                    "none",
                    (rate("model_name", "vllm:num_preemptions_total", ENGINE), "{{model_name}}"),
                ),
                panel(
                    "Prefix cache hits",
                    "Part of the prompt tokens looked up that were in the cache.",
                    "percentunit",
                    (
                        rate("model_name", "vllm:prefix_cache_hits_total", ENGINE)
                        + " / "
                        + rate("model_name", "vllm:prefix_cache_queries_total", ENGINE),
                        "{{model_name}}",
                    ),
                ),
                panel(
                    "Requests finished",
                    "By vLLM's own reason; `length` is an answer cut off, `abort` a client or router that left.",
                    "reqps",
                    (
                        rate("model_name, finished_reason", "vllm:request_success_total", ENGINE),
                        "{{model_name}} {{finished_reason}}",
                    ),
                ),
            ),
        ),
        Row(
            "Time on engines",
            (
                panel(
                    "First token, 95 of 100",
                    "From the engine's receipt of a request to its first token.",
                    "s",
                    (quantile(0.95, "vllm:time_to_first_token_seconds", "model_name", ENGINE), "{{model_name}}"),
                ),
                panel(
                    "Between tokens, 95 of 100",
                    "While an answer is written.",
                    "s",
                    (quantile(0.95, "vllm:inter_token_latency_seconds", "model_name", ENGINE), "{{model_name}}"),
                ),
                panel(
                    "In the engine's queue, 95 of 100",
                    "Before the engine begins with a request.",
                    "s",
                    (quantile(0.95, "vllm:request_queue_time_seconds", "model_name", ENGINE), "{{model_name}}"),
                ),
            ),
        ),
    ),
)
