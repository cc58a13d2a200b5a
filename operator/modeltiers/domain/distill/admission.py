"""What of a DistillJob's spec cannot be done here, and the tiers that it asks: found, admitting, serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain import conditions
from modeltiers.domain.distill.plan import Target
from modeltiers.domain.distill.verdict import Hindrance
from modeltiers.domain.engine_args import Refusal
from modeltiers.domain.hosts import allowed, endpoint_of
from modeltiers.domain.modeltier import endpoint_of as tier_endpoint
from modeltiers.domain.modeltier import is_direct
from modeltiers.domain.policy_table import TierView

KEY_FILE: Final = "/etc/modeltiers/teacher/key"
"""Where a stage finds the key to ask the teacher with."""


def refusals(spec: DistillJobSpec, settings: Settings) -> list[Refusal]:
    """Everything in a well-formed spec that the operator will not act on."""
    found: list[Refusal] = []
    if settings.distill.image is None:
        found.append(Refusal("spec", "DistillJobs do not run here: have an administrator set distill.image"))
    image = spec.scheduling.image if spec.scheduling else None
    if image and not any(image.startswith(prefix) for prefix in settings.allowed_images):
        way_out = "remove it, or ask an administrator to add its prefix to allowedImages in the settings"
        found.append(Refusal("spec.scheduling.image", f"{image} is not an image that may be chosen: {way_out}"))
    if spec.teacher.endpoint:
        endpoint = endpoint_of(spec.teacher.endpoint.base_url)
        if endpoint is None or allowed(endpoint.host, settings.external_hosts) is None:
            way_out = "ask an administrator to add the host to externalHosts in the settings"
            found.append(Refusal("spec.teacher.endpoint.baseUrl", f"its host is not allowed here: {way_out}"))
    budget = spec.budget
    if budget and budget.cost_micros and spec.teacher.endpoint and spec.teacher.endpoint.price is None:
        said = "a budget in money needs a price: add it, or use budget.teacherTokens"
        found.append(Refusal("spec.teacher.endpoint.price", said))
    return found


def target_of(
    spec: DistillJobSpec, tier: tuple[ModelTierSpec, Mapping[str, Any]] | None, namespace: str, settings: Settings
) -> Target | Hindrance:
    """Where the teacher is asked; `tier` is the spec and status of the ModelTier that the spec names, if there is one.

    A key is a file that `render` mounts.
    """
    key = KEY_FILE if spec.teacher.key_ref else None
    endpoint = spec.teacher.endpoint
    if endpoint:
        return Target(
            base_url=endpoint.base_url, model=endpoint.model, key_file=key, price=endpoint.price, external=True
        )
    assert spec.teacher.tier_ref is not None, "the schema wants one of them"
    name = spec.teacher.tier_ref.name
    if tier is None:
        return Hindrance(
            "TierNotFound", f"there is no ModelTier {name} (spec.teacher.tierRef): create it", passes=False
        )
    wanted, status = tier
    view = TierView.of(name, wanted, status)
    if settings.router.image and not is_direct(wanted):
        way_out = "set its spec.access.mode to Open, or to Keys and name a key in spec.teacher.keyRef"
        return Hindrance("TierNotAdmitting", f"ModelTier {name} answers policies only: {way_out}", passes=False)
    if wanted.external and not spec.teacher.terms_acknowledged and view.outside:
        way_out = (
            "read its terms on training with answers, and set teacher.termsAcknowledged: true in another DistillJob"
        )
        return Hindrance("TermsNotAcknowledged", f"ModelTier {name} is somebody else's model: {way_out}", passes=False)
    if (wait := not_serving(name, status)) is not None:
        return wait
    price = wanted.external.price if wanted.external else None
    return Target(
        base_url=tier_endpoint(namespace, name), model=view.model, key_file=key, price=price, external=view.outside
    )


def not_serving(name: str, status: Mapping[str, Any]) -> Hindrance | None:
    """Why a tier cannot be asked yet; None when it serves."""
    ready = conditions.by_type(status.get("conditions") or []).get(conditions.READY, {})
    if ready.get("status") == "True":
        return None
    said = ready.get("message") or "it was not looked at yet"
    return Hindrance("TierNotReady", f"ModelTier {name} does not serve: {said}", passes=True)
