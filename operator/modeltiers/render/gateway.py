"""The objects of a policy with `placement: Gateway`: routers of its own, scaled by their load, before all its tiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modeltiers import names
from modeltiers.api.routingpolicy import Gateway
from modeltiers.api.settings import Settings
from modeltiers.domain.diff import sealed
from modeltiers.render import network, parts, routers, sidecar
from modeltiers.render.network import Admitted
from modeltiers.render.owner import Owner
from modeltiers.render.parts import Manifest

COMPONENT: Final = "gateway"


def render_gateway(
    owner: Owner, gateway: Gateway, settings: Settings, tables: Mapping[str, str], admitted: Admitted | None
) -> list[Manifest]:
    """Everything that a policy's gateway consists of but its Service, sealed, in the order it should be applied."""
    fleet = fleet_of(owner)
    found = [
        parts.service_account(fleet.metadata()),
        parts.tables(fleet.metadata(names.table_config_map(fleet.name)), tables),
        parts.disruption_budget(fleet.metadata(), fleet.selector),
    ]
    if admitted is not None:
        found.append(_network_policy(fleet, admitted))
    roomy = settings.router.model_copy(update={"cpu": settings.router.gateway_cpu})
    pod = routers.pod(fleet, sidecar.router(roomy), settings)
    found += [routers.deployment(fleet, pod), _autoscaler(fleet, gateway)]
    return [sealed(manifest) for manifest in found]


def fleet_of(owner: Owner) -> routers.Fleet:
    """The routers of a gateway."""
    return routers.Fleet(owner, names.gateway(owner.name), names.policy_labels(owner.name), selector(owner.name))


def selector(policy: str) -> dict[str, str]:
    """Labels by which the pods of a policy's gateway are found."""
    return {names.LABEL_POLICY: policy, names.LABEL_COMPONENT: COMPONENT}


def _network_policy(fleet: routers.Fleet, admitted: Admitted) -> Manifest:
    found = network.before_routers(fleet.metadata(), fleet.selector, admitted)
    found["spec"]["policyTypes"] = ["Ingress", "Egress"]
    found["spec"]["egress"] = routers.outwards()
    return found


def _autoscaler(fleet: routers.Fleet, gateway: Gateway) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": gateway.cpu_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": fleet.metadata(),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": fleet.name},
            "minReplicas": gateway.min_replicas,
            "maxReplicas": gateway.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }
