"""The kinds that this operator touches, and how an object of such a kind is named.

The table is closed: nothing outside it can be read or written, whatever a resource says, and no discovery is asked. It
refuses to know what the kinds are used for; `access.py` says that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from modeltiers import names


@dataclass(frozen=True)
class Kind:
    """A kind of object and where its API is served."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @cached_property
    def api_version(self) -> str:
        """What `apiVersion` says on such an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def root(self) -> str:
        """Path below which the kind is served."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def __str__(self) -> str:
        return self.kind


_ALL: Final = (
    Kind(names.GROUP, names.VERSION, "ModelTier", "modeltiers"),
    Kind(names.GROUP, names.VERSION, "RoutingPolicy", "routingpolicies"),
    Kind(names.GROUP, names.VERSION, "DistillJob", "distilljobs"),
    Kind("batch", "v1", "Job", "jobs"),
    Kind("", "v1", "ConfigMap", "configmaps"),
    Kind("apps", "v1", "Deployment", "deployments"),
    Kind("", "v1", "ServiceAccount", "serviceaccounts"),
    Kind("", "v1", "Service", "services"),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    Kind("inference.networking.k8s.io", "v1", "InferencePool", "inferencepools"),
    Kind("", "v1", "Pod", "pods"),
    Kind("", "v1", "Node", "nodes", namespaced=False),
    Kind("", "v1", "Event", "events"),
    Kind("coordination.k8s.io", "v1", "Lease", "leases"),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("", "v1", "Secret", "secrets"),
)

KINDS: Final[Mapping[str, Kind]] = {kind.kind: kind for kind in _ALL}

# Stricter than a URL needs: a name that would change the path it is put into is refused before it gets there.
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Ref:
    """One object, or a collection when the name is empty. Every namespaced object names its namespace."""

    kind: Kind
    namespace: str
    name: str

    def __post_init__(self) -> None:
        """Refuse names that are not names, and a namespace that is missing or too many."""
        for text in (self.namespace, self.name):
            if text and not _SAFE.fullmatch(text):
                raise ValueError(f"{text!r} is not a name that an object can have")
        if bool(self.namespace) != self.kind.namespaced and (self.name or self.namespace):
            needs = "needs a namespace" if self.kind.namespaced else "has no namespace"
            raise ValueError(f"{self.kind} {self.name!r} {needs}")

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.name else f"in namespace {self.namespace}"
        return f"{self.kind} {where if self.namespace else self.name}".rstrip()


def path_of(ref: Ref, subresource: str = "") -> str:
    """The URL path of an object, or of a collection when the name is empty."""
    kind = ref.kind
    where = f"/namespaces/{ref.namespace}" if ref.namespace else ""
    what = f"/{ref.name}" if ref.name else ""
    return f"{kind.root}{where}/{kind.plural}{what}{f'/{subresource}' if subresource else ''}"


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The kind that an object says it is of; an error when the table has none such."""
    kind = KINDS.get(obj.get("kind", ""))
    if kind is None or kind.api_version != obj.get("apiVersion"):
        raise ValueError(f"{obj.get('apiVersion')} {obj.get('kind')} is not a kind that this operator touches")
    return kind


def ref_of(obj: Mapping[str, Any]) -> Ref:
    """The reference to an object that says its apiVersion, kind, namespace and name."""
    metadata = obj.get("metadata") or {}
    return Ref(kind_of(obj), metadata.get("namespace", ""), metadata.get("name", ""))
