"""Routers that stand by themselves come and go with the administrator's settings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, NodePool
from e2e.operator_process import OperatorProcess, install
from tests.cluster.conftest import SETTINGS
from tests.cluster.kit import Tiers, until
from tests.cluster.policies import apply, reasoned
from tests.cluster.test_egress import external, running
from tests.cluster.test_gateway import ALONE, GATEWAY, PARTS, parts

WITHOUT: dict[str, Any] = {name: value for name, value in SETTINGS.items() if name != "router"}


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiers]:
    """A control plane whose operator is started by the test, again and again."""
    with Cluster(tmp_path_factory.mktemp("own"), name="own", tied=True, pools=(NodePool("plain", 1, gpus=0),)) as own:
        install(own)
        yield Tiers(own, own.create_namespace(f"place-{time.monotonic_ns()}"))


def test_without_a_router_image_there_are_none_and_a_policy_says_so(place: Tiers, home: Path) -> None:
    with OperatorProcess(place.cluster, home, name="without", settings=WITHOUT):
        place.apply("frontier", external())
        apply(place, placement="Gateway", **ALONE)
        assert "router.image" in reasoned(place, "Ready", "False", "NoRouterImage")
        assert place.get("deployment", "frontier") is None
        assert parts(place) == []
    with OperatorProcess(place.cluster, home, name="with", settings=SETTINGS):
        running(place)
        running(place, GATEWAY)
        assert parts(place) == list(PARTS)
    newer = {**SETTINGS, "router": {"image": "example.com/router:2", "egressReplicas": 1}}
    with OperatorProcess(place.cluster, home, name="newer", settings=newer):
        # No engine is in these pods: they follow the settings at once.
        until(lambda: image(place, "frontier") == image(place, GATEWAY) == "example.com/router:2", "the new image")
        running(place, count=1)
    with OperatorProcess(place.cluster, home, name="again", settings=WITHOUT):
        until(lambda: parts(place) == [] and place.get("deployment", "frontier") is None, "nothing left")
        reasoned(place, "Ready", "False", "NoRouterImage")


def image(place: Tiers, deployment: str) -> str:
    """The image that a Deployment's pods shall run."""
    found = place.get("deployment", deployment) or {}
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def test_network_policies_go_when_an_administrator_wants_none(place: Tiers, home: Path) -> None:
    with OperatorProcess(place.cluster, home, name="guarded", settings=SETTINGS):
        place.apply("small")
        place.apply("frontier", external())
        until(lambda: place.get("networkpolicy", "small") and place.get("networkpolicy", "frontier"), "both")
    with OperatorProcess(place.cluster, home, name="open", settings={**SETTINGS, "network": {"policies": False}}):
        until(lambda: not place.kubectl("get", "networkpolicies", "-o", "name"), "none left")
        assert place.get("deployment", "small") is not None
