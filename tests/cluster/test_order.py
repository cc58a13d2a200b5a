"""Objects that are applied together arrive in any order: none is called broken because another comes after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.kit import LARGE, Tiers, decoded, until
from tests.cluster.kit import SPEC as SMALL
from tests.cluster.policies import POLICY, reasoned
from tests.cluster.test_distilljob import SPEC as JOB
from tests.cluster.test_distilljob import Distill

STUDENT = {**SMALL, "model": {"source": "distill://arithmetic", "maxModelLen": 256}}


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """One of ours."""
    return {"apiVersion": "modeltiers.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def claim(tiers: Tiers, name: str) -> dict[str, Any]:
    """A claim, and its volume there already."""
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    bound = {"capacity": {"storage": "1Gi"}, "claimRef": {"namespace": tiers.namespace, "name": name}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{tiers.namespace}-{name}"}}
    tiers.create({**volume, "spec": {**common, **bound, "hostPath": {"path": "/nowhere"}}})
    spec = {**common, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"{tiers.namespace}-{name}"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


@contextmanager
def stalled(tiers: Tiers, place: Path) -> Iterator[list[tuple[str, str]]]:
    """Everything that is called Stalled meanwhile, with the message; filled at the end."""
    seen: list[tuple[str, str]] = []
    files = [place / plural for plural in ("modeltiers", "routingpolicies", "distilljobs")]
    with ExitStack() as stack:
        for path in files:
            out = stack.enter_context(path.open("w"))
            watch = tiers.cluster.as_admin.watch(path.name, "-n", tiers.namespace, out=out)
            stack.callback(watch.wait)
            stack.callback(watch.terminate)
        yield seen
    states = [state for path in files for state in decoded(path.read_text())]
    said = [(state, one) for state in states for one in (state.get("status") or {}).get("conditions") or ()]
    seen += [
        (state["kind"], one["message"]) for state, one in said if (one["type"], one["status"]) == ("Stalled", "True")
    ]


def test_who_comes_before_what_it_refers_to_is_never_stalled(tiers: Tiers, tmp_path: Path) -> None:
    """A policy and a job before their tiers, a tier before the job that it follows, a job before its claim."""
    rungs = [{"name": "small"}, {"name": "student"}, {"name": "large"}]
    items = [
        resource("RoutingPolicy", "support", {**POLICY, "tiers": rungs}),
        resource("ModelTier", "student", STUDENT),
        resource("DistillJob", "arithmetic", JOB),
        *(claim(tiers, name) for name in ("artifacts", "models")),
        resource("ModelTier", "small", SMALL),
        resource("ModelTier", "large", {**LARGE, "access": {"mode": "Open"}}),
    ]
    with stalled(tiers, tmp_path) as seen:
        tiers.create({"apiVersion": "v1", "kind": "List", "items": items})
        reasoned(tiers, "Compiled", "True", "Compiled")
        tiers.reasoned("student", "Accepted", "True", "Valid")
        until(lambda: Distill(tiers).jobs(), lambda: str(Distill(tiers).status))
    assert seen == []


def test_what_does_not_come_is_missed_in_the_end(tiers: Tiers) -> None:
    """Each says so at once, and is Stalled after a moment."""
    alone = [
        resource("RoutingPolicy", "support", POLICY),
        resource("ModelTier", "student", {**SMALL, "model": {"source": "distill://nobody"}}),
        resource("DistillJob", "arithmetic", JOB),
    ]
    tiers.create({"apiVersion": "v1", "kind": "List", "items": alone})
    reasoned(tiers, "Reconciling", "True", "TierNotFound")
    reasoned(tiers, "Stalled", "True", "TierNotFound")
    tiers.stalled("student", "DistillJobNotFound")
    Distill(tiers).until("Stalled", "True", "VolumeClaimNotFound")
