"""Reads what findings are made from: one namespace, the nodes, and the operator. Secrets are never asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from modeltiers import names
from modeltiers.cli.kubectl import Body, Fault, Kubectl
from modeltiers.cli.objects import PLURAL
from modeltiers.domain.why.silence import OPERATOR, OPERATOR_POD
from modeltiers.domain.why.snapshot import OURS, Snapshot

AROUND: Final[Mapping[str, str]] = {
    "Deployment": "deployments.apps",
    "ReplicaSet": "replicasets.apps",
    "Job": "jobs.batch",
    "Pod": "pods",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Event": "events",
}
"""Kinds beside ours that findings rest on."""
_OPERATOR: Final = {OPERATOR: "deployments.apps", OPERATOR_POD: "pods", "Lease": "leases.coordination.k8s.io"}
_REFUSED: Final = re.compile(r"\(Forbidden\): ([a-z0-9.]+) is forbidden: (.*)")
Seen = tuple[dict[str, tuple[Body, ...]], dict[str, str]]
"""Bodies by kind, and by kind why it could not be read."""


def ladders(kubectl: Kubectl, *, everywhere: bool = False) -> dict[str, Snapshot]:
    """Our three kinds alone, by namespace: enough for a look at many of them."""
    more = ("--all-namespaces",) if everywhere else ()
    bodies, unseen = read(kubectl, {kind: PLURAL[kind] for kind in OURS}, *more)
    if len(unseen) == len(OURS):
        raise Fault("\n".join(unseen.values()))
    spaces = sorted({str(body["metadata"]["namespace"]) for found in bodies.values() for body in found})
    return {space: _of(space, bodies, unseen) for space in spaces}


def _of(space: str, bodies: Mapping[str, tuple[Body, ...]], unseen: Mapping[str, str]) -> Snapshot:
    mine = {kind: tuple(b for b in found if b["metadata"]["namespace"] == space) for kind, found in bodies.items()}
    return Snapshot(space, datetime.now(UTC), mine, dict(unseen))


def everything(kubectl: Kubectl) -> Snapshot:
    """All that findings of one namespace rest on; what may not be read is named in it."""
    system = Kubectl(names.OPERATOR_NAMESPACE, kubectl.context, kubectl.kubeconfig)
    kinds = {**{kind: PLURAL[kind] for kind in OURS}, **AROUND}
    with ThreadPoolExecutor(4) as pool:
        space = pool.submit(kubectl.where)
        asked = [
            pool.submit(read, kubectl, kinds),
            pool.submit(_softly, kubectl, {"Node": "nodes"}),
            pool.submit(_softly, system, _OPERATOR),
        ]
        parts = [one.result() for one in asked]
    bodies = {kind: found for part in parts for kind, found in part[0].items()}
    unseen = {kind: why for part in parts for kind, why in part[1].items()}
    if all(kind in unseen for kind in OURS):
        raise Fault("\n".join(unseen[kind] for kind in OURS))
    return Snapshot(space.result(), datetime.now(UTC), bodies, unseen)


def read(kubectl: Kubectl, kinds: Mapping[str, str], *more: str) -> Seen:
    """Objects of some kinds, `{kind: plural}`, and for those that may not be read the reason."""
    found, said = kubectl.lists(kinds.values(), *more)
    refused = {plural.partition(".")[0]: line for plural, line in _refusals(said)}
    unseen = {
        kind: refused[plural.partition(".")[0]] for kind, plural in kinds.items() if plural.partition(".")[0] in refused
    }
    bodies = {kind: _only(found, kind) for kind in kinds if kind not in unseen}
    return bodies, unseen


def _refusals(said: str) -> Iterable[tuple[str, str]]:
    return ((line[1], line[2]) for line in _REFUSED.finditer(said))


def _only(found: Iterable[Body], kind: str) -> tuple[Body, ...]:
    """Those of a kind; the operator's own have their labels."""
    api = {OPERATOR: "Deployment", OPERATOR_POD: "Pod"}.get(kind, kind)
    of_operator = kind in (OPERATOR, OPERATOR_POD)
    return tuple(
        body
        for body in found
        if body.get("kind") == api and (not of_operator or _labels(body).get(names.LABEL_NAME) == names.OPERATOR_NAME)
    )


def _labels(body: Body) -> Mapping[str, Any]:
    found: Mapping[str, Any] = body["metadata"].get("labels") or {}
    return found


def _softly(kubectl: Kubectl, kinds: Mapping[str, str]) -> Seen:
    """The same for what is good to know and not needed."""
    try:
        return read(kubectl, kinds)
    except Fault as fault:
        return {}, dict.fromkeys(kinds, fault.message)
