"""Write kubeconfig files: one cluster, one user, one context each, with everything inside the file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.supervisor import write_private


def by_certificate(pki: Path, client: str) -> dict[str, str]:
    """Return the user entry of a client certificate."""
    return {
        "client-certificate-data": encoded(pki / f"{client}.crt"),
        "client-key-data": encoded(pki / f"{client}.key"),
    }


def encoded(file: Path) -> str:
    """Return a file as kubeconfig wants it inline."""
    return base64.b64encode(file.read_bytes()).decode()


def write(path: Path, context: str, cluster: Mapping[str, Any], user: Mapping[str, str], namespace: str = "") -> Path:
    """Write a kubeconfig whose only context is named `context`."""
    reference = {"cluster": context, "user": context} | ({"namespace": namespace} if namespace else {})
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": dict(cluster)}],
        "users": [{"name": context, "user": dict(user)}],
        "contexts": [{"name": context, "context": reference}],
    }
    write_private(path, yaml.safe_dump(document, sort_keys=False))
    return path
