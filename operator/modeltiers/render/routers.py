"""Routers that stand by themselves, before no engine: those of an external tier and those of a gateway.

Their pods hold no accelerator and nothing that is lost when they go: so, other than an engine's, they follow the
administrator's settings at once, one pod more first (docs/adr/0009).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modeltiers import names
from modeltiers.api.settings import Settings
from modeltiers.render import parts, sidecar
from modeltiers.render.owner import Owner
from modeltiers.render.parts import Manifest

USER: Final = 65532
"""A user id that no image needs to know; files of Secrets are its group's."""
DRAIN_SECONDS: Final = 120
EXIT_SECONDS: Final = 15
READABLE: Final = 0o440


@dataclass(frozen=True, slots=True)
class Fleet:
    """Routers of one kind: whose they are, and how they are named, labelled and found."""

    owner: Owner
    name: str
    labels: Mapping[str, str]
    """Of the objects."""
    selector: Mapping[str, str]
    """Labels that the pods have besides, and are found by."""

    def metadata(self, name: str | None = None) -> Manifest:
        """The metadata of one object, of the fleet's own name if it has no other."""
        return parts.metadata(self.owner, name or self.name, self.labels)


def deployment(fleet: Fleet, pod: Manifest, replicas: int | None = None) -> Manifest:
    """The Deployment; without `replicas` an autoscaler says how many."""
    wanted = {} if replicas is None else {"replicas": replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": fleet.metadata(),
        "spec": {
            **wanted,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": dict(fleet.selector)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {**fleet.labels, **fleet.selector}}, "spec": pod},
        },
    }


def pod(fleet: Fleet, container: Manifest, settings: Settings, more: Sequence[Manifest] = ()) -> Manifest:
    """The pod of one router, which reads the tables of its fleet; `more` are further volumes."""
    found: dict[str, Any] = {
        "serviceAccountName": fleet.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS + EXIT_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # On nodes of their own where there are enough: one node less shall not take them all.
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(fleet.selector)},
            }
        ],
        "containers": [
            {
                **container,
                "readinessProbe": sidecar.probe("/readyz", period=5, failures=2),
                "lifecycle": {"preStop": sidecar.drain(DRAIN_SECONDS)},
            }
        ],
        "volumes": [*sidecar.volumes(fleet.name), *more],
    }
    if settings.engine.pull_secrets:
        found["imagePullSecrets"] = [{"name": secret} for secret in settings.engine.pull_secrets]
    return found


def outwards() -> list[Manifest]:
    """Egress rules that routers without an engine need: names, and the serving ports of the namespace's routers.

    Names are asked wherever the node says: of the cluster's pods (5353 on OpenShift), or of a cache on the node's link.
    """
    lookups = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    ours = {"podSelector": {"matchLabels": {names.LABEL_MANAGED_BY: names.FIELD_MANAGER}}}
    return [{"ports": lookups}, {"to": [ours], "ports": [{"port": names.SERVING_PORT, "protocol": "TCP"}]}]
