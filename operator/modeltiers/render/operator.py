"""The operator's own Deployment and settings, for administrators who apply manifests.

Images are placeholders: nobody publishes any yet, so whoever builds them names them. Nothing here is the operator's to
apply; it never writes to itself.
"""

from __future__ import annotations

from typing import Any, Final

from modeltiers import names
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
    """The ConfigMap with the text of the settings file, and the Deployment that reads it when it starts."""
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
            "metadata": _metadata(names.OPERATOR_NAME, namespace),
            "spec": {
                # A second replica takes over within 15 s of a crash; alone, the kubelet restarts it.
                "replicas": 1,
                "selector": {"matchLabels": SELECTOR},
                "template": {"metadata": {"labels": LABELS}, "spec": _pod()},
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
        "containers": [_container()],
        "volumes": [{"name": "settings", "configMap": {"name": names.OPERATOR_SETTINGS}}],
    }


def _container() -> Manifest:
    return {
        "name": "operator",
        "image": IMAGE,
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
