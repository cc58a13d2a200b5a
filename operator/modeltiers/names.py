"""Every name the product writes into a cluster: group, labels, annotations, child names, field manager.

One place, so that a reader can grep a label and find who sets it. It refuses to know what the names are used for.
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "modeltiers.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "tiering"

FIELD_MANAGER: Final = "modeltiers"
OPERATOR_NAME: Final = "modeltiers-operator"
OPERATOR_NAMESPACE: Final = "modeltiers-system"
LEASE: Final = "modeltiers-operator"

# Labels on children. The app.kubernetes.io/instance label is left alone on purpose: Argo CD tracks by it.
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_TIER: Final = f"{GROUP}/tier"
LABEL_REVISION: Final = f"{GROUP}/revision"

# Annotations on children.
ANNOTATION_RECORD: Final = f"{GROUP}/record"  # the resolved plan and pod template, with the hash of their inputs
ANNOTATION_APPLIED: Final = f"{GROUP}/applied"  # the hash of the intent that was applied last

ENGINE_CONTAINER: Final = "engine"
ENGINE_PORT: Final = 8000
ENGINE_PORT_NAME: Final = "http"

MAX_TIER_NAME: Final = 50  # leaves room for the suffixes below and a ReplicaSet's hash inside 63 characters

FIRST_REVISION: Final = "r1"


def workload(tier: str, revision: str = FIRST_REVISION) -> str:
    """Name of the Deployment that serves one revision of a tier."""
    return tier if revision == FIRST_REVISION else f"{tier}-{revision}"


def service(tier: str) -> str:
    """Name of the Service in front of a tier."""
    return tier


def service_account(tier: str) -> str:
    """Name of the (tokenless) ServiceAccount of a tier's pods."""
    return tier


def disruption_budget(tier: str) -> str:
    """Name of the PodDisruptionBudget over a tier's pods."""
    return tier


def tier_labels(tier: str) -> dict[str, str]:
    """Labels that select everything of one tier, whatever its revision."""
    return {LABEL_NAME: "modeltier", LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_TIER: tier}


def selector(tier: str, revision: str | None = None) -> dict[str, str]:
    """Labels that select a tier's pods, of one revision or of all."""
    chosen = {LABEL_TIER: tier}
    if revision is not None:
        chosen[LABEL_REVISION] = revision
    return chosen


def selector_string(tier: str) -> str:
    """The tier's pod selector as the scale subresource wants it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(tier).items()))
