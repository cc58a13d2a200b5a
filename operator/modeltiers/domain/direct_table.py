"""The table of a tier's own: what its router answers to callers that come past every policy."""

from __future__ import annotations

from typing import Any

from modeltiers import names
from modeltiers.api.modeltier import TierAccess
from modeltiers.domain.policy_table import CompiledTable, TierView, in_table, written
from modeltiers.domain.routing.table import FORMAT_VERSION, read_table


def direct_table(view: TierView, access: TierAccess, namespace: str) -> CompiledTable | None:
    """Return the table by which a tier answers requests for its model's own name; None where nobody may ask."""
    if access.mode == "Policy":
        return None
    policy: dict[str, Any] = {
        "name": names.direct_policy(view.name),
        "model": view.model,
        "tiers": [view.name],
        "access": {"mode": access.mode, "keys": list(access.keys)},
    }
    document = {"formatVersion": FORMAT_VERSION, "tiers": [in_table(view, namespace)], "policies": [policy]}
    return written(policy["name"], read_table(document))
