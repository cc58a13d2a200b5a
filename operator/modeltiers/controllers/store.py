"""What the watches have shown so far: tiers and policies, their children and pods, and nodes.

Filled by the doorbell only and read by reconcilers only. It keeps what decisions read and drops the rest, so that
thousands of objects fit in memory. It refuses to know what any of it means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from modeltiers import names
from modeltiers.controllers.hpas import Hpas
from modeltiers.domain.distill.following import SCHEME
from modeltiers.domain.views import NodeView, PodView

Key = tuple[str, str]
"""Namespace and name of a tier, or of a policy where nothing else is meant."""
PolicyKey = tuple[str, str, str]
"""Namespace and name of a policy or a distillation, and its kind: for where keys of tiers lie beside them."""
OwnerKey = Key | PolicyKey
"""Whom a child belongs to."""
TIER: Final = "ModelTier"
POLICY: Final = "RoutingPolicy"
DISTILL: Final = "DistillJob"
HPA: Final = "HorizontalPodAutoscaler"
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """An object as JSON text: a tenth of what it takes as Python objects, and it is read once a reconcile."""

    uid: str
    version: str
    text: bytes

    @classmethod
    def of(cls, body: Body, *, status: bool) -> Kept:
        """Keep what decisions read: no managed fields, and a status only where it is asked for."""
        metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
        kept = {name: value for name, value in body.items() if name != "status" or status}
        # Copied: orjson does not give back what it allocated too much, which is 64 KiB for a text of 7.
        text = bytes(memoryview(orjson.dumps({**kept, "metadata": metadata})))
        return cls(metadata.get("uid", ""), str(metadata.get("resourceVersion", "")), text)

    def body(self) -> dict[str, Any]:
        """The object, made anew: nobody can change what is remembered."""
        body: dict[str, Any] = orjson.loads(self.text)
        return body

    def covers(self, body: Body) -> bool:
        """Whether this is the same object from the same moment or a later one: the watch tells of our own writes, too,
        and later than their answers do.

        Resource versions are numbers that grow; Kubernetes promises so since 1.35, and etcd has always made them so.
        """
        metadata = body["metadata"]
        version = str(metadata.get("resourceVersion", ""))
        comparable = self.version.isdigit() and version.isdigit() and metadata.get("uid", "") == self.uid
        return comparable and int(version) <= int(self.version)


@dataclass(eq=False)
class Store:
    """The operator's view of the cluster, as old as its watches."""

    tiers: dict[Key, Kept] = field(default_factory=dict)
    policies: dict[Key, Kept] = field(default_factory=dict)
    ladders: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    """The tiers that each policy names."""
    crossing: dict[Key, set[str]] = field(default_factory=dict)
    """The policies that cross each tier, the other way round."""
    models: dict[Key, str] = field(default_factory=dict)
    """The model name that each policy's clients ask for."""
    asked: dict[Key, set[str]] = field(default_factory=dict)
    """The policies that have each model name of a namespace."""
    distills: dict[Key, Kept] = field(default_factory=dict)
    followers: dict[Key, str] = field(default_factory=dict)
    """The distillation that each tier follows, where it does."""
    named_by: dict[Key, set[str]] = field(default_factory=dict)
    """The distillations that name each tier."""
    children: dict[OwnerKey, dict[tuple[str, str], Kept]] = field(default_factory=dict)
    pods: dict[OwnerKey, dict[str, PodView]] = field(default_factory=dict)
    nodes: dict[str, NodeView] = field(default_factory=dict)
    waiting_for_nodes: set[Key] = field(default_factory=set)
    leaving: set[Key] = field(default_factory=set)
    """Tiers whose last ready pods are about to be replaced or taken away: nobody's requests shall enter there."""
    hpas: Hpas = field(default_factory=Hpas)

    def put_tier(self, body: Body) -> Key | None:
        """Remember a tier; returns its key if that was news."""
        key = key_of(body)
        if not _put(self.tiers, key, body, status=True):
            return None
        self.followers.pop(key, None)
        if (job := _followed(body)) is not None:
            self.followers[key] = job
        return key

    def drop_tier(self, body: Body) -> Key:
        """Forget a tier."""
        key = key_of(body)
        if _same(body, self.tiers.get(key)):
            del self.tiers[key]
            self.followers.pop(key, None)
        return key

    def put_policy(self, body: Body) -> list[str] | None:
        """Remember a policy; returns the tiers that it crosses or did cross, if that was news."""
        key = key_of(body)
        if not _put(self.policies, key, body, status=True):
            return None
        model = (body.get("spec") or {}).get("model")
        return self._index(key, tuple(_tier_names(body)), model if isinstance(model, str) else "")

    def drop_policy(self, body: Body) -> list[str]:
        """Forget a policy; returns the tiers that it crossed."""
        key = key_of(body)
        if not _same(body, self.policies.get(key)):
            return []
        del self.policies[key]
        return self._index(key, (), "")

    def _index(self, key: Key, ladder: tuple[str, ...], model: str) -> list[str]:
        _leave(self.asked, (key[0], self.models.pop(key, "")), key[1])
        if model:
            self.models[key] = model
            self.asked.setdefault((key[0], model), set()).add(key[1])
        before = self.ladders.pop(key, ())
        for tier in before:
            _leave(self.crossing, (key[0], tier), key[1])
        for tier in ladder:
            self.crossing.setdefault((key[0], tier), set()).add(key[1])
        if ladder:
            self.ladders[key] = ladder
        return sorted({*before, *ladder})

    def policy(self, key: Key) -> Body | None:
        """A policy as it was seen last."""
        kept = self.policies.get(key)
        return kept.body() if kept else None

    def named_alike(self, namespace: str, model: str) -> list[Key]:
        """The policies of a namespace whose clients ask for this model name."""
        return [(namespace, name) for name in sorted(self.asked.get((namespace, model), ()))]

    def policies_of(self, tier: Key) -> list[Key]:
        """The policies that cross a tier."""
        return [(tier[0], name) for name in sorted(self.crossing.get(tier, ()))]

    def put_distill(self, body: Body) -> Key | None:
        """Remember a distillation; returns its key if that was news."""
        key = key_of(body)
        if not _put(self.distills, key, body, status=True):
            return None
        for tier in _tiers_of_distill(body):
            self.named_by.setdefault((key[0], tier), set()).add(key[1])
        return key

    def drop_distill(self, body: Body) -> Key:
        """Forget a distillation."""
        key = key_of(body)
        if _same(body, self.distills.get(key)):
            self._forget_distill(key)
        return key

    def _forget_distill(self, key: Key) -> None:
        del self.distills[key]
        for tier in [tier for tier in self.named_by if tier[0] == key[0]]:
            _leave(self.named_by, tier, key[1])

    def distill(self, key: Key) -> Body | None:
        """A distillation as it was seen last."""
        kept = self.distills.get(key)
        return kept.body() if kept else None

    def tiers_after(self, body: Body) -> list[Key]:
        """The tiers that may follow a distillation: the one that it is to be promoted in, and those that name it."""
        namespace, name = key_of(body)
        promoted = ((body.get("spec") or {}).get("promotion") or {}).get("tierRef") or {}
        named = {promoted["name"]} if isinstance(promoted.get("name"), str) else set()
        followers = {tier for tier, job in self.followers.items() if tier[0] == namespace and job == name}
        return sorted({*followers, *((namespace, tier) for tier in named)})

    def distills_of(self, tier: Key) -> list[Key]:
        """The distillations that name a tier."""
        return [(tier[0], name) for name in sorted(self.named_by.get(tier, ()))]

    def put_child(self, kind: str, body: Body) -> OwnerKey | None:
        """Remember a child; returns whom it belongs to by its labels, if that was news."""
        key = owner_of(body)
        if key is None:
            return None
        item = (kind, body["metadata"]["name"])
        news = _put(self.children.setdefault(key, {}), item, body, status=kind in ("Deployment", "Job"))
        return key if news else None

    def drop_child(self, kind: str, body: Body) -> OwnerKey | None:
        """Forget a child."""
        key = owner_of(body)
        item = (kind, body["metadata"]["name"])
        if key and _same(body, self.children.get(key, {}).get(item)):
            _discard(self.children, key, item)
        return key

    def put_pod(self, body: Body) -> OwnerKey | None:
        """Remember a pod; returns whom it belongs to if anything that decisions read has changed."""
        key = owner_of(body)
        if key is None:
            return None
        pods, name, view = self.pods.setdefault(key, {}), body["metadata"]["name"], PodView.of(body)
        news = pods.get(name) != view
        pods[name] = view
        return key if news else None

    def drop_pod(self, body: Body) -> OwnerKey | None:
        """Forget a pod."""
        key = owner_of(body)
        if key:
            _discard(self.pods, key, body["metadata"]["name"])
        return key

    def put_node(self, body: Body) -> bool:
        """Remember a node; returns whether anything that plans read has changed (its heartbeat has not)."""
        node = NodeView.of(body)
        changed = self.nodes.get(node.name) != node
        self.nodes[node.name] = node
        return changed

    def drop_node(self, body: Body) -> bool:
        """Forget a node; returns whether it was known."""
        return self.nodes.pop(body["metadata"]["name"], None) is not None

    def put(self, kind: str, body: Body) -> None:
        """Remember an object of any kind."""
        if kind == TIER:
            self.put_tier(body)
        elif kind == POLICY:
            self.put_policy(body)
        elif kind == DISTILL:
            self.put_distill(body)
        elif kind == "Pod":
            self.put_pod(body)
        elif kind == "Node":
            self.put_node(body)
        elif kind == HPA:
            self.hpas.put(body)
            self.put_child(kind, body)
        else:
            self.put_child(kind, body)

    def tier(self, key: Key) -> Body | None:
        """A tier as it was seen last."""
        kept = self.tiers.get(key)
        return kept.body() if kept else None

    def child(self, key: OwnerKey, kind: str, name: str) -> Body | None:
        """A child as it was seen last."""
        kept = self.children.get(key, {}).get((kind, name))
        return kept.body() if kept else None

    def children_of(self, key: OwnerKey) -> list[tuple[str, str]]:
        """Kind and name of every child that is remembered of a tier or a policy."""
        return sorted(self.children.get(key, {}))

    def pods_of(self, key: OwnerKey) -> tuple[PodView, ...]:
        """The pods of a tier or a policy in the order of their names."""
        return tuple(view for _, view in sorted(self.pods.get(key, {}).items()))

    def ready_pods(self, key: OwnerKey) -> frozenset[str]:
        """Names of the pods that take requests."""
        return frozenset(name for name, view in self.pods.get(key, {}).items() if view.ready)

    def entry_of(self, policy: Key) -> str | None:
        """The tier before which a policy's Service stands."""
        service = self.child(policy_key(policy), "Service", names.policy_service(policy[1]))
        tier = (((service or {}).get("spec") or {}).get("selector") or {}).get(names.LABEL_TIER)
        return tier if isinstance(tier, str) else None

    def names_of(self, kind: str) -> Iterator[tuple[str, str]]:
        """Namespace and name of every object of a kind that is remembered."""
        if kind == TIER:
            yield from self.tiers
        elif kind == POLICY:
            yield from self.policies
        elif kind == DISTILL:
            yield from self.distills
        elif kind == "Pod":
            yield from ((key[0], name) for key, pods in self.pods.items() for name in pods)
        elif kind == "Node":
            yield from (("", name) for name in self.nodes)
        elif kind == HPA:
            yield from self.hpas.names()
        else:
            for key, children in self.children.items():
                yield from ((key[0], name) for child_kind, name in children if child_kind == kind)

    def drop_ghost(self, kind: str, namespace: str, name: str) -> list[OwnerKey]:
        """Forget an object that a fresh list no longer has; returns the tiers and policies to look at again."""
        if kind == TIER:
            self.tiers.pop((namespace, name), None)
            self.followers.pop((namespace, name), None)
            return [(namespace, name)]
        if kind == "Node":
            self.nodes.pop(name, None)
            return []
        if kind == POLICY:
            self.policies.pop((namespace, name), None)
            return [(namespace, tier) for tier in self._index((namespace, name), (), "")]
        if kind == DISTILL:
            if (namespace, name) in self.distills:
                self._forget_distill((namespace, name))
            return []
        shelf: dict[OwnerKey, dict[Any, Any]] = self.pods if kind == "Pod" else self.children
        item: Any = name if kind == "Pod" else (kind, name)
        owners = [key for key, items in shelf.items() if key[0] == namespace and item in items]
        for key in owners:
            _discard(shelf, key, item)
        return [*owners, *self.hpas.drop((namespace, name))] if kind == HPA else owners


def key_of(body: Body) -> Key:
    """Namespace and name of an object."""
    return body["metadata"]["namespace"], body["metadata"]["name"]


def policy_key(key: Key) -> PolicyKey:
    """The key of a policy beside those of tiers."""
    return (*key, POLICY)


def distill_key(key: Key) -> PolicyKey:
    """The key of a distillation beside those of tiers."""
    return (*key, DISTILL)


def owner_of(body: Body) -> OwnerKey | None:
    """Whom an object belongs to by its labels; by its owner where these were taken off."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    if policy := labels.get(names.LABEL_POLICY):
        return policy_key((metadata["namespace"], policy))
    if distill := labels.get(names.LABEL_DISTILL):
        return distill_key((metadata["namespace"], distill))
    if tier := labels.get(names.LABEL_TIER):
        return metadata["namespace"], tier
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and owner.get("apiVersion") == names.API_VERSION:
            key = (metadata["namespace"], owner["name"])
            return (*key, owner["kind"]) if owner["kind"] in (POLICY, DISTILL) else key
    return None


def _put(shelf: dict[Any, Kept], item: Any, body: Body, *, status: bool) -> bool:
    """Keep the object unless it is known from this moment or a later one; returns whether it was kept."""
    known = shelf.get(item)
    if known and known.covers(body):
        return False
    shelf[item] = Kept.of(body, status=status)
    return True


def _same(body: Body, known: Kept | None) -> bool:
    """Whether this is the very object that is remembered, and not one of its name that came before."""
    return known is not None and body["metadata"].get("uid", "") == known.uid


def _tier_names(body: Body) -> Iterator[str]:
    """The tiers that a policy names, whatever else is wrong with it."""
    tiers = (body.get("spec") or {}).get("tiers")
    for one in tiers if isinstance(tiers, list) else ():
        if isinstance(one, Mapping) and isinstance(one.get("name"), str):
            yield one["name"]


def _followed(body: Body) -> str | None:
    """The distillation that a tier follows, whatever else is wrong with it."""
    spec = body.get("spec")
    model = spec.get("model") if isinstance(spec, Mapping) else None
    source = model.get("source") if isinstance(model, Mapping) else None
    return source.removeprefix(SCHEME) if isinstance(source, str) and source.startswith(SCHEME) else None


def _tiers_of_distill(body: Body) -> Iterator[str]:
    """The tiers that a distillation names, whatever else is wrong with it."""
    spec = body.get("spec") or {}
    for part in ("teacher", "judge", "evaluation", "promotion"):
        ref = (spec.get(part) or {}).get("tierRef") if isinstance(spec.get(part), Mapping) else None
        if isinstance(ref, Mapping) and isinstance(ref.get("name"), str):
            yield ref["name"]


def _leave(index: dict[Key, set[str]], key: Key, name: str) -> None:
    members = index.get(key)
    if members:
        members.discard(name)
        if not members:
            del index[key]


def _discard(shelf: dict[OwnerKey, dict[Any, Any]], key: OwnerKey, item: Any) -> None:
    items = shelf.get(key)
    if items:
        items.pop(item, None)
        if not items:
            del shelf[key]
