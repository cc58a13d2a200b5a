"""`Api` on the wire, against a server that misbehaves as it is told: pauses, silence, lost pages, refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY

from modeltiers import names
from modeltiers.kube import access, errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS, Ref
from modeltiers.kube.session import BadConnection, Connection, connect

Answer = Callable[[web.Request], Awaitable[web.Response]]
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "small", "namespace": "team-a"}}
REF = Ref(KINDS["Service"], "team-a", "small")


class Wire:
    """A server that answers by a script, and what it was asked."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.script: list[Answer | web.Response] = []
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        step = self.script.pop(0) if self.script else web.json_response({"kind": "Service"})
        return step if isinstance(step, web.Response) else await step(request)


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    """A server on a port of its own, and a kubeconfig with a token file for it."""
    made = Wire(tmp_path)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    async with TestServer(app) as server:
        (tmp_path / "token").write_text("first")
        user = {"tokenFile": "token"}
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": str(server.make_url("")).rstrip("/")}}],
            "users": [{"name": "u", "user": user}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        yield made


@pytest.fixture
async def connection(wire: Wire) -> AsyncIterator[Connection]:
    """A connection by that kubeconfig."""
    made = await connect(wire.home / "kubeconfig")
    yield made
    await made.close()


def status(code: int, headers: dict[str, str] | None = None, **fields: Any) -> web.Response:
    """A Status as an answer."""
    return web.json_response({"kind": "Status", "code": code, **fields}, status=code, headers=headers)


async def test_an_apply_on_the_wire(wire: Wire, connection: Connection) -> None:
    """Method, path, field manager, content type, token and body."""
    await Api(connection).apply(SERVICE)
    (request,) = wire.asked
    assert request.method == "PATCH"
    assert request.path == "/api/v1/namespaces/team-a/services/small"
    assert dict(request.query) == {"fieldManager": "modeltiers", "force": "true"}
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert request.headers["Authorization"] == "Bearer first"
    assert request.headers["User-Agent"].startswith("modeltiers-operator")
    assert json.loads(wire.bodies[0]) == SERVICE
    assert connection.answering()


@pytest.mark.parametrize("code", [429, 503])
async def test_a_pause_that_is_asked_for_is_taken(wire: Wire, connection: Connection, code: int) -> None:
    """Then the request is sent again, and counted each time."""
    wire.script = [status(code, {"Retry-After": "0"}), status(code, {"Retry-After": "0"})]
    labels = {"verb": "patch", "resource": "services", "code": str(code)}
    before = REGISTRY.get_sample_value("modeltiers_api_requests_total", labels) or 0
    assert await Api(connection).apply(SERVICE) == {"kind": "Service"}
    assert len(wire.asked) == 3
    assert REGISTRY.get_sample_value("modeltiers_api_requests_total", labels) == before + 2


@pytest.mark.parametrize("headers", [{"Retry-After": "60"}, {}, {"Retry-After": "Wed, 25 Nov 2026 00:00:00 GMT"}])
async def test_a_long_or_missing_pause_is_left_to_the_caller(
    wire: Wire, connection: Connection, headers: dict[str, str]
) -> None:
    """A worker does not sleep for a minute; it says when to come back, if it knows."""
    wire.script = [status(429, headers)]
    with pytest.raises(errors.Transient) as caught:
        await Api(connection).apply(SERVICE)
    assert len(wire.asked) == 1
    assert caught.value.retry_after == (60 if headers.get("Retry-After") == "60" else None)


async def test_a_server_that_keeps_asking_for_pauses(wire: Wire, connection: Connection) -> None:
    """Is believed after three tries."""
    wire.script = [status(429, {"Retry-After": "0"}) for _ in range(9)]
    with pytest.raises(errors.Transient):
        await Api(connection).get(REF)
    assert len(wire.asked) == 3


async def test_silence_is_transient(wire: Wire, connection: Connection) -> None:
    """A server that takes the request and says nothing, and one that hangs up."""

    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport
        request.transport.abort()
        return web.Response()

    api = Api(connection, timeout=aiohttp.ClientTimeout(total=0.05))
    wire.script = [silent, hang_up]
    for why in ("no answer in time", "no answer: "):
        with pytest.raises(errors.Transient, match=why) as caught:
            await api.apply(SERVICE)
        assert caught.value.code == 0
        assert str(caught.value.ref) == "Service team-a/small"


async def test_nobody_there_is_transient(wire: Wire, unused_tcp_port: int) -> None:
    """Nothing listens: not an error of ours, and not the end of the process."""
    config = json.loads((wire.home / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{unused_tcp_port}"
    (wire.home / "kubeconfig").write_text(json.dumps(config))
    lonely = await connect(wire.home / "kubeconfig")
    with pytest.raises(errors.Transient, match="no answer"):
        await Api(lonely).get(REF)
    assert not lonely.answering()
    await lonely.close()


async def test_no_more_than_so_many_at_once(wire: Wire, connection: Connection) -> None:
    """The client's own limit."""
    now = most = 0

    async def busy(request: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return web.json_response({})

    wire.script = [busy] * 20
    api = Api(connection, in_flight=4)
    await asyncio.gather(*(api.get(REF) for _ in range(20)))
    assert most == 4


async def test_a_list_in_pages_goes_on_when_its_token_is_too_old(wire: Wire, connection: Connection) -> None:
    """With the token that the server offers instead: every item comes once."""

    def page(*names: str, token: str = "") -> web.Response:
        return web.json_response({"metadata": {"continue": token}, "items": [{"metadata": {"name": n}} for n in names]})

    wire.script = [page("a", "b", token="t1"), status(410, metadata={"continue": "t2"}), page("c")]
    found = [item["metadata"]["name"] async for item in Api(connection).list(KINDS["Pod"], labels="x=y", limit=2)]
    assert found == ["a", "b", "c"]
    assert [request.query.get("continue") for request in wire.asked] == [None, "t1", "t2"]
    assert all(request.query["labelSelector"] == "x=y" and request.query["limit"] == "2" for request in wire.asked)


async def test_a_list_without_a_way_on_is_a_fault(wire: Wire, connection: Connection) -> None:
    """Half a list is never taken for a whole one."""
    wire.script = [status(410)]
    with pytest.raises(errors.Gone):
        [item async for item in Api(connection).list(KINDS["Pod"])]


async def test_a_token_that_was_replaced_is_read_again(wire: Wire, connection: Connection) -> None:
    """One refusal, one read of the file, one more try; whoever is refused at the same time waits for that read."""

    async def check(request: web.Request) -> web.Response:
        return web.json_response({}) if request.headers["Authorization"] == "Bearer second" else status(401)

    wire.script = [check] * 40
    (wire.home / "token").write_text("second")
    api = Api(connection)
    await asyncio.gather(*(api.get(REF) for _ in range(8)))
    assert len(wire.asked) <= 16
    await api.apply(SERVICE)
    assert wire.asked[-1].headers["Authorization"] == "Bearer second"


async def test_a_token_that_stays_refused_is_a_fault(wire: Wire, connection: Connection) -> None:
    """And not a loop."""
    wire.script = [status(401)] * 4
    with pytest.raises(errors.Unauthorized):
        await Api(connection).get(REF)
    assert len(wire.asked) == 1


async def test_what_is_not_declared_is_not_sent(wire: Wire, connection: Connection) -> None:
    """A verb, a kind or a subresource that access.py lacks."""
    api = Api(connection)
    with pytest.raises(errors.Undeclared, match="delete Pod is not declared"):
        await api.delete(Ref(KINDS["Pod"], "a", "b"))
    with pytest.raises(errors.Undeclared, match="patch Service/status"):
        await api.apply(SERVICE, status=True)
    with pytest.raises(errors.Undeclared, match="create Pod"):
        await api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}})
    assert wire.asked == []


async def test_the_fence_stops_writes_and_not_reads(wire: Wire, connection: Connection) -> None:
    api = Api(connection, lambda: False)
    await api.get(REF)
    with pytest.raises(errors.NotLeading):
        await api.apply(SERVICE)
    assert [request.method for request in wire.asked] == ["GET"]


async def test_the_fence_is_asked_again_as_the_bytes_leave(wire: Wire, connection: Connection) -> None:
    """A process that was asleep between the decision and the wire writes nothing, and its next write is whole."""
    answers = [True, False]
    api = Api(connection, lambda: answers.pop(0) if answers else True)
    with pytest.raises(errors.NotLeading):
        await api.apply(SERVICE)
    assert wire.bodies == []
    await api.apply(SERVICE)
    assert [json.loads(body) for body in wire.bodies] == [SERVICE]


async def test_a_pause_does_not_outlive_leadership(wire: Wire, connection: Connection) -> None:
    """The second try of a write is fenced like the first."""
    leading = True

    async def pause(request: web.Request) -> web.Response:
        nonlocal leading
        leading = False
        return status(429, {"Retry-After": "0"})

    wire.script = [pause]
    with pytest.raises(errors.NotLeading):
        await Api(connection, lambda: leading).apply(SERVICE)
    assert len(wire.bodies) == 1


async def test_an_answer_that_is_no_json(wire: Wire, connection: Connection) -> None:
    """A proxy's page is a fault like any other."""
    wire.script = [web.Response(status=502, text="<html>bad gateway</html>")]
    with pytest.raises(errors.Transient, match="answered 502"):
        await Api(connection).apply(SERVICE)


async def test_warnings_are_passed_on_once(
    wire: Wire, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The server tells of pods that it would refuse by a header of the Deployment's answer."""
    wire.script = [web.json_response({}, headers={"Warning": '299 - "would violate PodSecurity"'}) for _ in range(3)]
    api = Api(connection)
    for _ in range(3):
        await api.apply(SERVICE)
    assert len(caplog.records) == 1
    assert "would violate PodSecurity" in caplog.text


async def test_no_kubeconfig_and_no_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way out is in the text."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BadConnection, match="MODELTIERS_KUBECONFIG"):
        await connect(None)


# --- rights -----------------------------------------------------------------------------------------------------------


def rules(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The rules of every role of a kind."""
    return [rule for item in manifests if item["kind"] == kind for rule in item["rules"]]


def test_roles_have_no_wildcards_and_no_secrets() -> None:
    """In either mode: verbs and resources by name, no pods made, no Secret read, and one made, by its name."""
    for manifests in (access.rbac_manifests(), access.rbac_manifests(["team-a", "team-b"], "ops")):
        for rule in rules(manifests, "Role") + rules(manifests, "ClusterRole"):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] == [names.HOP_SECRET]
                assert set(rule["verbs"]) == {"create", "patch"}
            # Pods are touched, by an annotation that brings them a new table, and neither made nor ended.
            assert not {"create", "update", "delete"} & set(rule["verbs"]) or "pods" not in rule["resources"]
            assert not any(resource.startswith(("pods/", "nodes/", "roles")) for resource in rule["resources"])


def test_namespaced_roles_see_nothing_cluster_wide() -> None:
    """A Role in each namespace, and no nodes."""
    manifests = access.rbac_manifests(["team-b", "team-a"], "ops")
    assert not any(item["kind"].startswith("Cluster") for item in manifests)
    assert not any("nodes" in rule["resources"] for rule in rules(manifests, "Role"))
    where = [item["metadata"]["namespace"] for item in manifests if item["kind"] == "RoleBinding"]
    assert where == ["ops", "team-a", "team-b"]


def test_every_grant_says_why_and_is_of_a_known_kind() -> None:
    """And no right is declared twice."""
    assert all(grant.why and grant.kind in KINDS for grant in access.USES)
    listed = [(verb, grant.kind, grant.subresource) for grant in access.USES for verb in grant.verbs]
    assert len(listed) == len(set(listed)) == len(access.declared())
