"""The operator's own Deployment, and what belongs to it, for administrators who apply manifests.

The Helm chart renders the same with its defaults, as a test sees. Images are placeholders: nobody publishes any yet, so
whoever builds them names them. Nothing here is the operator's to apply; it never writes to itself.
"""

from __future__ import annotations

from typing import Any, Final

from modeltiers import names
from modeltiers.api.values import OperatorNetwork
from modeltiers.render import parts
from modeltiers.render.sidecar import HARDENED

Manifest = dict[str, Any]

IMAGE: Final = "localhost/modeltiers/operator:dev"
ROUTER_IMAGE: Final = "localhost/modeltiers/router:dev"
SETTINGS: Final = "/etc/modeltiers"
SETTINGS_FILE: Final = "settings.yaml"
PORT: Final = 8080
PORT_NAME: Final = "metrics"

LABELS: Final = {names.LABEL_NAME: names.OPERATOR_NAME, names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
SELECTOR: Final = {names.LABEL_NAME: names.OPERATOR_NAME}


def render_operator(settings: str, namespace: str = names.OPERATOR_NAMESPACE) -> list[Manifest]:
    """The ConfigMap with the text of the settings file, the Deployment that reads it when it starts, and what is around
    that: Service, PodDisruptionBudget, NetworkPolicy.
    """
    metadata = _metadata(names.OPERATOR_NAME, namespace)
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(names.OPERATOR_SETTINGS, namespace),
            "data": {SETTINGS_FILE: settings},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                # The second takes over within 15 s of a crash of the first.
                "replicas": 2,
                "selector": {"matchLabels": SELECTOR},
                "template": {"metadata": {"labels": LABELS}, "spec": _pod()},
            },
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": _service()},
        parts.disruption_budget(metadata, SELECTOR),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": {
                "podSelector": {"matchLabels": SELECTOR},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [_from_test()],
                "egress": _outwards(),
            },
        },
    ]


def _metadata(name: str, namespace: str) -> Manifest:
    return {"name": name, "namespace": namespace, "labels": LABELS}


def _pod() -> Manifest:
    return {
        "serviceAccountName": names.OPERATOR_NAME,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        # On nodes of their own where there are enough; those of an older template do not count.
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": SELECTOR},
                "matchLabelKeys": ["pod-template-hash"],
            }
        ],
        "containers": [_container()],
        "volumes": [{"name": "settings", "configMap": {"name": names.OPERATOR_SETTINGS}}],
    }


def _container() -> Manifest:
    return {
        "name": "operator",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "MODELTIERS_SETTINGS", "value": f"{SETTINGS}/{SETTINGS_FILE}"},
            _of_pod("MODELTIERS_NAMESPACE", "metadata.namespace"),
            _of_pod("MODELTIERS_IDENTITY", "metadata.name"),
            _of_pod("MODELTIERS_HOST", "status.podIP"),
            {"name": "MODELTIERS_PORT", "value": str(PORT)},
        ],
        "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
        # Reads everything once at the start; a thousand tiers take 200 MiB.
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "readinessProbe": _probe("/readyz", period=5),
        "livenessProbe": _probe("/healthz", period=10),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(HARDENED),
        "volumeMounts": [{"name": "settings", "mountPath": SETTINGS, "readOnly": True}],
    }


def _of_pod(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, period: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": PORT_NAME, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


def _service() -> Manifest:
    """Before all replicas: also what is not ready says why, and is scraped."""
    port = {"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME, "protocol": "TCP"}
    return {"type": "ClusterIP", "publishNotReadyAddresses": True, "selector": SELECTOR, "ports": [port]}


def _from_test() -> Manifest:
    """Who may ask for health and metrics, beside the kubelet: the pod of `helm test`."""
    test = {"podSelector": {"matchLabels": {names.LABEL_NAME: f"{names.OPERATOR_NAME}-test"}}}
    return {"ports": [{"port": PORT, "protocol": "TCP"}], "from": [test]}


def _outwards() -> list[Manifest]:
    """Names; the API server, which no selector finds; and what routers and stages say of themselves."""
    lookups = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    servers = [{"port": port, "protocol": "TCP"} for port in OperatorNetwork().api_server_ports]
    ours = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {names.LABEL_MANAGED_BY: names.FIELD_MANAGER}},
    }
    return [
        {"ports": lookups},
        {"ports": servers},
        {"ports": [{"port": names.ADMIN_PORT, "protocol": "TCP"}], "to": [ours]},
    ]
