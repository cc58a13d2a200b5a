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
OPERATOR_SETTINGS: Final = "modeltiers-settings"

# Labels on children. The app.kubernetes.io/instance label is left alone on purpose: Argo CD tracks by it.
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_TIER: Final = f"{GROUP}/tier"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_POLICY: Final = f"{GROUP}/policy"
LABEL_DISTILL: Final = f"{GROUP}/distilljob"
LABEL_STAGE: Final = f"{GROUP}/stage"
LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"

# Annotations on children.
ANNOTATION_RECORD: Final = f"{GROUP}/record"  # the resolved plan and pod template, with the hash of their inputs
ANNOTATION_APPLIED: Final = f"{GROUP}/applied"  # the hash of the intent that was applied last

ANNOTATION_ROLLOUT: Final = f"{GROUP}/rollout-token"  # on pod templates: the token of the spec, so that a new one rolls

# On Jobs: what a stage rests on, the plan it was given, and the retry that it answers.
ANNOTATION_DIGEST: Final = f"{GROUP}/digest"
ANNOTATION_PLAN: Final = f"{GROUP}/plan"
# On DistillJobs, by users: another value runs what failed once more; the artifact's digest lets it go live, or back.
ANNOTATION_RETRY: Final = f"{GROUP}/retry"
ANNOTATION_APPROVE: Final = f"{GROUP}/approve"
ANNOTATION_ROLLBACK: Final = f"{GROUP}/rollback"

# On pods: changed so that the kubelet looks at the pod's volumes now, and not within a minute.
ANNOTATION_TABLES: Final = f"{GROUP}/tables-touched"

ENGINE_CONTAINER: Final = "engine"
ENGINE_PORT: Final = 8000
ENGINE_PORT_NAME: Final = "http"

# The router before the engine. Clients and other routers use the serving port; operator and Prometheus the admin port.
ROUTER_CONTAINER: Final = "router"
SERVING_PORT: Final = 8080
SERVING_PORT_NAME: Final = "serving"
ADMIN_PORT: Final = 8081
ADMIN_PORT_NAME: Final = "admin"
CLIENT_KEYS_SECRET: Final = "modeltiers-keys"  # noqa: S105  a name: the namespace's one Secret of client keys, made by users
CLIENT_KEYS: Final = "keys.json"
HOP_SECRET: Final = "modeltiers-hop"  # noqa: S105  a name: the namespace's one Secret of the hop key, made by the operator
HOP_KEY: Final = "hop.key"

MAX_TIER_NAME: Final = 50  # leaves room for the suffixes below and a ReplicaSet's hash inside 63 characters

FIRST_REVISION: Final = "r1"
SECOND_REVISION: Final = "r2"  # a candidate beside the first


def workload(tier: str, revision: str = FIRST_REVISION) -> str:
    """Name of the Deployment that serves one revision of a tier."""
    return tier if revision == FIRST_REVISION else f"{tier}-{revision}"


def tiers_of_workload(name: str) -> list[str]:
    """The tiers that a Deployment of this name may belong to."""
    suffix = f"-{SECOND_REVISION}"
    return [name, name.removesuffix(suffix)] if name.endswith(suffix) else [name]


def service(tier: str) -> str:
    """Name of the Service in front of a tier."""
    return tier


def pods_service(tier: str, revision: str = FIRST_REVISION) -> str:
    """Name of the headless Service over the routers of a tier's revision: how other routers reach each of them."""
    return f"{workload(tier, revision)}-pods"


def table_config_map(tier: str) -> str:
    """Name of the ConfigMap with a key for each policy that crosses a tier."""
    return f"{tier}-table"


def table_key(policy: str) -> str:
    """Key of a policy's table in that ConfigMap."""
    return f"{policy}.json"


def direct_policy(tier: str) -> str:
    """Name, in tables, metrics and records, of what answers a tier's direct callers; no policy may have it."""
    return f"direct-{tier}"


def policy_service(policy: str) -> str:
    """Name of the Service that clients of a policy call."""
    return f"{policy}-policy"


def gateway(policy: str) -> str:
    """Name of the routers of a policy with placement Gateway, and of what belongs to them."""
    return f"{policy}-gateway"


def policy_route(policy: str) -> str:
    """Name of the HTTPRoute that leads clients from outside to a policy."""
    return f"{policy}-policy"


def policy_url(policy: str, namespace: str) -> str:
    """Base URL that clients of a policy use inside the cluster."""
    return f"http://{policy_service(policy)}.{namespace}.svc/v1"


def service_account(tier: str) -> str:
    """Name of the (tokenless) ServiceAccount of a tier's pods."""
    return tier


VERIFY_CONTAINER: Final = "verify"
PACKAGE_SIGNATURE: Final = "model.sig"  # beside the folder `model` of a package
PUBLIC_KEYS_ENV: Final = "MODELTIERS_PUBLIC_KEYS"  # the administrator's public keys, PEM after PEM
STAGE_CONTAINER: Final = "stage"
MAX_DISTILL_NAME: Final = 40  # leaves room for a stage and a digest inside 63 characters
_STAGE_SLUGS: Final = {
    "EvaluateTeacher": "eval-teacher",
    "EvaluateBase": "eval-base",
    "EvaluateStudent": "eval-student",
}


def stage_job(job: str, stage: str, digest: str) -> str:
    """Name of the Job that runs a stage whose inputs have this digest."""
    slug = {**_STAGE_SLUGS, "EvaluateIncumbent": "eval-incumbent"}.get(stage, stage.lower())
    return f"{job}-{slug}-{digest[:6]}"


def distill_plan(job: str) -> str:
    """Name of the ConfigMap with the plan that the stages of a DistillJob read."""
    return f"{job}-plan"


def distill_account(job: str) -> str:
    """Name of the (tokenless) ServiceAccount of the stages' pods; also of the NetworkPolicy before them."""
    return f"{job}-distill"


def disruption_budget(tier: str) -> str:
    """Name of the PodDisruptionBudget over a tier's pods."""
    return tier


def network_policy(tier: str) -> str:
    """Name of the NetworkPolicy over a tier's pods."""
    return tier


def tier_labels(tier: str) -> dict[str, str]:
    """Labels that select everything of one tier, whatever its revision."""
    return {LABEL_NAME: "modeltier", LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_TIER: tier}


def policy_labels(policy: str) -> dict[str, str]:
    """Labels that select everything of one policy."""
    return {LABEL_NAME: "routingpolicy", LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_POLICY: policy}


def distill_labels(job: str) -> dict[str, str]:
    """Labels that select everything of one DistillJob."""
    return {LABEL_NAME: "distilljob", LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_DISTILL: job}


def selector(tier: str, revision: str | None = None) -> dict[str, str]:
    """Labels that select a tier's pods, of one revision or of all."""
    chosen = {LABEL_TIER: tier}
    if revision is not None:
        chosen[LABEL_REVISION] = revision
    return chosen


def selector_string(tier: str) -> str:
    """The selector of the pods that `spec.replicas` counts, as the scale subresource wants it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(tier, FIRST_REVISION).items()))
