"""The objects of a tier that is an external API: routers that alone hold its key and alone may call it.

Other routers reach them as they reach every tier: by the name of its pods, with a signed hop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from modeltiers import names
from modeltiers.api.fields import SecretKeyRef
from modeltiers.api.modeltier import External
from modeltiers.api.settings import ExternalHost, Settings
from modeltiers.domain.diff import sealed
from modeltiers.domain.hosts import Endpoint, is_address, namespace_of
from modeltiers.render import network, parts, routers, sidecar
from modeltiers.render.network import Admitted
from modeltiers.render.owner import Owner
from modeltiers.render.parts import Manifest

COMPONENT: Final = "egress"
API_KEY: Final = "/etc/modeltiers/api-key"
_METADATA: Final = ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32")
"""Where clouds answer with credentials, and what else is on the node's own link."""
_PRIVATE: Final = (
    *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    *("169.254.0.0/16", "168.63.129.16/32"),
)
_PUBLIC6: Final = "2000::/3"
_PRIVATE6: Final = "fc00::/7"
_METADATA6: Final = ("fd00:ec2::254/128", "fd20:ce::254/128")


def render_egress(
    owner: Owner,
    external: External,
    endpoint: Endpoint,
    host: ExternalHost,
    settings: Settings,
    tables: Mapping[str, str],
    admitted: Admitted | None,
) -> list[Manifest]:
    """Everything that should exist for an external tier, sealed, in the order it should be applied.

    `host` is the administrator's entry that allows the host of its `endpoint`; `admitted` says who may connect, None
    that no NetworkPolicy is wanted.
    """
    fleet = fleet_of(owner)
    pods = names.selector(owner.name)
    found = [
        parts.service_account(fleet.metadata()),
        parts.service(fleet.metadata(), pods, names.ENGINE_PORT, names.SERVING_PORT_NAME),
        parts.pods_service(fleet.metadata(names.pods_service(owner.name)), pods),
        parts.tables(fleet.metadata(names.table_config_map(owner.name)), tables),
        parts.disruption_budget(fleet.metadata(), fleet.selector),
    ]
    if admitted is not None:
        found.append(_network_policy(fleet, endpoint, host, admitted))
    pod = routers.pod(fleet, _container(owner.name, external, host, settings), settings, _key(external))
    found.append(routers.deployment(fleet, pod, settings.router.egress_replicas))
    return [sealed(manifest) for manifest in found]


def fleet_of(owner: Owner) -> routers.Fleet:
    """The routers of an external tier."""
    selector = {**names.selector(owner.name), names.LABEL_COMPONENT: COMPONENT}
    return routers.Fleet(owner, owner.name, names.tier_labels(owner.name), selector)


# --- the pod ----------------------------------------------------------------------------------------------------------


def _container(tier: str, external: External, host: ExternalHost, settings: Settings) -> Manifest:
    behind = [f"--external={tier}={external.base_url}", f"--external-model={external.model}"]
    if external.api_key_secret_ref is not None:
        behind.append(f"--external-key={API_KEY}/key")
    if host.private:
        behind.append("--external-private")
    found = sidecar.router(settings.router, *behind)
    if external.api_key_secret_ref is not None:
        found["volumeMounts"].append({"name": "api-key", "mountPath": API_KEY, "readOnly": True})
    return found


def _key(external: External) -> list[Manifest]:
    """The volume with the API's key. Optional: the router says what is missing, and a pod that hangs does not."""
    ref: SecretKeyRef | None = external.api_key_secret_ref
    if ref is None:
        return []
    secret = {
        "secretName": ref.name,
        "optional": True,
        "defaultMode": routers.READABLE,
        "items": [{"key": ref.key, "path": "key"}],
    }
    return [{"name": "api-key", "secret": secret}]


# --- who may call it, and whom it may call ----------------------------------------------------------------------------


def _network_policy(fleet: routers.Fleet, endpoint: Endpoint, host: ExternalHost, admitted: Admitted) -> Manifest:
    # Clients, too, since a policy's requests enter here while no engine of its ladder is ready.
    found = network.before_routers(fleet.metadata(), fleet.selector, admitted)
    found["spec"]["policyTypes"] = ["Ingress", "Egress"]
    found["spec"]["egress"] = [*routers.outwards(), _to_api(endpoint, host)]
    return found


def _to_api(endpoint: Endpoint, host: ExternalHost) -> Manifest:
    """The rule for the API itself. The router judges each address again, by the name that it resolved."""
    port = [{"port": endpoint.port, "protocol": "TCP"}]
    if host.cidrs:
        return {"to": _blocks(*host.cidrs), "ports": port}
    if is_address(endpoint.host):
        return {"to": _blocks(f"{endpoint.host}/32"), "ports": port}
    if not host.private:
        return {"to": [*_blocks("0.0.0.0/0", without=_PRIVATE), *_blocks(_PUBLIC6)], "ports": port}
    namespace = namespace_of(endpoint.host)
    if namespace is not None:
        # No port: that of a Service is not the one that its pods listen on.
        return {"to": [{"namespaceSelector": {"matchLabels": {network.NAMESPACE_NAME: namespace}}}]}
    somewhere = _blocks("0.0.0.0/0", without=_METADATA) + _blocks(_PUBLIC6) + _blocks(_PRIVATE6, without=_METADATA6)
    return {"to": somewhere, "ports": port}


def _blocks(*cidrs: str, without: Sequence[str] = ()) -> list[Manifest]:
    # Left out when empty: the API server keeps no empty list.
    hole = {"except": list(without)} if without else {}
    return [{"ipBlock": {"cidr": one, **hole}} for one in cidrs]
