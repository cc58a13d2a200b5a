"""The spec of a tier as it is to be served: its own, or with the model that the DistillJob means which it follows."""

from __future__ import annotations

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.parse import Fault, parse_distill
from modeltiers.controllers.store import Store
from modeltiers.domain.distill.following import followed, job_of

FIELD = "spec.model.source"


class JobNotFound(Fault):
    """There is no DistillJob of the name that the tier follows."""


def served_spec(store: Store, namespace: str, spec: ModelTierSpec) -> ModelTierSpec | Fault:
    """What a tier should serve, or why that cannot be said."""
    name = job_of(spec)
    if name is None:
        return spec
    body = store.distill((namespace, name))
    if body is None:
        return JobNotFound(FIELD, f"there is no DistillJob {name} in this namespace: create it, or correct the name")
    job = parse_distill(body)
    if isinstance(job, Fault):
        return Fault(FIELD, f"DistillJob {name} is not valid, so that nothing is known of its model: {job.message}")
    return followed(spec, job.spec, body.get("status") or {})
