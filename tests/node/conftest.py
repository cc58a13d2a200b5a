"""One cluster with a real node a session, with the images that its pods run. All of it is slow: `make e2e` runs it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import team
from e2e.cluster import Cluster, NodePool, RealNode, preflight, recipes
from e2e.operator_pod import OperatorPod
from e2e.team import Team
from tests.node.kit import Pods
from tests.node.routers import wait_whole

NODE = RealNode(gpus=8, enforces_policies=True)
# On machines that must be able to, a lack is a failure and not a reason to look away.
DEMANDED = "MODELTIERS_REAL_NODE"


@pytest.fixture(scope="session")
def able() -> None:
    """Skip, with the reason, on a machine that cannot run a real node."""
    found = preflight.lacks()
    if found and os.environ.get(DEMANDED):
        pytest.fail(f"{DEMANDED} is set, and a real node cannot run here: {'; '.join(found)}")
    if found:
        pytest.skip(f"a real node cannot run here: {'; '.join(found)}")


@pytest.fixture(scope="session")
def node_cluster(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with a real node and one fake one."""
    state = tmp_path_factory.mktemp("node")
    with Cluster(state, name="node", tied=True, pools=[NodePool("h100", 1)], node=NODE) as running:
        print(f"\n{running.timing.table()}")
        yield running


@pytest.fixture(scope="session")
def router_image(node_cluster: Cluster) -> str:
    """The router's image, on the node; it also holds a Python for pods that only serve or ask."""
    made = recipes.router()
    node_cluster.load_image(made.archive)
    return made.reference


@pytest.fixture(scope="session")
def engine_image(node_cluster: Cluster) -> str:
    """The engine's image, on the node."""
    made = recipes.engine()
    node_cluster.load_image(made.archive)
    return made.reference


@pytest.fixture(scope="session")
def operator(node_cluster: Cluster, router_image: str, engine_image: str) -> Iterator[OperatorPod]:
    """The operator as a Pod under its own ServiceAccount; its settings put routers before engines."""
    settings = team.settings(engine_image, router_image)
    plain = settings["engineProfiles"][team.PROFILE]
    bundle = {"name": "ca", "path": "/ca", "configMapName": "ca-bundle"}
    settings["engineProfiles"]["trusting"] = {**plain, "mounts": [*plain["mounts"], bundle]}
    with OperatorPod(node_cluster, settings) as running:
        yield running


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of both tiers, as a volume of weights has them."""
    return team.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def _served(node_cluster: Cluster, operator: OperatorPod, models: Path) -> Iterator[Team]:
    with team.team(node_cluster, models, "served") as made:
        yield made


@pytest.fixture
def served(_served: Team) -> Team:
    """Two tiers and a policy over them, ready and as they should be, whatever the test before has done to them."""
    there = {one["metadata"]["name"] for one in _served.get("mt").get("items", [])}
    # One that is there keeps its rollout token: taking it away would roll the tier again.
    _served.apply(*(_served.tier(name) for name in team.TIERS if name not in there), _served.policy())
    _served.kubectl("scale", *(f"mt/{name}" for name in team.TIERS), "--replicas=1")
    wait_whole(_served)
    return _served


@pytest.fixture
def pods(node_cluster: Cluster, router_image: str) -> Iterator[Pods]:
    """Pods of a fresh namespace that enforces the strictest pod security."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = node_cluster.create_namespace(f"test-{secrets.token_hex(4)}", labels)
    yield Pods(node_cluster, name, router_image)
    node_cluster.delete_namespace(name)
