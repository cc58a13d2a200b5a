"""Names that stand for many pods: one that is lost, and a name server that is away."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from modeltiers.domain.routing.table import External, Tier
from modeltiers.router.egress import LOST, Egress
from modeltiers.router.upstream import Pool
from tests.router.kit.client import chat
from tests.router.kit.router import Router, table
from tests.router.kit.setup import patched
from tests.router.kit.upstream import Upstream, answer

ONE_MORE = """
    import os
    from modeltiers.router import upstream

    async def resolve(self):
        hosts = ("127.0.0.2", "127.0.0.1") if os.path.exists(os.environ["ONE_MORE"]) else ("127.0.0.1",)
        known = self._addresses
        self._addresses = {host: known.get(host) or upstream.Address(self, host, self._port) for host in hosts}

    upstream.Pool.resolve = resolve
"""
"""The name stands for a pod that answers and, once a file is there, for one before it where nobody listens."""


@pytest.mark.parametrize("stream", [False, True])
def test_one_pod_of_two_that_is_lost_costs_no_request(stream: bool, tmp_path: Path) -> None:
    """Of a router that has worked for a while: a hundred requests save up ten tries; after five it is left alone."""
    lost = tmp_path / "lost"
    with patched(ONE_MORE) as path, Upstream(answer("the other")) as good, ExitStack() as stack:
        made, flags, env = table(f"pods.test:{good.port}"), ("--resolve-seconds", "0.1"), {"ONE_MORE": str(lost)}
        router = stack.enter_context(Router(made, *flags, env=env, python_path=[path]))
        router.until(lambda status: status["tiers"]["t0"]["addresses"])
        assert {chat(router.port, stream=stream).text for _ in range(100)} == {"the other"}
        lost.touch()
        router.until(lambda status: len(status["tiers"]["t0"]["addresses"]) == 2)
        assert {chat(router.port, stream=stream).text for _ in range(30)} == {"the other"}
        assert router.status()["tiers"]["t0"]["addresses"][f"127.0.0.2:{good.port}"]["state"] == "Open"


class NameServer:
    """Stands in for the loop's look-ups; a real one that is away answers with an error, or not in time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: tuple[str, ...] = ()
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._look_up)

    async def _look_up(self, _: str, port: int, **__: Any) -> list[Any]:
        if not self.hosts:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in self.hosts]


async def test_addresses_that_are_known_stay_in_use_while_no_name_server_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, pool = NameServer(monkeypatch), Pool(Tier(name="t", address="pods.svc:8000"), asyncio.get_running_loop())
    server.hosts = ("10.0.0.1", "10.0.0.2")
    await pool.resolve()
    server.hosts = ()
    for _ in range(3):
        await pool.resolve()
    assert {one.host for one in pool.addresses} == {"10.0.0.1", "10.0.0.2"}
    assert pool.resolve_failures == 3
    server.hosts = ("10.0.0.2", "10.0.0.3")
    await pool.resolve()
    assert {one.host for one in pool.addresses} == {"10.0.0.2", "10.0.0.3"}


async def test_an_egress_router_stays_ready_through_a_short_outage_and_says_a_long_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = NameServer(monkeypatch)
    found = Egress("api", External(base_url="https://api.example.com/v1"), None, asyncio.get_running_loop())
    server.hosts = ("93.184.216.34",)
    await found.look()
    assert found.ready
    server.hosts = ()
    for _ in range(LOST - 1):
        await found.look()
        assert found.ready
    await found.look()
    assert (found.ready, found.state) == (False, "NameNotResolved")
    server.hosts = ("93.184.216.34",)
    await found.look()
    assert found.ready
