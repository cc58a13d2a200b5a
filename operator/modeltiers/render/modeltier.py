"""The objects of a tier that this cluster serves: ServiceAccount, Deployment, Service, PodDisruptionBudget.

Only fields we own are rendered, in the spelling the API server keeps, so that a second pass finds nothing to write.
What is in the pod is `engine`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.settings import Settings
from modeltiers.domain.diff import sealed
from modeltiers.domain.record import Record, inputs_of
from modeltiers.domain.sizing import Plan
from modeltiers.domain.surge import Rollout
from modeltiers.render import network, parts
from modeltiers.render.engine import footprint_of, image_of, render_template
from modeltiers.render.owner import Owner
from modeltiers.render.parts import Manifest


def render_tier(
    owner: Owner,
    replicas: int,
    record: Record,
    tables: Mapping[str, str] | None = None,
    admitted: network.Admitted | None = None,
) -> list[Manifest]:
    """Everything that should exist for a tier, sealed, in the order it should be applied.

    `tables` are the routing tables that its routers read, by file name; `admitted` says who may connect to them, None
    that no NetworkPolicy is wanted.
    """
    name, selector = owner.name, names.selector(owner.name)
    target = names.SERVING_PORT_NAME if record.routed else names.ENGINE_PORT_NAME
    found = [
        parts.service_account(_metadata(owner, names.service_account(name))),
        parts.service(_metadata(owner, names.service(name)), selector, names.ENGINE_PORT, target),
    ]
    if record.routed and admitted is not None:
        found.append(network.before_routers(_metadata(owner, names.network_policy(name)), selector, admitted))
    if record.routed:
        found += [
            _pods_service(owner, names.FIRST_REVISION),
            parts.tables(_metadata(owner, names.table_config_map(name)), tables or {}),
        ]
    found.append(parts.disruption_budget(_metadata(owner, names.disruption_budget(name)), selector))
    return [sealed(manifest) for manifest in (*found, _deployment(owner, replicas, record, names.FIRST_REVISION))]


def render_candidate(owner: Owner, replicas: int, record: Record, revision: str) -> list[Manifest]:
    """What a second revision has of its own beside the tier's objects: a name for its routers, and its pods."""
    return [sealed(one) for one in (_pods_service(owner, revision), _deployment(owner, replicas, record, revision))]


def _pods_service(owner: Owner, revision: str) -> Manifest:
    metadata = _metadata(owner, names.pods_service(owner.name, revision))
    return parts.pods_service(metadata, names.selector(owner.name, revision))


def _metadata(owner: Owner, name: str, labels: Mapping[str, str] | None = None) -> Manifest:
    return parts.metadata(owner, name, {**names.tier_labels(owner.name), **(labels or {})})


def _deployment(owner: Owner, replicas: int, record: Record, revision: str) -> Manifest:
    metadata = _metadata(owner, names.workload(owner.name, revision), {names.LABEL_REVISION: revision})
    metadata["annotations"] = {names.ANNOTATION_RECORD: record.dump()}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            # The time a pod may take to become ready, and some for the image, before the rollout counts as stuck.
            "progressDeadlineSeconds": record.startup_seconds + 900,
            "selector": {"matchLabels": names.selector(owner.name, revision)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {
                    "maxSurge": record.rollout.max_surge,
                    "maxUnavailable": record.rollout.max_unavailable,
                },
            },
            "template": record.template,
        },
    }


def resolve(
    name: str,
    spec: ModelTierSpec,
    plan: Plan,
    sizing: Mapping[str, Any],
    rollout: Rollout,
    settings: Settings,
    revision: str = names.FIRST_REVISION,
) -> Record:
    """The record of a plan: what a revision of the tier will run until its spec changes."""
    return Record(
        inputs=inputs_of(spec),
        image=image_of(spec, settings),
        sizing=sizing,
        template=render_template(name, spec, plan, settings, revision),
        startup_seconds=footprint_of(spec, plan).startup_seconds,
        rollout=rollout,
    )
