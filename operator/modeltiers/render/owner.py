"""Whom children belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from modeltiers import names


@dataclass(frozen=True, slots=True)
class Owner:
    """The tier, policy or distillation that children belong to."""

    namespace: str
    name: str
    uid: str
    kind: Literal["ModelTier", "RoutingPolicy", "DistillJob"] = "ModelTier"

    def reference(self) -> dict[str, Any]:
        """Controller reference: the child is deleted with its owner, with or without the operator."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }
