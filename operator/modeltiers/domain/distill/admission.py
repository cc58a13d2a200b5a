"""What of a DistillJob's spec cannot be done here, and the tiers that it asks: found, admitting, serving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.distilljob_asked import Endpoint, Judge, Teacher
from modeltiers.api.settings import Settings
from modeltiers.domain import conditions
from modeltiers.domain.claims import ClaimView
from modeltiers.domain.distill.following import job_of
from modeltiers.domain.distill.payback import Estimate, Tier
from modeltiers.domain.distill.plan import Target
from modeltiers.domain.distill.stages import ASKS_TEACHER, Stage, asks_judge
from modeltiers.domain.distill.verdict import Hindrance
from modeltiers.domain.engine_args import Refusal
from modeltiers.domain.hosts import allowed, endpoint_of
from modeltiers.domain.modeltier import endpoint_of as tier_endpoint
from modeltiers.domain.modeltier import is_direct
from modeltiers.domain.policy_table import TierView
from modeltiers.domain.scaling import most_pods

KEY_FILE: Final = "/etc/modeltiers/teacher/key"
"""Where a stage finds the key to ask the teacher with."""
JUDGE_KEY_FILE: Final = "/etc/modeltiers/judge/key"
"""The same for the judge."""


def refusals(spec: DistillJobSpec, settings: Settings) -> list[Refusal]:
    """Everything in a well-formed spec that the operator will not act on."""
    found: list[Refusal] = []
    if settings.distill.image is None:
        found.append(Refusal("spec", "DistillJobs do not run here: have an administrator set distill.image"))
    hook = spec.data.scrub.hook if spec.data.scrub else None
    if hook and hook not in settings.distill.scrubbers:
        known = ", ".join(sorted(settings.distill.scrubbers)) or "none"
        said = f"the settings have no scrubber {hook} ({known}): name one of theirs, or have an administrator add it"
        found.append(Refusal("spec.data.scrub.hook", said))
    image = spec.scheduling.image if spec.scheduling else None
    if image and not any(image.startswith(prefix) for prefix in settings.allowed_images):
        way_out = "remove it, or ask an administrator to add its prefix to allowedImages in the settings"
        found.append(Refusal("spec.scheduling.image", f"{image} is not an image that may be chosen: {way_out}"))
    for field, named in (("teacher", spec.teacher), ("judge", spec.judge)):
        if named is not None and named.endpoint is not None:
            found += _of_endpoint(f"spec.{field}.endpoint", named.endpoint, spec, settings)
    return found


def _of_endpoint(path: str, endpoint: Endpoint, spec: DistillJobSpec, settings: Settings) -> Iterator[Refusal]:
    host = endpoint_of(endpoint.base_url)
    if host is None or allowed(host.host, settings.external_hosts) is None:
        way_out = "ask an administrator to add the host to externalHosts in the settings"
        yield Refusal(f"{path}.baseUrl", f"its host is not allowed here: {way_out}")
    if spec.budget and spec.budget.cost_micros and endpoint.price is None:
        said = "a budget in money needs a price: add it, or use budget.teacherTokens"
        yield Refusal(f"{path}.price", said)


@dataclass(frozen=True, slots=True)
class Around:
    """What a job's spec names, as far as it is there."""

    teacher: Tier | None = None
    evaluation: Tier | None = None
    promotion: Tier | None = None
    claim: ClaimView | None = None
    claim_missing: bool = False
    judge: Tier | None = None


def hindrance(job: str, spec: DistillJobSpec, around: Around) -> Hindrance | None:
    """What stands in a job's way from its first stage on; better said before anything is spent than at its end."""
    return (
        _without_claim(spec, around)
        or _in_no_tier(spec, around)
        or _learns_from_itself(job, around)
        or _alone_on_claim(spec, around)
    )


def arrives(found: Hindrance | None, arriving: timedelta | None) -> Hindrance | None:
    """The same, as one that passes while the claim may still be on its way; `arriving` as in `arrival.left`."""
    if found is None or arriving is None or found.reason != "VolumeClaimNotFound":
        return found
    return replace(found, passes=True, wait=arriving.total_seconds())


def _without_claim(spec: DistillJobSpec, around: Around) -> Hindrance | None:
    if not around.claim_missing:
        return None
    said = f"there is no PersistentVolumeClaim {spec.store.claim_name} (spec.store.claimName): create it"
    return Hindrance("VolumeClaimNotFound", said, passes=False)


def _in_no_tier(spec: DistillJobSpec, around: Around) -> Hindrance | None:
    asked = (
        ("promotion", spec.promotion and spec.promotion.tier_ref, around.promotion, "name one of this cluster"),
        ("evaluation", spec.evaluation and spec.evaluation.tier_ref, around.evaluation, "name one in another job"),
    )
    for field, ref, tier, way_out in asked:
        if ref and tier and tier[0].external:
            said = f"ModelTier {ref.name} (spec.{field}.tierRef) is an external API, which serves no student: {way_out}"
            return Hindrance("TierIsExternal", said, passes=False)
    return None


def _learns_from_itself(job: str, around: Around) -> Hindrance | None:
    for who, tier in (("teacher", around.teacher), ("judge", around.judge)):
        if tier is not None and job_of(tier[0]) == job:
            said = f"the {who}'s tier follows this very job: set its spec.model.source to the {who}'s own weights"
            return Hindrance(f"{who.capitalize()}IsStudent", said, passes=False)
    return None


def _alone_on_claim(spec: DistillJobSpec, around: Around) -> Hindrance | None:
    """Stages, the incumbent's pods and the student's mount the claim at once, on whichever nodes they are."""
    claim, promotion = around.claim, spec.promotion
    if claim is None or "ReadWriteMany" in claim.access_modes or promotion is None or promotion.tier_ref is None:
        return None
    pods = most_pods(around.promotion[0])[1] if around.promotion else 1
    if promotion.strategy == "Replace" and pods <= 1:
        return None
    needs = "its canary runs both models at once" if promotion.strategy == "Canary" else f"the tier has {pods} replicas"
    said = (
        f"PersistentVolumeClaim {spec.store.claim_name} (spec.store.claimName) is {', '.join(claim.access_modes)}, and"
        f" {needs}: use a ReadWriteMany claim in another DistillJob, or one replica with promotion.strategy Replace"
    )
    return Hindrance("VolumeClaimNotShared", said, passes=False)


def too_long(spec: DistillJobSpec, found: Estimate) -> Hindrance | None:
    """Why training must not begin: it would not pay back in the time that the budget allows, as far as is known."""
    most = spec.budget.max_payback_days if spec.budget else None
    if most is None or found.within(most):
        return None
    if not found.known:
        said = f"payback is {found.how}; or remove budget.maxPaybackDays"
        return Hindrance("PaybackUnknown", said, passes=False)
    said = f"payback takes longer than the {most} days of budget.maxPaybackDays: {found.how}. Raise it to train anyway"
    return Hindrance("PaybackTooLong", said, passes=False)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a model is asked, as far as that is known, and why it cannot be asked yet."""

    target: Target | None = None
    hindrance: Hindrance | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """Teacher or judge, as the spec names it."""

    field: str
    named: Teacher | Judge
    key_file: str
    teaches: bool
    """Whether the student learns from what it says, which an external one's terms may forbid."""


def teacher_of(spec: DistillJobSpec, tier: Tier | None, namespace: str, settings: Settings) -> Reach:
    """Where the teacher is asked; `tier` is the spec and status of the ModelTier that the spec names, if there is one.

    A key is a file that `render` mounts.
    """
    return _reach(_Asked("teacher", spec.teacher, KEY_FILE, teaches=True), tier, namespace, settings)


def judge_of(spec: DistillJobSpec, tier: Tier | None, namespace: str, settings: Settings) -> Reach:
    """The same for the judge; nothing where there is none."""
    judge = spec.judge
    if judge is None:
        return Reach()
    # Scores alone teach nothing; where they choose training rows, they do.
    teaches = judge.min_score_permille is not None
    return _reach(_Asked("judge", judge, JUDGE_KEY_FILE, teaches), tier, namespace, settings)


def _reach(asked: _Asked, tier: Tier | None, namespace: str, settings: Settings) -> Reach:
    key = asked.key_file if asked.named.key_ref else None
    if (endpoint := asked.named.endpoint) is not None:
        return Reach(
            Target(base_url=endpoint.base_url, model=endpoint.model, key_file=key, price=endpoint.price, external=True)
        )
    assert asked.named.tier_ref is not None, "the schema wants one of them"
    name = asked.named.tier_ref.name
    if tier is None:
        said = f"there is no ModelTier {name} (spec.{asked.field}.tierRef): create it"
        return Reach(hindrance=Hindrance("TierNotFound", said, passes=False))
    wanted, status = tier
    view = TierView.of(name, wanted, status)
    price = wanted.external.price if wanted.external else None
    target = Target(
        base_url=tier_endpoint(namespace, name), model=view.model, key_file=key, price=price, external=view.outside
    )
    return Reach(target, _withheld(asked, name, tier, settings, outside=view.outside))


def _withheld(asked: _Asked, name: str, tier: Tier, settings: Settings, *, outside: bool) -> Hindrance | None:
    """Why a tier that is there cannot be asked, or must not be."""
    wanted, status = tier
    if settings.router.image and not is_direct(wanted):
        way_out = f"set its spec.access.mode to Open, or to Keys and name a key in spec.{asked.field}.keyRef"
        return Hindrance("TierNotAdmitting", f"ModelTier {name} answers policies only: {way_out}", passes=False)
    if wanted.external and asked.teaches and not asked.named.terms_acknowledged and outside:
        way_out = (
            f"read its terms on training with answers, and set {asked.field}.termsAcknowledged: true in another"
            " DistillJob"
        )
        return Hindrance("TermsNotAcknowledged", f"ModelTier {name} is somebody else's model: {way_out}", passes=False)
    return not_serving(name, status)


def not_asked(stage: Stage, spec: DistillJobSpec, teacher: Reach, judge: Reach) -> Hindrance | None:
    """Why a stage that asks one of them cannot: it is not ready, or the other, who shares its budget, is unknown."""
    asks = ((stage in ASKS_TEACHER, teacher), (asks_judge(stage, spec), judge))
    if not any(asked for asked, _ in asks):
        return None
    stops = (one.hindrance for asked, one in asks if asked or one.target is None)
    return next((one for one in stops if one is not None), None)


def not_serving(name: str, status: Mapping[str, Any]) -> Hindrance | None:
    """Why a tier cannot be asked yet; None when it serves."""
    ready = conditions.by_type(status.get("conditions") or []).get(conditions.READY, {})
    if ready.get("status") == "True":
        return None
    said = ready.get("message") or "it was not looked at yet"
    return Hindrance("TierNotReady", f"ModelTier {name} does not serve: {said}", passes=True)
