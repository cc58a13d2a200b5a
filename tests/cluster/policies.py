"""Short words for what tests of policies do over and over: apply one, wait for its conditions, look at its tables."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.kit import Tiers, until

POLICY: dict[str, Any] = {
    "model": "support",
    "tiers": [{"name": "small"}, {"name": "large"}],
    "mode": "Cascade",
    "accept": {"confidence": {}},
}


def apply(where: Tiers, name: str = "support", **changes: Any) -> None:
    """Apply a policy as a user does; None takes a field away."""
    spec = {key: value for key, value in {**POLICY, **changes}.items() if value is not None}
    body = {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": name, "namespace": where.namespace},
        "spec": spec,
    }
    where.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body))


def condition(tiers: Tiers, kind: str, name: str = "support") -> dict[str, Any]:
    """One condition of a policy, for the current generation; empty when there is none."""
    body = tiers.get("routingpolicy", name) or {"metadata": {}}
    for item in (body.get("status") or {}).get("conditions") or ():
        if item["type"] == kind and item["observedGeneration"] == body["metadata"]["generation"]:
            return dict(item)
    return {}


def reasoned(tiers: Tiers, kind: str, status: str, reason: str, name: str = "support", timeout: float = 30) -> str:
    """Wait for a condition and return its message."""

    def holds() -> bool:
        item = condition(tiers, kind, name)
        return (item.get("status"), item.get("reason")) == (status, reason)

    until(holds, lambda: json.dumps((tiers.get("routingpolicy", name) or {}).get("status"), indent=1), timeout)
    return str(condition(tiers, kind, name)["message"])


def table(tiers: Tiers, tier: str, policy: str = "support") -> dict[str, Any] | None:
    """The table of a policy that the routers of a tier read."""
    found = tiers.get("configmap", f"{tier}-table")
    text = ((found or {}).get("data") or {}).get(f"{policy}.json")
    return dict(json.loads(text)) if text else None
