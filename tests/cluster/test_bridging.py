"""Requests are led to another tier before a tier's last pods go: seen by the order in which the API server was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kit import LARGE, SPEC, Tiers, decoded, until
from tests.cluster.policies import apply, reasoned

CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "cache"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
    },
}
CACHED: dict[str, Any] = {**SPEC, "serving": {"cache": {"claimName": "cache"}}}
CHANGED: dict[str, Any] = {**SPEC, "serving": {"cache": {"claimName": "cache"}, "args": ["--enable-prefix-caching"]}}


@pytest.fixture
def ladder(tiers: Tiers) -> Tiers:
    """A tier whose pod cannot have a second one beside it, and one above it."""
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": tiers.namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/tmp"},  # noqa: S108  nobody mounts it: the pods are simulated
            "claimRef": {"namespace": tiers.namespace, "name": "cache"},
        },
    }
    tiers.create(volume)
    tiers.create(CLAIM)
    tiers.apply("small", CACHED)
    tiers.apply("large", LARGE)
    tiers.ready("small")
    tiers.ready("large")
    apply(tiers)
    reasoned(tiers, "Entry", "True", "FirstTier")
    return tiers


class Watched:
    """Every state of some objects, in the order of the API server."""

    def __init__(self, tiers: Tiers, folder: Path) -> None:
        self._files = [folder / kind for kind in ("deployment", "service")]
        self._tiers = tiers
        self._running: list[Any] = []

    def __enter__(self) -> Watched:
        for path, name in zip(self._files, ("small", "support-policy"), strict=True):
            with path.open("w") as out:
                where = ("-n", self._tiers.namespace, f"--field-selector=metadata.name={name}")
                self._running.append(self._tiers.cluster.as_admin.watch(path.name, *where, out=out))
        until(lambda: all(path.read_text() for path in self._files), "the first states")
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._running:
            one.terminate()
            one.wait()

    def first(self, file: int, holds: Any) -> int:
        """Resource version of the first state of which something holds; 0 while there is none."""
        states = decoded(self._files[file].read_text())
        return next((int(state["metadata"]["resourceVersion"]) for state in states if holds(state)), 0)


def led_to_large(service: dict[str, Any]) -> bool:
    """Whether the policy's Service stands before the other tier."""
    return bool(service["spec"]["selector"]["modeltiers.dev/tier"] == "large")


def test_a_pod_that_has_no_room_beside_it_is_replaced_after_its_requests_went_elsewhere(
    ladder: Tiers, tmp_path: Path
) -> None:
    with Watched(ladder, tmp_path) as watched:
        ladder.apply("small", CHANGED)

        def replaced(deployment: dict[str, Any]) -> bool:
            return "--enable-prefix-caching" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]

        changed = until(lambda: watched.first(0, replaced), lambda: ladder.explain("small"))
        assert 0 < watched.first(1, led_to_large) < changed
        assert ladder.ready("small")["observedGeneration"] == 2
        reasoned(ladder, "Entry", "True", "FirstTier")


def test_a_tier_is_scaled_to_nothing_after_its_requests_went_elsewhere(ladder: Tiers, tmp_path: Path) -> None:
    with Watched(ladder, tmp_path) as watched:
        ladder.kubectl("scale", "modeltier/small", "--replicas=0")
        emptied = until(
            lambda: watched.first(0, lambda one: one["spec"]["replicas"] == 0), lambda: ladder.explain("small")
        )
        assert 0 < watched.first(1, led_to_large) < emptied
        ladder.reasoned("small", "Ready", "True", "ScaledToZero")
        ladder.kubectl("scale", "modeltier/small", "--replicas=1")
        reasoned(ladder, "Entry", "True", "FirstTier")


def test_with_no_other_tier_to_lead_to_nothing_is_waited_for(ladder: Tiers) -> None:
    apply(ladder, tiers=[{"name": "small"}])
    reasoned(ladder, "TiersReady", "True", "AllReady")
    ladder.apply("small", CHANGED)
    until(lambda: ladder.status("small").get("observedGeneration") == 2, lambda: ladder.explain("small"))
    assert ladder.condition("small", "Ready").get("reason") != "Bridging"
    ladder.ready("small")
