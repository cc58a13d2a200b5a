"""Decisions about a tier that need no cluster: what is refused, when to plan anew, what status says.

It takes what was gathered and returns what to do or say. It refuses to know how anything was read or will be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain.claims import ClaimView
from modeltiers.domain.engine_args import Refusal, refused_args, refused_env
from modeltiers.domain.facts import TierFacts
from modeltiers.domain.record import Record
from modeltiers.domain.revisions import Second
from modeltiers.domain.scaling import most_pods
from modeltiers.domain.views import DeploymentView


def claims_of(spec: ModelTierSpec) -> dict[str, str]:
    """Names of the claims that the tier mounts, with the field that names each."""
    claims: dict[str, str] = {}
    if spec.serving and spec.serving.cache:
        claims[spec.serving.cache.claim_name] = "spec.serving.cache.claimName"
    if spec.model and spec.model.source.startswith("pvc://"):
        claims[spec.model.source.removeprefix("pvc://").partition("/")[0]] = "spec.model.source"
    return claims


def refusals(spec: ModelTierSpec, settings: Settings, claims: Mapping[str, ClaimView | None]) -> list[Refusal]:
    """Everything in a well-formed spec that the operator will not act on."""
    return [
        *_refused_serving(spec, settings),
        *_refused_limits(spec, settings),
        *_refused_claims(spec, claims),
    ]


def _refused_serving(spec: ModelTierSpec, settings: Settings) -> list[Refusal]:
    serving = spec.serving
    if serving is None:
        return []
    found = [*refused_args(serving.args), *refused_env([variable.name for variable in serving.env])]
    if serving.profile and serving.profile not in settings.engine_profiles:
        known = ", ".join(sorted(settings.engine_profiles)) or "none"
        found.append(
            Refusal("spec.serving.profile", f"there is no engine profile {serving.profile!r}; there are: {known}")
        )
    chosen = {"spec.serving.image": serving.image, "spec.serving.router.image": serving.router and serving.router.image}
    for path, image in chosen.items():
        if image and not any(image.startswith(prefix) for prefix in settings.allowed_images):
            way_out = "remove it, or ask an administrator to add its prefix to allowedImages in the settings"
            found.append(Refusal(path, f"{image} is not an image that tiers may choose: {way_out}"))
    if serving.router and not settings.router.image:
        said = "no router is put before engines here: remove it, or ask an administrator to set router.image"
        found.append(Refusal("spec.serving.router", said))
    return found


def _refused_limits(spec: ModelTierSpec, settings: Settings) -> list[Refusal]:
    most = settings.limits.max_replicas
    path, asked = most_pods(spec)
    if asked > most:
        text = f"{asked} is over the limit of {most}: lower it, or have an administrator raise limits.maxReplicas"
        return [Refusal(path, text)]
    return []


def _refused_claims(spec: ModelTierSpec, claims: Mapping[str, ClaimView | None]) -> list[Refusal]:
    found: list[Refusal] = []
    field, pods = most_pods(spec)
    for name, path in claims_of(spec).items():
        claim = claims.get(name)
        if claim is not None and claim.single_writer and pods > 1:
            modes = ", ".join(claim.access_modes)
            text = f"volume claim {name} is {modes}: one node can mount it, and the tier has {pods} replicas."
            found.append(Refusal(path, f"{text} Use a ReadWriteMany claim, or set {field} to 1"))
    return found


def single_writer(claims: Mapping[str, ClaimView | None]) -> bool:
    """Whether some volume of the tier can be mounted by one node only."""
    return any(claim is not None and claim.single_writer for claim in claims.values())


def newer(record: Record, fresh: Record) -> tuple[str, ...]:
    """What a rollout would take that the recorded revision does not have; empty when nothing is newer."""
    found: list[str] = []
    if fresh.image != record.image:
        found.append(f"image {fresh.image} (running {record.image})")
    keys = ("accelerator", "gpusPerReplica", "tensorParallel", "pipelineParallel", "maxModelLen")
    if any(fresh.sizing.get(key) != record.sizing.get(key) for key in keys):
        plan = "{accelerator}, {gpusPerReplica} GPUs, TP {tensorParallel}, context {maxModelLen}"
        found.append(f"plan {plan.format(**fresh.sizing)} (running {plan.format(**record.sizing)})")
    elif fresh.image == record.image and fresh.template != record.template:
        found.append("defaults of the pod template")
    return tuple(found)


def is_direct(spec: ModelTierSpec) -> bool:
    """Whether the tier's router answers calls that no policy sends."""
    return spec.access is not None and spec.access.mode != "Policy"


def endpoint_of(namespace: str, name: str) -> str:
    """Base URL of a tier inside the cluster."""
    return f"http://{names.service(name)}.{namespace}.svc:{names.ENGINE_PORT}/v1"


def status_of(
    facts: TierFacts,
    spec: ModelTierSpec | None,
    record: Record | None,
    conditions: Sequence[Mapping[str, Any]],
    second: Second | None = None,
) -> dict[str, Any]:
    """The whole status of a tier; fields that are not known are left out."""
    name, deployment = facts.name, facts.deployment
    status: dict[str, Any] = {"observedGeneration": facts.generation, "conditions": [dict(item) for item in conditions]}
    if spec is None:
        return status
    if spec.external:
        ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
        status |= {"model": spec.external.model, "endpoint": spec.external.base_url, "ready": "yes" if ready else "no"}
        return status
    if spec.model:
        status["model"] = spec.model.source
    replicas = deployment.replicas if deployment else 0
    ready_replicas = deployment.ready_replicas if deployment else 0
    status |= {
        "ready": f"{ready_replicas}/{facts.wanted_replicas}",
        "replicas": replicas,
        "readyReplicas": ready_replicas,
        "selector": names.selector_string(name),
    }
    if record:
        if not record.routed or is_direct(spec):
            status["endpoint"] = endpoint_of(facts.namespace, name)
        status |= {
            "sizing": dict(record.sizing),
            "revisions": [_revision(name, record, deployment)],
        }
        if second and second.record:
            status["revisions"].append(_candidate(name, second, second.record))
        if facts.scaling and facts.scaling.status is not None:
            status["autoscaling"] = dict(facts.scaling.status)
        if spec.price:
            gpus = record.sizing["gpusPerReplica"] * replicas
            if second and second.record and second.facts.deployment:
                gpus += second.record.sizing["gpusPerReplica"] * second.facts.deployment.replicas
            per_hour = gpus * spec.price.gpu_hour_micros
            status["cost"] = {"perHourMicros": per_hour, "currency": spec.price.currency}
    return status


def _revision(
    name: str, record: Record, deployment: DeploymentView | None, revision: str = names.FIRST_REVISION
) -> dict[str, Any]:
    return {
        "name": revision,
        "workload": names.workload(name, revision),
        "image": record.image,
        "replicas": deployment.replicas if deployment else 0,
        "readyReplicas": deployment.ready_replicas if deployment else 0,
        "rollout": record.rollout.why,
    }


def _candidate(name: str, second: Second, record: Record) -> dict[str, Any]:
    revision = second.revision
    return {
        **_revision(name, record, second.facts.deployment, revision.name),
        "model": revision.spec.model.source if revision.spec.model else "",
        "maxModelLen": record.sizing["maxModelLen"],
        "weightPermille": revision.weight_permille,
    }
