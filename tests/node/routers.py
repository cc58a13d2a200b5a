"""Asks the routers of a team's pods what they serve, as the node reaches them; the operator's word is not asked."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from e2e.cluster.process import wait_until
from e2e.team import POLICY, TIERS, Team

ADMIN_PORT = 8081
FILE = f"{POLICY}.json"


@dataclass(frozen=True)
class RouterOfPod:
    """One router's admin port, by a connection that stays open."""

    pod: str
    tier: str
    _wire: http.client.HTTPConnection

    def status(self) -> dict[str, Any]:
        """What its /status says."""
        self._wire.request("GET", "/status")
        found: dict[str, Any] = json.loads(self._wire.getresponse().read())
        return found

    def metrics(self) -> str:
        """The metrics of the engine behind it, as the engine words them."""
        self._wire.request("GET", "/engine/metrics")
        return self._wire.getresponse().read().decode()

    def version(self) -> str | None:
        """The version of the policy's table that it serves."""
        found: str | None = self.status()["tables"].get(FILE, {}).get("version")
        return found

    def knows(self, tier: str) -> bool:
        """Whether it knows an address of a tier."""
        return bool(self.status()["tiers"].get(tier, {}).get("addresses"))


@contextlib.contextmanager
def routers(team: Team) -> Iterator[list[RouterOfPod]]:
    """The routers of all pods that are ready."""
    with contextlib.ExitStack() as stack:
        found = []
        for pod in team.pods():
            ready = any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])
            if ready and "deletionTimestamp" not in pod["metadata"]:
                gate = stack.enter_context(team.cluster.gate(f"{pod['status']['podIP']}:{ADMIN_PORT}"))
                wire = stack.enter_context(
                    contextlib.closing(http.client.HTTPConnection("127.0.0.1", gate.port, timeout=10))
                )
                metadata = pod["metadata"]
                found.append(RouterOfPod(metadata["name"], metadata["labels"]["modeltiers.dev/tier"], wire))
        yield found


def wait_whole(team: Team) -> None:
    """Wait until both tiers and the policy are ready, requests enter at the small one, and routers know each other.

    Pods of before are gone by then.
    """
    team.wait_ready(*(f"modeltier/{name}" for name in TIERS), f"routingpolicy/{POLICY}")
    wait_until(lambda: len(team.pods()) == len(TIERS), "pods that are ending to go", 60, poll=0.2)
    wait_until(lambda: team.entry() == TIERS[0], "requests to enter at the small tier", 60, poll=0.2)
    with routers(team) as found:
        assert {one.tier for one in found} == set(TIERS)
        wait_until(lambda: all(one.knows(tier) for one in found for tier in TIERS), "the routers to meet", 20)
