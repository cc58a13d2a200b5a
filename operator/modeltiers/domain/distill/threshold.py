"""The acceptance threshold of a route that follows a student: one pair with its weights, live and back together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modeltiers.api.routingpolicy import Accept, Confidence, RoutingPolicySpec
from modeltiers.domain.distill.following import TAKEN
from modeltiers.domain.policy_table import Fault

FIELD: Final = "spec.accept.confidence.thresholdFrom"
NOTHING: Final = 1000
"""Where calibration found no threshold that keeps its promise, no answer is accepted by itself."""
_AS_CALIBRATED: Final = ("quantile_permille", "top", "thinking")


def job_named(spec: RoutingPolicySpec) -> str | None:
    """The DistillJob whose threshold a policy wants."""
    confidence = spec.accept.confidence if spec.accept else None
    return confidence.threshold_from.distill_job if confidence and confidence.threshold_from else None


def with_threshold(spec: RoutingPolicySpec, status: Mapping[str, Any] | None) -> RoutingPolicySpec | Fault:
    """The spec with the threshold that counts now; `status` is the DistillJob's, None where there is no such job."""
    name = job_named(spec)
    if name is None:
        return spec
    assert spec.accept is not None, "it names the job"
    assert spec.accept.confidence is not None, "likewise"
    if status is None:
        return Fault("DistillJobNotFound", FIELD, f"there is no DistillJob {name}: create it, or remove the field")
    if (other := _differs(spec.accept, spec.accept.confidence)) is not None:
        said = f"the threshold of {name} was calibrated with the default of {other}: remove {other}, or thresholdFrom"
        return Fault("InvalidPolicy", FIELD, said)
    if (status.get("promotion") or {}).get("state") not in TAKEN:
        return spec
    found = (status.get("artifact") or {}).get("thresholdPermille")
    accept = spec.accept.model_copy(update={"threshold_permille": found if isinstance(found, int) else NOTHING})
    return spec.model_copy(update={"accept": accept})


def _differs(accept: Accept, confidence: Confidence) -> str | None:
    """The first setting that is not as it was when students are calibrated."""
    usual = Confidence()
    for field in _AS_CALIBRATED:
        if getattr(confidence, field) != getattr(usual, field):
            return {"quantile_permille": "quantilePermille"}.get(field, field)
    return "priorPermille" if accept.prior_permille != Accept().prior_permille else None
