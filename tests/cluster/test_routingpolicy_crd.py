"""RoutingPolicy against the real API server, beyond what holds for every resource."""

from __future__ import annotations

import json
import re

import pytest

from e2e.cluster import Cluster
from modeltiers.api.parse import parse_policy
from modeltiers.domain.policy_table import compile_table
from tests.cluster.admission import HOSTILE, ApiServer, patched
from tests.cluster.kinds import LADDER, POLICIES, understood


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_text_is_data(server: ApiServer, shared: str, kind: str) -> None:
    """Words and patterns may be anything; in the table they are values, and nothing else in it changes."""
    value = HOSTILE[kind][:64]
    rule = {"name": "a", "when": {"keywords": [value], "patterns": [re.escape(value)[:256]]}, "tier": "large"}
    body = patched(POLICIES["smallest"], {"spec": {"classify": [rule]}})
    assert server.create(body, shared).accepted
    found = compile_table("smallest", understood(parse_policy(body)).spec, LADDER, "demo")
    if isinstance(found, list):
        assert [one.path for one in found] == ["spec.classify[0].when.patterns[0]"]
        return
    made = json.loads(found.content)["policies"][0]
    assert made["rules"][0]["when"]["keywords"] == [value]
    assert made.keys() == {"name", "model", "tiers", "rules"}


def test_the_order_of_the_ladder_is_kept(cluster: Cluster, server: ApiServer, namespace: str) -> None:
    """A list that is merged by name is still in the order that was applied last."""
    for order in (["small", "large"], ["large", "small"], ["medium", "large", "small"]):
        body = patched(POLICIES["smallest"], {"spec": {"tiers": [{"name": name} for name in order]}})
        text = json.dumps(body)
        cluster.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=text)
        stored = cluster.kubectl("get", "rp", "smallest", "-n", namespace, "-o", "json").stdout
        assert [tier["name"] for tier in json.loads(stored)["spec"]["tiers"]] == order
