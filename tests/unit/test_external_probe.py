"""The operator's look at an external API: only the first one is waited for, and what is not known is not said."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modeltiers.api.fields import SecretKeyRef
from modeltiers.api.modeltier import External
from modeltiers.api.settings import ExternalHost
from modeltiers.controllers import external
from modeltiers.controllers.external import ExternalProbe
from modeltiers.kube.client import Api
from modeltiers.kube.session import connect

TIER = ("team", "frontier")
HOSTS = [ExternalHost(host="localhost", private=True)]


class Models(http.server.ThreadingHTTPServer):
    """An API that lists models."""

    models = ("gpt",)
    url = ""


class Lists(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Models)
        body = json.dumps({"data": [{"id": name} for name in self.server.models]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def api() -> Iterator[Models]:
    server = Models(("127.0.0.1", 0), Lists)
    server.url = f"http://localhost:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Api]:
    """An API server that is not asked, since no key is looked for."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    made = await connect(tmp_path / "kubeconfig")
    yield Api(made)
    await made.close()


async def test_a_later_look_is_not_waited_for_and_rings_when_it_has_news(
    api: Models, cluster: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "STEADY", 0.05)
    probe, spec, rung = ExternalProbe(cluster), External(base_url=api.url, model="gpt"), asyncio.Event()

    async def listed() -> bool | None:
        return (await probe.look(TIER, spec, HOSTS, lambda _: rung.set())).listed

    assert await listed() is True
    api.models = ("another",)
    await asyncio.sleep(0.1)  # what was seen is old now
    assert await listed() is True  # and is what is known until the next look has ended
    async with asyncio.timeout(5):
        await rung.wait()
    assert await listed() is False


async def test_a_look_without_news_rings_nobody(api: Models, cluster: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "STEADY", 0.05)
    probe, spec, rung = ExternalProbe(cluster), External(base_url=api.url, model="gpt"), asyncio.Event()
    first = await probe.look(TIER, spec, HOSTS, lambda _: rung.set())
    await asyncio.sleep(0.1)
    assert await probe.look(TIER, spec, HOSTS, lambda _: rung.set()) == first
    await asyncio.gather(*probe._looks.values())
    await asyncio.sleep(0)
    assert not rung.is_set()


@pytest.mark.parametrize(("found", "listed"), [(None, None), (True, False), (False, None)])
def test_a_model_that_is_listed_to_holders_of_a_key_only_is_not_called_missing(
    found: bool | None, listed: bool | None
) -> None:
    """A router of another namespace lists to each caller what it may use."""
    spec = External(
        base_url="http://large.team-a.svc:8000/v1", model="large", api_key_secret_ref=SecretKeyRef(name="a", key="b")
    )
    assert external._facts(spec, found, 200, []).listed is listed
