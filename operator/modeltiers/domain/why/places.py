"""Why a pod has no place: which nodes could take it, and what keeps it from each; why a claim has no volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from modeltiers.domain.capacity import requested
from modeltiers.domain.views import NodeView
from modeltiers.domain.why.findings import ABSENT, Link, short
from modeltiers.domain.why.snapshot import Body, Snapshot, dig, labels_of, maps, name_of, text

_MOST: Final = 3  # names that are worth telling


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a pod asks of its node, as far as it is looked at here."""

    resources: dict[str, int]
    labels: dict[str, str]
    tolerations: list[Body]


@dataclass(frozen=True, slots=True)
class Place:
    """Why no node takes a pod; `says` is empty where nodes were not to be seen."""

    link: Link
    says: str = ""
    labels: tuple[str, ...] = ()
    """Labels that the pod asks for."""
    full: tuple[str, ...] = ()
    """Nodes that could take it, and are full."""


def no_node(snapshot: Snapshot, pod: Body) -> Place:
    """Why no node takes a pod that has none."""
    wish = _wish(pod)
    labels = tuple(wish.labels)
    if not snapshot.seen("Node"):
        why = snapshot.unseen.get("Node", "nodes were not looked at")
        return Place(Link("Nodes", "", f"not known: {short(why, 120)}"), labels=labels)
    every = snapshot.all("Node")
    if not every:
        says = "the cluster has no node"
        return Place(Link("Nodes", "", says), says, labels)
    for left, says in _sieve(every, wish):
        if not left:
            return Place(Link("Nodes", "", says), says, labels)
    fitting = list(_sieve(every, wish))[-1][0]
    what = " and ".join(f"the {amount} {resource} it needs" for resource, amount in wish.resources.items())
    says = f"it fits {_named(fitting)}, where too little is free of {what or 'CPU or memory'}"
    link = Link("Nodes", "", _free_words(_said(pod)))
    return Place(link, says, labels, tuple(name_of(node) for node in fitting[:_MOST]))


def _wish(pod: Body) -> _Wish:
    asked = {
        resource
        for container in (*maps(pod, "spec", "containers"), *maps(pod, "spec", "initContainers"))
        for kind in ("requests", "limits")
        for resource in dig(container, "resources", kind) or ()
        if "/" in resource
    }
    selector = dig(pod, "spec", "nodeSelector")
    return _Wish(
        {resource: requested(pod, resource) for resource in sorted(asked)},
        dict(selector) if isinstance(selector, dict) else {},
        maps(pod, "spec", "tolerations"),
    )


def _sieve(every: Iterable[Body], wish: _Wish) -> Iterable[tuple[list[Body], str]]:
    """The nodes that are left after each question, and what is to be said where none is."""
    left = list(every)
    for resource, amount in wish.resources.items():
        having = [node for node in left if _amount(node, resource)]
        yield having, f"no node has {resource}: is there such a node, and does its device plugin run?"
        left = having
        # The largest is told of all that have it; a label may take those away below.
        most = max(_amount(node, resource) for node in having)
        large = [node for node in having if _amount(node, resource) >= amount]
        yield large, f"the pod needs {amount} {resource} on one node, and the largest node has {most}"
        left = large
    which = f"no node with {' and '.join(wish.resources)}" if wish.resources else "no node"
    for key, value in wish.labels.items():
        fitting = [node for node in left if labels_of(node).get(key) == value]
        yield fitting, f"{which} has the label {key}={value}{_others(left, key)}"
        left = fitting
    open_ = [node for node in left if NodeView.of(node).schedulable]
    yield open_, f"{_named(left)} {'is' if len(left) == 1 else 'are'} cordoned or not ready"
    tolerated = [node for node in open_ if not _repelled(node, wish)]
    yield tolerated, f"{_named(open_)}: a taint that the pod does not tolerate: {_taints(open_, wish)}"


def _amount(node: Body, resource: str) -> int:
    return NodeView.of(node).allocatable.get(resource, 0)


def _others(nodes: Iterable[Body], key: str) -> str:
    found = Counter(labels_of(node).get(key, "") for node in nodes)
    there = ", ".join(f"{value} ({count})" for value, count in found.most_common(_MOST) if value)
    return f"; there are {there}" if there else ""


def _said(pod: Body) -> str:
    seen = next((one for one in maps(pod, "status", "conditions") if one.get("type") == "PodScheduled"), {})
    return text(seen, "message")


def _free_words(message: str) -> str:
    """The scheduler's words without its thoughts on preemption."""
    return message.partition(" preemption:")[0].rstrip(". ") or "the scheduler has not said why"


def _repelled(node: Body, wish: _Wish) -> list[Body]:
    taints = [one for one in maps(node, "spec", "taints") if one.get("effect") in ("NoSchedule", "NoExecute")]
    return [one for one in taints if not any(_tolerates(wanted, one) for wanted in wish.tolerations)]


def _tolerates(toleration: Body, taint: Body) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    same = toleration["key"] == taint.get("key")
    return same and (
        toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or "")
    )


def _taints(nodes: Iterable[Body], wish: _Wish) -> str:
    found = {
        f"{one.get('key')}={one.get('value', '')}:{one.get('effect')}"
        for node in nodes
        for one in _repelled(node, wish)
    }
    return ", ".join(sorted(found)[:_MOST])


def _named(nodes: list[Body]) -> str:
    listed = ", ".join(name_of(node) for node in nodes[:_MOST])
    more = f" and {len(nodes) - _MOST} more" if len(nodes) > _MOST else ""
    return f"node{'s' if len(nodes) > 1 else ''} {listed}{more}"


def no_volume(snapshot: Snapshot, claims: Iterable[str]) -> Link | None:
    """The first of these claims that is not there, or has no volume, and why."""
    for name in claims:
        if not snapshot.seen("PersistentVolumeClaim"):
            return None
        body = snapshot.get("PersistentVolumeClaim", name)
        if body is None:
            return Link("PersistentVolumeClaim", name, ABSENT)
        phase = text(body, "status", "phase")
        if phase != "Bound":
            return Link("PersistentVolumeClaim", name, f"{phase or 'Pending'}: {_unbound(snapshot, body)}")
    return None


def _unbound(snapshot: Snapshot, claim: Body) -> str:
    every = [event for event in snapshot.all("Event") if text(event, "involvedObject", "name") == name_of(claim)]
    told = snapshot.warnings("PersistentVolumeClaim", name_of(claim)) or tuple(
        event for event in every if text(event, "involvedObject", "kind") == "PersistentVolumeClaim"
    )
    if told:
        return short(text(told[0], "message"), 200)
    storage = dig(claim, "spec", "storageClassName")
    if storage:
        return f"its storage class {storage} has not made a volume"
    if storage == "":
        return "it names no storage class, and no volume fits it"
    return "it names no storage class: has the cluster a default one?"
