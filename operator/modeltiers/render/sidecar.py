"""The router's container, and how it stands beside an engine: a native sidecar that alone is reached from outside.

The engine listens on loopback. All probes go through the router's admin port, and the engine's preStop is the router's
drain, since a native sidecar is told to end only after the engine has ended. The volumes are optional objects with
fixed names, so that a policy which comes later restarts nothing.
"""

from __future__ import annotations

from typing import Any, Final

from modeltiers import names
from modeltiers.api.settings import RouterDefaults

Manifest = dict[str, Any]

TABLES: Final = "/etc/modeltiers/tables"
KEYS: Final = "/etc/modeltiers/keys"
SPOOL: Final = "/var/spool/modeltiers"
SPOOL_MIB: Final = 64
HARDENED: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def router(settings: RouterDefaults, *behind: str) -> Manifest:
    """The router's container, wherever it stands; `behind` are the arguments that say what is behind it alone."""
    return {
        "name": names.ROUTER_CONTAINER,
        "image": settings.image,
        "args": [
            f"--table={TABLES}",
            f"--listen=0.0.0.0:{names.SERVING_PORT}",
            f"--admin=0.0.0.0:{names.ADMIN_PORT}",
            *behind,
            f"--keys={KEYS}/{names.CLIENT_KEYS}",
            f"--hop-key={KEYS}/{names.HOP_KEY}",
            f"--spool={SPOOL}",
            f"--spool-bytes={SPOOL_MIB << 20}",
        ],
        "ports": [
            {"name": names.SERVING_PORT_NAME, "containerPort": names.SERVING_PORT, "protocol": "TCP"},
            {"name": names.ADMIN_PORT_NAME, "containerPort": names.ADMIN_PORT, "protocol": "TCP"},
        ],
        "resources": {
            # No CPU limit, as for the engine: a throttled router stalls every stream.
            "requests": {"cpu": settings.cpu, "memory": settings.memory},
            "limits": {"memory": settings.memory},
        },
        # Never waits for the engine, which the kubelet starts only after this has passed.
        "startupProbe": probe("/healthz", period=1, failures=60),
        "livenessProbe": probe("/healthz", period=10, failures=3),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(HARDENED),
        "volumeMounts": [
            {"name": "tables", "mountPath": TABLES, "readOnly": True},
            {"name": "keys", "mountPath": KEYS, "readOnly": True},
            {"name": "spool", "mountPath": SPOOL},
        ],
    }


def container(tier: str, settings: RouterDefaults, revision: str = names.FIRST_REVISION) -> Manifest:
    """The router before an engine, to stand among the init containers: it starts first and ends last."""
    behind = [f"--local={tier}=127.0.0.1:{names.ENGINE_PORT}"]
    if revision != names.FIRST_REVISION:
        behind.append(f"--revision={revision}")
    return {**router(settings, *behind), "restartPolicy": "Always"}


def volumes(tier: str) -> list[Manifest]:
    """The router's volumes; the ConfigMap and the Secrets may come later, or never."""
    return [
        {"name": "tables", "configMap": {"name": names.table_config_map(tier), "optional": True}},
        {
            "name": "keys",
            "projected": {
                "sources": [
                    _optional(names.CLIENT_KEYS_SECRET, names.CLIENT_KEYS),
                    _optional(names.HOP_SECRET, names.HOP_KEY),
                ]
            },
        },
        {"name": "spool", "emptyDir": {"sizeLimit": f"{2 * SPOOL_MIB}Mi"}},
    ]


def _optional(secret: str, key: str) -> Manifest:
    return {"secret": {"name": secret, "items": [{"key": key, "path": key}], "optional": True}}


def probe(path: str, period: int, failures: int) -> Manifest:
    """A probe of the router's admin port; what is below /engine/ is asked of the engine by the router.

    By number: the kubelet looks a name up among the ports of the probed container alone.
    """
    return {
        "httpGet": {"path": path, "port": names.ADMIN_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def drain(seconds: int) -> Manifest:
    """The engine's preStop: returns when nothing is in flight, or after so many seconds."""
    return {"httpGet": {"path": f"/drain?seconds={seconds}", "port": names.ADMIN_PORT, "scheme": "HTTP"}}
