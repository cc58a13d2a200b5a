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
from modeltiers.render import network
from modeltiers.render.engine import footprint_of, image_of, render_template
from modeltiers.render.owner import Owner

Manifest = dict[str, Any]


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
    found = [_service_account(owner), _service(owner, routed=record.routed)]
    if record.routed and admitted is not None:
        metadata = _metadata(owner, names.network_policy(owner.name))
        found.append(network.before_routers(metadata, names.selector(owner.name), admitted))
    if record.routed:
        found += [_pods_service(owner), _tables(owner, tables or {})]
    return [sealed(manifest) for manifest in (*found, _disruption_budget(owner), _deployment(owner, replicas, record))]


def _metadata(owner: Owner, name: str, labels: Mapping[str, str] | None = None) -> Manifest:
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": {**names.tier_labels(owner.name), **(labels or {})},
        "ownerReferences": [owner.reference()],
    }


def _service_account(owner: Owner) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(owner, names.service_account(owner.name)),
        "automountServiceAccountToken": False,
    }


def _service(owner: Owner, *, routed: bool) -> Manifest:
    target = names.SERVING_PORT_NAME if routed else names.ENGINE_PORT_NAME
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(owner, names.service(owner.name)),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(owner.name),
            "ports": [
                {
                    "name": names.ENGINE_PORT_NAME,
                    "port": names.ENGINE_PORT,
                    "targetPort": target,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }


def _pods_service(owner: Owner) -> Manifest:
    """A name for all of the tier's routers: routers choose among the addresses by themselves."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(owner, names.pods_service(owner.name)),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": names.selector(owner.name),
            "ports": [
                {
                    "name": names.SERVING_PORT_NAME,
                    "port": names.SERVING_PORT,
                    "targetPort": names.SERVING_PORT_NAME,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }


def _tables(owner: Owner, tables: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(owner, names.table_config_map(owner.name)),
        # Left out when empty: the API server keeps no empty map, and a second pass must find nothing to write.
        **({"data": dict(tables)} if tables else {}),
    }


def _disruption_budget(owner: Owner) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(owner, names.disruption_budget(owner.name)),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(owner.name)},
            # A pod that never became ready must not block a node's drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _deployment(owner: Owner, replicas: int, record: Record) -> Manifest:
    metadata = _metadata(owner, names.workload(owner.name), {names.LABEL_REVISION: names.FIRST_REVISION})
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
            "selector": {"matchLabels": names.selector(owner.name, names.FIRST_REVISION)},
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
    name: str, spec: ModelTierSpec, plan: Plan, sizing: Mapping[str, Any], rollout: Rollout, settings: Settings
) -> Record:
    """The record of a plan: what the tier will run until its spec changes."""
    return Record(
        inputs=inputs_of(spec),
        image=image_of(spec, settings),
        sizing=sizing,
        template=render_template(name, spec, plan, settings),
        startup_seconds=footprint_of(spec, plan).startup_seconds,
        rollout=rollout,
    )
