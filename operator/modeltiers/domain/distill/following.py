"""What a ModelTier with `model.source: distill://NAME` serves: which model that means is the status of the DistillJob.

Until the student is promoted the tier serves the incumbent; while it is tried, both; then the student. A user's spec is
never changed for it, so Git and cluster have nothing to fight about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.model import ModelSource, Weights
from modeltiers.api.modeltier import Candidate, ModelTierSpec

SCHEME: Final = "distill://"
TRIED: Final = frozenset({"Canary", "Settling"})
TAKEN: Final = frozenset({"Settling", "Live"})


PACKAGE: Final = re.compile(r"pvc://[^/]+/stages/Package/[0-9a-f]+/model")


def is_package(weights: Weights) -> bool:
    """Whether weights are a student's package, which has a signature beside it where one was made."""
    return PACKAGE.fullmatch(weights.source) is not None


def job_of(spec: ModelTierSpec) -> str | None:
    """The DistillJob that a tier follows; None when it names its model itself."""
    if spec.model is None or not spec.model.source.startswith(SCHEME):
        return None
    return spec.model.source.removeprefix(SCHEME)


def incumbent_of(job: DistillJobSpec) -> Weights:
    """What a tier serves until the student is promoted, and after a rollback."""
    return (job.promotion and job.promotion.incumbent) or job.student.base


def student_of(job: DistillJobSpec, source: str) -> Weights:
    """The student's weights, which are where its package is."""
    like = job.student.trained or job.student.base
    return like.model_copy(update={"source": source, "revision": None, "token_secret_ref": None})


def followed(spec: ModelTierSpec, job: DistillJobSpec, status: Mapping[str, Any]) -> ModelTierSpec:
    """The spec of a tier with the models that its DistillJob means."""
    promotion, source = status.get("promotion") or {}, (status.get("artifact") or {}).get("source")
    state = promotion.get("state") if source else None
    incumbent = incumbent_of(job)
    student = student_of(job, source) if source else incumbent
    changes: dict[str, Any] = {"model": _as_served(spec, student if state in TAKEN else incumbent)}
    replaces = job.promotion is not None and job.promotion.strategy == "Replace"
    if state in TRIED and not replaces:
        weight = 1000 if state == "Settling" else int(promotion.get("weightPermille", 0))
        tried = student.model_copy(update=_own(spec))
        changes["candidate"] = Candidate(model=tried, replicas=max(1, spec.replicas), weight_permille=weight)
    return spec.model_copy(update=changes)


def _as_served(spec: ModelTierSpec, weights: Weights) -> ModelSource:
    assert spec.model is not None, "an external tier follows nobody"
    return ModelSource(**{**dict(weights), **_own(spec)}, served_name=spec.model.served_name)


def _own(spec: ModelTierSpec) -> dict[str, Any]:
    """What a tier says of how its model is loaded, whichever that is."""
    model = spec.model
    assert model is not None, "an external tier follows nobody"
    own: dict[str, Any] = {"quantization": model.quantization, "kv_cache_dtype": model.kv_cache_dtype}
    return own if model.max_model_len is None else {**own, "max_model_len": model.max_model_len}
