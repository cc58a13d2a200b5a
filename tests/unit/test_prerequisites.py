"""What a cluster must have: said while it is missing, and gone on with when it is there."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from modeltiers.controllers.check import check
from modeltiers.controllers.prerequisites import Prerequisites
from modeltiers.domain.floor import too_old
from modeltiers.kube.client import Api
from modeltiers.kube.session import connect

OURS = ("ModelTier", "RoutingPolicy", "DistillJob")


@pytest.mark.parametrize("version", ["v1.33.0", "v1.33.4-gke.1", "v1.40.0+rke2r1", "v2.0.0", "unknown", "None"])
def test_a_version_that_is_new_enough_or_none(version: str) -> None:
    assert too_old(version) is None


@pytest.mark.parametrize("version", ["v1.32.99", "v1.9.3", "1.31", "v0.40.0"])
def test_a_version_that_is_too_old(version: str) -> None:
    assert version in (too_old(version) or "")
    assert "upgrade the cluster" in (too_old(version) or "")


class Server:
    """What an API server says of itself; a test changes it."""

    def __init__(self) -> None:
        self.version = "v1.33.0"
        self.plurals = {"modeltiers", "routingpolicies", "distilljobs"}
        self.away = False

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/version", self._version)
        app.router.add_get("/apis/modeltiers.dev/v1alpha1", self._kinds)
        return app

    async def _version(self, _request: web.Request) -> web.Response:
        if self.away:
            raise web.HTTPServiceUnavailable
        return web.json_response({"gitVersion": self.version})

    async def _kinds(self, _request: web.Request) -> web.Response:
        if not self.plurals:
            raise web.HTTPNotFound
        return web.json_response({"resources": [{"name": name} for name in self.plurals]})


@asynccontextmanager
async def looking(server: Server, home: Path) -> AsyncIterator[Prerequisites]:
    """Prerequisites that look at this server."""
    async with TestServer(server.app()) as running:
        cluster = {"name": "c", "cluster": {"server": str(running.make_url("")).rstrip("/")}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        users = [{"name": "u", "user": {"token": "t"}}]
        config = {"current-context": "c", "contexts": [context], "clusters": [cluster], "users": users}
        (home / "kubeconfig").write_text(json.dumps(config))
        connection = await connect(home / "kubeconfig")
        try:
            yield Prerequisites(Api(connection), OURS[0], OURS[1:])
        finally:
            await connection.close()


class Pauses:
    """A pause that does something and says whether the program stops."""

    def __init__(self, *steps: object) -> None:
        self.steps: Iterator[object] = iter(steps)
        self.count = 0

    async def __call__(self, _seconds: float) -> bool:
        self.count += 1
        step = next(self.steps, "stop")
        if callable(step):
            step()
        return step == "stop"


async def test_an_old_cluster_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.version = "v1.31.4"
    seen: list[str | None] = []
    async with looking(server, tmp_path) as cluster:

        def upgraded() -> None:
            seen.append(cluster.problem)
            server.version = "v1.33.1"

        with caplog.at_level(logging.WARNING):
            await cluster.wait(Pauses(lambda: None, upgraded))
        assert "Kubernetes v1.31.4 is older than 1.33" in (seen[0] or "")
        assert cluster.problem is None
        assert cluster.served == set(OURS)
    assert len([one for one in caplog.messages if "v1.31.4" in one]) == 1  # said once, not at each look


async def test_a_missing_kind_is_named_and_what_there_is_goes_on(tmp_path: Path) -> None:
    server = Server()
    server.plurals = {"modeltiers"}
    async with looking(server, tmp_path) as cluster:
        await cluster.wait(Pauses())
        assert cluster.served == {"ModelTier"}
        assert "RoutingPolicy, DistillJob not served: install the CRDs" in (cluster.problem or "")


async def test_it_waits_for_the_first_kind(tmp_path: Path) -> None:
    server = Server()
    server.plurals = set()
    async with looking(server, tmp_path) as cluster:
        pauses = Pauses(lambda: None, lambda: server.plurals.update({"modeltiers"}))
        await cluster.wait(pauses)
        assert pauses.count == 2


async def test_a_kind_that_comes_is_a_reason_to_begin_anew(tmp_path: Path) -> None:
    server = Server()
    server.plurals = {"modeltiers"}
    async with looking(server, tmp_path) as cluster:
        await cluster.wait(Pauses())
        why = await cluster.watch_over(Pauses(lambda: None, lambda: server.plurals.add("distilljobs")))
        assert why == "DistillJob served now"


async def test_a_kind_that_goes_and_comes_back(tmp_path: Path) -> None:
    server = Server()
    async with looking(server, tmp_path) as cluster:
        await cluster.wait(Pauses())
        steps = (lambda: server.plurals.discard("modeltiers"), lambda: server.plurals.add("modeltiers"))
        assert await cluster.watch_over(Pauses(*steps)) == "ModelTier served now"


async def test_a_server_that_is_away_is_no_news(tmp_path: Path) -> None:
    server = Server()
    async with looking(server, tmp_path) as cluster:
        await cluster.wait(Pauses())

        def away() -> None:
            server.away = True

        def back() -> None:
            assert "does not say what it serves" in (cluster.problem or "")
            server.away = False

        assert await cluster.watch_over(Pauses(away, back)) is None
        assert cluster.problem is None


# --- helm test --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "code"), [(200, "[+] cluster", 0), (503, "[-] cluster: DistillJob not served", 1)]
)
async def test_the_check_says_what_the_operator_says(
    capsys: pytest.CaptureFixture[str], status: int, text: str, code: int
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_get("/readyz", answer)
    async with TestServer(app) as running:
        assert await asyncio.to_thread(check, str(running.make_url("/readyz")), 0) == code
    assert text in capsys.readouterr().out


def test_the_check_says_where_to_look_when_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("http://127.0.0.1:1/readyz", 0) == 1
    assert "nobody answers at http://127.0.0.1:1/readyz" in capsys.readouterr().out
