"""Why a tier is not as wanted: an ordered list of named checks over what was gathered; the first finding wins.

A check looks at one thing and returns a `Cause` or nothing. `BEFORE` is asked always; `PODS` only while the pods are
not all ready, since a leftover of a past failure says nothing about a tier that serves. Nothing here reads or writes;
time comes in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from modeltiers.domain import conditions, pod_causes
from modeltiers.domain.conditions import REASONS
from modeltiers.domain.engine_messages import quote
from modeltiers.domain.facts import FAILING, WAITING, ApplyError, Cause, Check, Scene, Severity, told

# --- before any pod: the spec, the layout, the writes ---------------------------------------------------------------


def spec_is_invalid(scene: Scene) -> Cause | None:
    """The stored object is not one that this version understands."""
    fault = scene.facts.fault
    if fault is None:
        return None
    return Cause("InvalidSpec", _listed(fault) or "the stored object is not valid: apply a valid one", FAILING)


def spec_is_not_allowed(scene: Scene) -> Cause | None:
    """The spec asks for something that tiers, or tiers of this cluster, may not have."""
    refusals = scene.facts.refusals
    return Cause("NotAllowed", _listed(refusals), FAILING) if refusals else None


def job_is_not_there(scene: Scene) -> Cause | None:
    """The tier follows a DistillJob that may be applied a moment after it."""
    missing, arriving = scene.facts.job_missing, scene.facts.arriving
    if not missing:
        return None
    severity, until = (FAILING, None) if arriving is None else (WAITING, scene.now + arriving)
    return Cause("DistillJobNotFound", _listed(missing), severity, until)


def no_layout_fits(scene: Scene) -> Cause | None:
    """Sizing found no layout, or does not know the model."""
    if scene.facts.no_fit is None:
        return None
    reason, message = scene.facts.no_fit
    known = any(item.name == reason and item.condition in (conditions.SIZED, conditions.ACCEPTED) for item in REASONS)
    return Cause(reason if known else "FitsNoAccelerator", message, FAILING)


def write_failed(scene: Scene) -> Cause | None:
    """A child could not be written."""
    error = scene.facts.apply_error
    if error is None:
        return None
    where = f"{error.kind} {scene.facts.namespace}/{error.name}"
    if error.reason == "NameConflict":
        # The fault's own words say whose it is and what to do.
        what = (
            quote(error.message, 512)
            or "it belongs to somebody else; delete or rename it, or give the tier another name"
        )
        return Cause("NameConflict", f"{where}: the name is taken: {what}", FAILING)
    return refused_by_server(where, error.message, _word_of(error))


def pods_cannot_be_created(scene: Scene) -> Cause | None:
    """The Deployment was written, and its pods are refused."""
    deployment = scene.facts.deployment
    failure = deployment.condition("ReplicaFailure") if deployment else None
    if deployment is None or failure is None or failure.status != "True":
        return None
    return refused_by_server(
        f"pods of Deployment {scene.facts.namespace}/{deployment.name}", failure.message, "AdmissionDenied"
    )


def rollout_is_paused(scene: Scene) -> Cause | None:
    """Somebody paused the Deployment, and pods of the present spec are not made."""
    deployment = scene.facts.deployment
    if deployment is None or not deployment.paused or deployment.updated >= deployment.wanted:
        return None
    where = f"Deployment {scene.facts.namespace}/{deployment.name}"
    way_out = f"kubectl rollout resume deployment/{deployment.name} -n {scene.facts.namespace}"
    return Cause("RolloutPaused", f"{where} is paused: no pod of the present spec is made. {way_out}", WAITING)


def _listed(items: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{path}: {quote(message, 512)}" if path else quote(message, 512) for path, message in items[:3])
    return f"{shown}; and {len(items) - 3} more" if len(items) > 3 else shown


@dataclass(frozen=True, slots=True)
class _Refusal:
    """How the API server, or something in front of its storage, says no."""

    reason: str
    pattern: re.Pattern[str]
    what: str
    way_out: str
    severity: Severity = FAILING


_RBAC: Final = re.compile(r'cannot (?P<verb>[a-z]+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"')
_REFUSALS: Final = (
    _Refusal(
        "NamespaceTerminating",
        re.compile(r"because it is being terminated"),
        "the namespace is being deleted",
        "nothing new can be made in it; create the tier in another namespace",
    ),
    _Refusal(
        "QuotaExceeded",
        re.compile(r"(?:exceeded|failed) quota: |insufficient quota to match"),
        "a ResourceQuota of the namespace does not allow it",
        "raise the quota, free some of it, or lower spec.replicas",
    ),
    _Refusal(
        "LimitRangeViolated",
        re.compile(r"(?:maximum|minimum) \S+ usage per \w+ is |\S+ max limit to request ratio per \w+ is "),
        "a LimitRange of the namespace does not allow it",
        "set spec.serving.resources or spec.serving.router within it, or have the range changed",
    ),
    _Refusal(
        "PodSecurityViolation",
        re.compile(r"violates PodSecurity"),
        "the Pod Security level of the namespace does not allow it",
        "tiers run under the restricted level: look for what an engine profile adds, or label the namespace for"
        " another level",
    ),
    _Refusal(
        "PriorityClassNotFound",
        re.compile(r"no PriorityClass with name", re.IGNORECASE),
        "there is no such PriorityClass",
        "create it, or correct spec.scheduling.priorityClassName",
    ),
    _Refusal(
        "RuntimeClassNotFound",
        re.compile(r"RuntimeClass \"[^\"]*\" not found"),
        "there is no such RuntimeClass",
        "create it, or correct spec.scheduling.runtimeClassName",
    ),
    _Refusal(
        "ServiceAccountNotFound",
        re.compile(r"error looking up service account"),
        "its ServiceAccount is not there yet",
        "it is made again; if it keeps vanishing, find out who deletes it",
        WAITING,
    ),
    _Refusal(
        "WebhookUnavailable",
        re.compile(r"failed calling webhook"),
        "an admission webhook of the cluster does not answer",
        "repair the webhook's service, or remove its configuration",
        WAITING,
    ),
    _Refusal(
        "AdmissionDenied",
        re.compile(r"admission webhook \"[^\"]*\" denied|ValidatingAdmissionPolicy '[^']*'.{0,100} denied"),
        "a policy of the cluster refuses it",
        "change what the policy asks for in the tier or an engine profile, or have the policy's owner exempt it",
    ),
)
# For words that no pattern knows: what the fault's class says, or else the status code.
_BY_WORD: Final[Mapping[str, tuple[str, str, Severity]]] = {
    **{
        one.reason: (one.what, one.way_out, FAILING)
        for one in _REFUSALS
        if one.reason in ("NamespaceTerminating", "QuotaExceeded", "PodSecurityViolation", "AdmissionDenied")
    },
    "Forbidden": (
        "the operator may not write it",
        "grant its ServiceAccount that right: the chart's RBAC has it",
        FAILING,
    ),
    "Rejected": (
        "the API server does not accept it",
        "change the field that it names in the tier or its engine profile; if there is none, this is a bug: report it",
        FAILING,
    ),
    "Unauthorized": (
        "the operator's credentials are not accepted",
        "it is tried again; if it stays, restart the operator and check its ServiceAccount's token",
        WAITING,
    ),
    "ApiUnavailable": ("the API server did not take the write", "it is tried again; nothing needs to be done", WAITING),
}
_BY_CODE: Final = {400: "Rejected", 401: "Unauthorized", 403: "Forbidden", 413: "Rejected", 422: "Rejected"}


def _word_of(error: ApplyError) -> str:
    return error.reason if error.reason in _BY_WORD else _BY_CODE.get(error.code, "ApiUnavailable")


def refused_by_server(where: str, text: str, word: str, ways_out: Mapping[str, str] = MappingProxyType({})) -> Cause:
    """Why the API server, or something before its storage, said no with this text.

    `word` is the reason where no pattern knows the text; `ways_out` are others than a tier's, by reason.
    """
    said = quote(text)
    if denied := _RBAC.search(text):
        resource = f"{denied['resource']}.{denied['group']}" if denied["group"] else denied["resource"]
        who = f"the operator may not {denied['verb']} {resource}"
        way_out = f"grant its ServiceAccount `{denied['verb']}` on {resource}, as the chart's RBAC does"
        return Cause("Forbidden", told(where, who, said, way_out), FAILING)
    for known in _REFUSALS:
        if known.pattern.search(text):
            way_out = ways_out.get(known.reason, known.way_out)
            return Cause(known.reason, told(where, known.what, said, way_out), known.severity)
    what, way_out, severity = _BY_WORD[word]
    return Cause(word, told(where, what, said, ways_out.get(word, way_out)), severity)


SPEC: Final[tuple[Check, ...]] = (spec_is_invalid, spec_is_not_allowed, job_is_not_there)
BEFORE: Final[tuple[Check, ...]] = (*SPEC, no_layout_fits, write_failed)
PODS: Final[tuple[Check, ...]] = (rollout_is_paused, pods_cannot_be_created, *pod_causes.CHECKS)
