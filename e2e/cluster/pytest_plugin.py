"""Fixtures for tests on a real API server: one cluster a session, one namespace a test.

The cluster ends with the pytest process, however that ends. Override `cluster_pools` for other nodes.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.kwok import NodePool


@pytest.fixture(scope="session")
def cluster_pools() -> tuple[NodePool, ...]:
    """The fake nodes every test finds: two with eight H100 each."""
    return (NodePool("h100", 2),)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, cluster_pools: tuple[NodePool, ...]) -> Iterator[Cluster]:
    """A running cluster with fake GPU nodes, shared by all tests."""
    with Cluster(tmp_path_factory.mktemp("cluster"), name="pytest", tied=True, pools=cluster_pools) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace; its end is asked for and not waited for."""
    name = cluster.create_namespace(f"test-{secrets.token_hex(4)}")
    yield name
    cluster.delete_namespace(name)
