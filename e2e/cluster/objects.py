"""Read objects by the words that kubectl takes, without starting a kubectl: who waits for something reads often.

The package's dynamic client knows short names too, and keeps what is served in a file by host and port, which the next
test cluster has again with other kinds.
"""

from __future__ import annotations

import ssl
import weakref
from pathlib import Path
from typing import Any

import httpx
from kubernetes import client, config

from e2e.cluster.report import HarnessError

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Objects:
    """Objects of the cluster of a kubeconfig, read over one connection that is kept."""

    def __init__(self, kubeconfig: Path) -> None:
        found = client.Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)  # type: ignore[no-untyped-call]  # the package has no types
        trust = ssl.create_default_context(cafile=found.ssl_ca_cert)
        if found.cert_file:
            trust.load_cert_chain(found.cert_file, found.key_file)
        token = (found.api_key or {}).get("authorization")
        headers = {"Authorization": token} if token else {}
        self._wire = httpx.Client(base_url=found.host, verify=trust, headers=headers, timeout=30, trust_env=False)
        weakref.finalize(self, self._wire.close)
        self._kinds: dict[str, tuple[str, str, bool]] = {}  # a word of it -> group and version, plural, in a namespace

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """An object by its kind (plural, singular, short or CamelCase) and name; None when it is not there."""
        found: dict[str, Any] | None = self._read(f"{self._folder(kind, namespace)}/{name}")
        return found

    def list(self, kind: str, namespace: str = "", selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind that a label selector chooses."""
        found = self._read(self._folder(kind, namespace), {"labelSelector": selector} if selector else {})
        return list((found or {}).get("items") or ())

    def _folder(self, kind: str, namespace: str) -> str:
        word = kind.lower()
        if word not in self._kinds:
            self._discover()
        if word not in self._kinds:
            raise HarnessError(f"the API server serves nothing that is called {kind!r}")
        place, plural, namespaced = self._kinds[word]
        return f"{place}/namespaces/{namespace}/{plural}" if namespaced and namespace else f"{place}/{plural}"

    def _discover(self) -> None:
        """Learn what is served; of several groups or versions with the same word the first wins, as with kubectl."""
        for root in ("/api", "/apis"):
            for group in (self._read(root, {}, DISCOVERY) or {}).get("items", ()):
                name = group["metadata"].get("name", "")
                version = group["versions"][0]  # the preferred one comes first
                place = f"{root}/{name}/{version['version']}" if name else f"{root}/{version['version']}"
                for one in version.get("resources", ()):
                    words = {one["resource"], one["singularResource"], one["responseKind"]["kind"].lower()}
                    for word in words | set(one.get("shortNames", ())):
                        self._kinds.setdefault(word, (place, one["resource"], one["scope"] == "Namespaced"))

    def _read(self, path: str, query: dict[str, str] | None = None, accept: str = "application/json") -> Any:
        try:
            reply = self._wire.get(path, params=query, headers={"Accept": accept})
        except httpx.HTTPError as fault:
            raise HarnessError(f"GET {path}: {fault!r}") from fault
        if reply.status_code == httpx.codes.NOT_FOUND:
            return None
        if reply.is_error:
            raise HarnessError(f"GET {path}: {reply.status_code} {reply.text}")
        return reply.json()
