"""External tiers on real sockets: TLS, proxy, key, addresses that must not be reached, time-outs, ends."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from modeltiers.domain.routing.table import External, InvalidTable, Table, Tier, read_table
from modeltiers.router import external
from modeltiers.router.addresses import base_fault, reach
from modeltiers.router.connection import BROKEN, CONNECT, TIMEOUT, Failure, Head
from modeltiers.router.external import ExternalPool
from modeltiers.router.metrics import Book
from modeltiers.router.probes import fetch
from modeltiers.router.reading import Metered, Reading
from tests.router.upstream import answers, chunk, completion, events, never, reply, says

CORPUS = json.loads((Path(__file__).parent / "corpus" / "ssrf.json").read_text())
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
QUICK = {"connectMs": 1000, "firstByteMs": 400, "idleMs": 400, "totalMs": 3000}


# -- the other side ---------------------------------------------------------------------------------------------------


class Asked:
    """A request as the API got it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
        self.method, self.target = (part.decode() for part in first.split(b" ")[:2])
        self.pairs: list[list[str]] = [[part.strip() for part in line.decode().split(":", 1)] for line in lines]
        self.headers: dict[str, str] = {name.lower(): value for name, value in self.pairs}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[Any, Any, asyncio.StreamWriter], Awaitable[None]]


class Api:
    """An API on loopback."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour, self.asked = behaviour, list[Asked]()
        self.connections = self.port = 0
        self.left = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked = Asked(head, b"")
                asked.body = await self.body(asked, reader)
                self.asked.append(asked)
                answer = asyncio.ensure_future(self.behaviour(self, asked, writer))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
                if not answer.done() or isinstance(answer.exception(), ConnectionError):
                    self.left.set()
                    answer.cancel()
                    return
                answer.result()
                if writer.is_closing() or gone.done():
                    return
                gone.cancel()
                await asyncio.wait([gone])
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def body(self, asked: Asked, reader: asyncio.StreamReader) -> bytes:
        if asked.method == "CONNECT":
            return b""
        return await reader.readexactly(int(asked.headers["content-length"]))


@asynccontextmanager
async def serve(behaviour: Behaviour, context: ssl.SSLContext | None = None) -> AsyncIterator[Api]:
    api = Api(behaviour)
    server = await asyncio.start_server(api.connected, "127.0.0.1", 0, ssl=context, limit=2**24)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()


class Sink:
    """Keeps what an attempt says."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.body = b""
        self.outcome: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()

    def upstream_head(self, head: Head) -> None:
        assert self.head is None
        self.head = head

    def upstream_data(self, data: bytes) -> None:
        assert not self.outcome.done()
        self.body += data

    def upstream_end(self) -> None:
        self.outcome.set_result(None)

    def upstream_failed(self, failure: Failure) -> None:
        self.outcome.set_result(failure)


def request(body: bytes = BODY, *headers: bytes, target: bytes = b"/v1/chat/completions") -> list[bytes]:
    """A request as the router renders it for engines."""
    head = [b"POST %b HTTP/1.1" % target, b"host: x", b"content-type: application/json"]
    head += [b"content-length: %d" % len(body), b"x-request-id: id-1", *headers]
    return [b"\r\n".join(head) + b"\r\n\r\n" + body]


def tier(url: str, **fields: Any) -> Tier:
    more: dict[str, Any] = {
        name: fields.pop(name) for name in ("timeouts", "breaker", "concurrency", "keepAliveMs") if name in fields
    }
    made = {"name": "out", "external": {"baseUrl": url, "private": True, **fields}, "timeouts": QUICK, **more}
    return msgspec.convert(made, Tier)


@asynccontextmanager
async def pool(url: str, **fields: Any) -> AsyncIterator[ExternalPool]:
    """A pool that is swept as the router does it; nothing of it may be left."""
    loop = asyncio.get_running_loop()
    made = ExternalPool(tier(url, **fields), loop)

    async def sweep() -> None:
        while True:
            made.sweep(loop.time())
            await asyncio.sleep(0.05)

    sweeper = loop.create_task(sweep())
    try:
        yield made
    finally:
        sweeper.cancel()
        made.close()
        async with asyncio.timeout(5):
            await made.wait_closed()
        assert not made.attempts


async def ask(found: ExternalPool, sent: list[bytes] | None = None, *, fresh: bool = False) -> Sink:
    """Send a request and wait for its end, whichever."""
    sink = Sink()
    attempt = found.attempt(sent or request(), sink)
    assert attempt.start(fresh=fresh)
    async with asyncio.timeout(5):
        await sink.outcome
    assert all(address.in_flight == 0 for address in found.addresses)
    return sink


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something has happened on the other side."""
    for _ in range(4000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


def url(api: Api, path: str = "/v1", scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{api.port}{path}"


# -- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "target", "reached"),
    [
        ("/v1", b"/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/", b"/v1/completions", "/v1/completions"),
        ("", b"/v1/embeddings", "/embeddings"),
        ("/v1beta/openai", b"/v1/chat/completions", "/v1beta/openai/chat/completions"),
        ("/openai/deployments/gpt-4o", b"/v1/chat/completions", "/openai/deployments/gpt-4o/chat/completions"),
    ],
)
async def test_the_path_is_joined_behind_the_base(base: str, target: bytes, reached: str) -> None:
    async with serve(says("x")) as api, pool(url(api, base)) as found:
        assert await ask(found, request(target=target))
        assert api.asked[0].target == reached


async def test_of_the_clients_headers_only_those_allowed_go_out(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-outer\n")
    secret = (b"authorization: Bearer inner", b"cookie: a=b", b"x-modeltiers-hop: 1.a.b.2.c", b"x-other: no")
    listed = ["authorization", "x-org", "traceparent", "x-modeltiers-hop", "proxy-authorization", "host", "connection"]
    async with serve(says("x")) as api, pool(url(api), apiKeyFile=str(key), headers=listed) as found:
        sent = request(BODY, *secret, b"X-Org: mine", b"traceparent: 00-1", b"proxy-authorization: x", b"connection: y")
        await ask(found, sent)
    assert api.asked[0].headers == {
        "host": f"127.0.0.1:{api.port}",
        "accept-encoding": "identity",
        "content-length": str(len(BODY)),
        "content-type": "application/json",
        "x-org": "mine",
        "traceparent": "00-1",
        "authorization": "Bearer sk-outer",
    }
    assert len(api.asked[0].pairs) == len(api.asked[0].headers)
    assert api.asked[0].body == BODY


async def test_a_long_body_arrives_byte_for_byte() -> None:
    body = b'{"model":"m","x":"' + os.urandom(2_000_000).hex().encode() + b'"}'
    async with serve(says("x")) as api, pool(url(api)) as found:
        sink = await ask(found, [request(body)[0][: -len(body)], body])
        assert await sink.outcome is None
        assert api.asked[0].body == body
        assert "transfer-encoding" not in api.asked[0].headers


async def test_a_rotated_key_is_used_at_once_and_a_missing_or_bad_one_is_named(tmp_path: Path) -> None:
    key = tmp_path / "key"
    async with serve(says("x")) as api, pool(url(api), apiKeyFile=str(key)) as found:
        for content, problem in ((None, "APIKeyMissing"), ("\n", "APIKeyEmpty"), ("a b\nc", "APIKeyInvalid")):
            if content is not None:
                key.write_text(content)
            assert await (await ask(found)).outcome == CONNECT
            assert found.problem == problem
            assert not found.usable(found.loop.time())
        assert api.connections == 0
        for content in ("first", "second!"):
            key.write_text(content)
            assert await (await ask(found)).outcome is None
            assert api.asked[-1].headers["authorization"] == f"Bearer {content}"
        assert found.problem is None
        assert found.usable(found.loop.time())


# -- what comes back --------------------------------------------------------------------------------------------------


async def test_a_reply_comes_with_its_status_headers_and_bytes() -> None:
    async with serve(answers(reply("404 Not Found", b"{}", "X-Odd: Value"))) as api, pool(url(api)) as found:
        sink = await ask(found)
        assert sink.head is not None
        assert (sink.head.status, sink.body, sink.head.get(b"x-odd")) == (404, b"{}", b"Value")
        assert found.addresses[0].failures == 0


async def test_a_coding_that_nobody_asked_for_stays_as_it_came() -> None:
    raw = b"\x1f\x8b\x08 not really gzip"
    async with serve(answers(reply("200 OK", raw, "content-encoding: gzip"))) as api, pool(url(api)) as found:
        assert (await ask(found)).body == raw


async def test_a_redirect_is_not_followed() -> None:
    async with serve(says("x")) as inner:
        away = f"location: http://127.0.0.1:{inner.port}/v1"
        async with serve(answers(reply("307 Temporary Redirect", b"", away))) as api, pool(url(api)) as found:
            sink = await ask(found)
            assert sink.head is not None
            assert sink.head.status == 307
        assert inner.connections == 0


async def test_a_stream_comes_as_it_is_sent() -> None:
    gate = asyncio.Event()

    async def slowly(_: Any, __: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: 1\n\n"))
        await gate.wait()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with serve(slowly) as api, pool(url(api)) as found:
        sink = Sink()
        found.attempt(request(), sink).start()
        await until(lambda: sink.body == b"data: 1\n\n")
        gate.set()
        async with asyncio.timeout(5):
            assert await sink.outcome is None
        assert sink.body == b"data: 1\n\ndata: [DONE]\n\n"


class Kept:
    """A consumer of a reading."""

    def __init__(self) -> None:
        self.events = b""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def event(self, reading: Reading, event: bytes, payload: bytes, metered: Metered | None) -> None:
        self.events += event

    def done(self, reading: Reading, event: bytes) -> None:
        self.events += event
        self.ended.set_result("done")

    def whole(self, reading: Reading, head: Head, body: bytes, metered: Metered) -> None:
        self.events = body
        self.ended.set_result(f"whole {head.status}")

    def failed(self, reading: Reading, failure: Failure, head: Head | None, body: bytes) -> None:
        self.ended.set_result(str(failure))


async def read(found: ExternalPool, *, stream: bool) -> Kept:
    """Run a reading as an exchange does."""
    kept = Kept()
    body = BODY[:-1] + b',"stream":true}' if stream else BODY
    reading = Reading(kept, Book(), found, request(body), stream=stream)
    assert reading.start()
    async with asyncio.timeout(5):
        await kept.ended
    reading.let_go()
    return kept


async def test_a_reading_runs_on_it_unchanged() -> None:
    async with serve(says("one two")) as api, pool(url(api)) as found:
        assert (await read(found, stream=False)).events == completion("one two")
        streamed = await read(found, stream=True)
        assert (streamed.ended.result(), streamed.events) == ("done", b"".join(events("one two", usage=False)))
        assert api.connections == 1


@pytest.mark.parametrize(
    ("sent", "ended"),
    [
        (reply("302 Found", b"", "location: /x"), "Broken"),
        (reply("503 Service Unavailable", b"{}"), "503"),
        (reply("429 Too Many Requests", b"{}", "retry-after: 3"), "429"),
        (reply("400 Bad Request", b'{"error":{"message":"no"}}'), "whole 400"),
        (reply("200 OK", b"<html>"), "Broken"),
        (reply("200 OK", b"{}", "content-encoding: br"), "Broken"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{}", "Broken"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "Broken"),
        (STREAM + chunk(b"data: 1\n\n"), "Broken"),
        (b"", "Broken"),
        (b"SSH-2.0-x\r\n", "Broken"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", "Broken"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: aaaaaaaa\r\n" * 10_000 + b"\r\n", "Broken"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_answer_has_the_same_name_as_from_an_engine(sent: bytes, ended: str) -> None:
    async with serve(answers(sent, close=True)) as api, pool(url(api)) as found:
        assert (await read(found, stream=sent.startswith(STREAM))).ended.result() == ended


async def test_a_connection_that_was_closed_while_idle_costs_one_more_try() -> None:
    async def once(api: Any, asked: Any, writer: asyncio.StreamWriter) -> None:
        if len(api.asked) == 2:
            writer.transport.abort()  # as if it had timed out just now
            return
        writer.write(reply("200 OK", completion("x")))

    async with serve(once) as api, pool(url(api)) as found:
        assert (await read(found, stream=False)).ended.result() == "whole 200"
        assert (await read(found, stream=False)).ended.result() == "whole 200"
        assert (len(api.asked), api.connections) == (3, 2)


async def test_a_second_answer_on_a_connection_reaches_nobody() -> None:
    async def twice(api: Any, asked: Any, writer: asyncio.StreamWriter) -> None:
        body = completion("right") if len(api.asked) == 1 else completion("later")
        writer.write(reply("200 OK", body))
        if len(api.asked) == 1:
            writer.write(reply("200 OK", completion("poison")))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(reply("200 OK", completion("poison")))

    async with serve(twice) as api, pool(url(api)) as found:
        assert (await read(found, stream=False)).events == completion("right")
        await asyncio.sleep(0.15)
        assert (await read(found, stream=False)).events == completion("later")


async def test_a_reply_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "BODY_BYTES", 1_000_000)

    async def endless(_: Any, __: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(chunk(b": " + b"x" * 65_000 + b"\n\n"))
            await writer.drain()

    async with serve(endless) as api, pool(url(api)) as found:
        sink = await ask(found)
        assert await sink.outcome == BROKEN
        assert len(sink.body) <= 1_000_000
        await asyncio.wait_for(api.left.wait(), 1)


# -- TLS and proxy ----------------------------------------------------------------------------------------------------


def authority(tmp_path: Path, name: str = "ca") -> tuple[ssl.SSLContext, Path, trustme.CA]:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    path = tmp_path / f"{name}.pem"
    ca.cert_pem.write_to_path(path)
    return context, path, ca


async def test_tls_with_a_bundle_of_ones_own(tmp_path: Path) -> None:
    context, bundle, _ = authority(tmp_path)
    async with serve(says("x"), context) as api:
        base = url(api, scheme="https", host="localhost")
        async with pool(base, caBundleFile=str(bundle)) as found:
            assert (await read(found, stream=False)).ended.result() == "whole 200"
            assert (await read(found, stream=True)).ended.result() == "done"
        async with pool(base) as found:  # the system's know nothing of it
            assert await (await ask(found)).outcome == CONNECT
    assert len(api.asked) == 2


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.example").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(bundle)
    async with serve(says("x"), context) as api:
        async with pool(url(api, scheme="https", host="localhost"), caBundleFile=str(bundle)) as found:
            assert await (await ask(found)).outcome == CONNECT
    assert api.asked == []


async def test_a_bundle_is_read_again_and_a_bad_one_keeps_the_last(tmp_path: Path) -> None:
    context, bundle, _ = authority(tmp_path)
    _, other, _ = authority(tmp_path, "other")
    async with serve(says("x"), context) as api:
        base = url(api, scheme="https", host="localhost")
        async with pool(base, caBundleFile=str(tmp_path / "used.pem"), keepAliveMs=1) as found:
            assert await (await ask(found)).outcome == CONNECT
            assert found.problem == "CABundleInvalid"
            for source, works in ((other, False), (bundle, True)):
                (tmp_path / "used.pem").write_bytes(source.read_bytes())
                await found.resolve()
                assert (await (await ask(found)).outcome is None) == works
            (tmp_path / "used.pem").write_bytes(b"nonsense")
            await found.resolve()
            assert await (await ask(found)).outcome is None
            assert found.problem == "CABundleInvalid"


class Proxy:
    """A forward proxy on loopback: CONNECT and absolute-form."""

    def __init__(self, port: int) -> None:
        self.target, self.asked, self.port = port, list[str](), 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.split(b"\r\n")[0].decode())
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            if head.startswith(b"CONNECT"):
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                back.write(head)
            await asyncio.gather(copy(reader, back), copy(there, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
    sink.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_is_asked_by_name_and_may_be_private(tmp_path: Path, scheme: str) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.example.test").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(bundle)
    async with serve(says("x"), context if scheme == "https" else None) as api:
        proxy = Proxy(api.port)
        server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        through = {"proxy": f"http://127.0.0.1:{proxy.port}", "caBundleFile": str(bundle), "private": False}
        async with pool(f"{scheme}://api.example.test/v1", **through) as found:
            assert (await read(found, stream=False)).ended.result() == "whole 200"
        server.close()
    first = "CONNECT api.example.test:443" if scheme == "https" else "POST http://api.example.test/v1/chat/completions"
    assert [line.rsplit(" ", 1)[0] for line in proxy.asked] == [first]


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CORPUS["baseURLs"], ids=lambda case: case["why"] + " " + repr(case["url"])[:50])
async def test_a_base_that_leads_elsewhere_sees_no_connection(case: dict[str, Any]) -> None:
    async with serve(says("x")) as api:
        base = case["url"].replace("PORT", str(api.port))
        made = Tier(name="out", external=External(base_url=base))
        found = ExternalPool(
            msgspec.structs.replace(made, timeouts=tier("http://x").timeouts), asyncio.get_running_loop()
        )
        sink = Sink()
        if found.attempt(request(), sink).start():
            async with asyncio.timeout(5):
                assert await sink.outcome == CONNECT
        found.close()
        await found.wait_closed()
        assert api.connections == 0


def test_a_table_with_a_base_that_is_no_plain_url_is_refused_or_named() -> None:
    """Whatever the type's pattern lets through, `base_fault` says of what it cannot be, or the address does later."""
    for case in CORPUS["baseURLs"]:
        document = {
            "formatVersion": 1,
            "tiers": [{"name": "out", "external": {"baseUrl": case["url"].replace("PORT", "80")}}],
            "policies": [{"name": "p", "model": "p", "tiers": ["out"]}],
        }
        try:
            table: Table = read_table(document)
        except InvalidTable:
            continue
        made = table.tiers[0].external
        assert made is not None
        host = case["url"].partition("//")[2]
        if "%" in host or "[" in host or ".." in host or host[0].isdigit():
            assert base_fault(made) is not None, case


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", "Public"),
        ("1.1.1.1", "Public"),
        ("104.18.7.192", "Public"),
        ("2606:4700:4700::1111", "Public"),
        ("::ffff:8.8.8.8", "Public"),
        ("64:ff9b::808:808", "Public"),
        ("10.1.2.3", "Private"),
        ("172.31.255.255", "Private"),
        ("172.32.0.1", "Public"),
        ("192.168.0.1", "Private"),
        ("100.64.0.1", "Private"),
        ("127.0.0.1", "Private"),
        ("::1", "Private"),
        ("fd00::1", "Private"),
        ("::ffff:10.0.0.1", "Private"),
        ("64:ff9b::7f00:1", "Private"),
        ("169.254.169.254", "Never"),
        ("::ffff:169.254.169.254", "Never"),
        ("64:ff9b::a9fe:a9fe", "Never"),
        ("64:ff9b:1::a9fe:a9fe", "Never"),
        ("2002:7f00:1::", "Never"),
        ("2001::5601:5601", "Never"),
        ("100.100.100.200", "Never"),
        ("168.63.129.16", "Never"),
        ("192.0.0.192", "Never"),
        ("fd00:ec2::254", "Never"),
        ("fe80::1", "Never"),
        ("fe80::1%eth0", "Never"),
        ("fec0::1", "Never"),
        ("ff02::1", "Never"),
        ("224.0.0.1", "Never"),
        ("255.255.255.255", "Never"),
        ("0.0.0.0", "Never"),  # noqa: S104  not bound to
        ("::", "Never"),
        ("::127.0.0.1", "Never"),
        ("100::1", "Never"),
        ("2001:db8::1", "Never"),
        ("127.1", "Never"),
        ("localhost", "Never"),
        ("", "Never"),
    ],
)
def test_whom_an_address_leads_to(address: str, expected: str) -> None:
    assert reach(address) == expected


async def test_a_name_that_is_bound_anew_between_look_ups_is_judged_where_it_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First a public address, then loopback: the second connection must not be made."""
    async with serve(says("x")) as api, pool(f"http://rebind.test:{api.port}/v1", private=False) as found:
        said = iter(["203.0.113.7", "127.0.0.1", "::1"])

        async def resolved(host: str, port: int, **_: Any) -> list[Any]:
            assert host == "rebind.test"
            address = next(said)
            family = 10 if ":" in address else 2
            return [(family, 1, 6, "", (address, port) if family == 2 else (address, port, 0, 0))]

        monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", _resolve_with(resolved))
        for refused in (1, 2, 3):
            found.session(fresh=False).connector.clear_dns_cache()  # type: ignore[union-attr]  # it is there in this test
            assert await (await ask(found)).outcome == CONNECT
            assert (found.guard.refused, found.problem) == (refused, "AddressRefused")
        assert api.connections == 0


def _resolve_with(lookup: Any) -> Any:
    async def resolve(self: Any, host: str, port: int = 0, family: int = 0) -> list[Any]:
        return [
            {"hostname": host, "host": where[0], "port": where[1], "family": kind, "proto": protocol, "flags": 0}
            for kind, _, protocol, _, where in await lookup(host, port)
        ]

    return resolve


async def test_nothing_connects_past_the_guard() -> None:
    """Not even a question for its health: engines are asked on a bare socket, an API never."""
    async with serve(says("x")) as api, pool(url(api)) as found:
        with pytest.raises(PermissionError):
            await fetch(found.addresses[0], "/health", 1)
        assert (api.connections, found.addresses[0].in_flight) == (0, 0)


async def test_without_leave_loopback_is_not_reached_by_a_name(tmp_path: Path) -> None:
    async with serve(says("x")) as api:
        for private, outcome in ((False, CONNECT), (True, None)):
            async with pool(url(api, host="localhost"), private=private) as found:
                assert await (await ask(found)).outcome == outcome
    assert api.connections == 1


# -- time and ends ----------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_a_connect_failure_and_opens_the_breaker() -> None:
    async with serve(says("x")) as api:
        port = api.port
    async with pool(f"http://127.0.0.1:{port}/v1", breaker={"failures": 2, "openMs": 200}) as found:
        for _ in range(2):
            assert await (await ask(found)).outcome == CONNECT
        assert not found.usable(found.loop.time())
        assert not found.attempt(request(), Sink()).start()
        assert found.addresses[0].state(found.loop.time()) == "Open"
        await asyncio.sleep(0.25)
        assert found.usable(found.loop.time())


async def test_a_name_that_is_none_is_a_connect_failure() -> None:
    async with pool("http://no-such-name.invalid/v1") as found:
        assert await (await ask(found)).outcome == CONNECT


async def test_first_byte_idle_and_total_times_are_apart() -> None:
    async def drips(_: Any, __: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(chunk(b": x\n\n"))
            await asyncio.sleep(0.1)

    async def stalls(_: Any, __: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b": x\n\n"))
        await asyncio.sleep(30)

    for behaviour, times, least in (
        (never, {"firstByteMs": 200}, 0.2),
        (stalls, {"idleMs": 200}, 0.2),
        (drips, {"totalMs": 600, "idleMs": 400}, 0.6),
    ):
        async with serve(behaviour) as api, pool(url(api), timeouts=QUICK | times) as found:
            began = time.monotonic()
            assert await (await ask(found)).outcome == TIMEOUT
            assert least - 0.02 <= time.monotonic() - began < least + 1
            await asyncio.wait_for(api.left.wait(), 1)
            assert found.addresses[0].failures == 1


async def test_a_connection_that_never_comes_to_be_is_a_connect_failure() -> None:
    """TLS that is never spoken: the connection is there, what makes it usable is not."""
    silent = asyncio.Event()

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with pool(f"https://127.0.0.1:{port}/v1", timeouts=QUICK | {"connectMs": 200}) as found:
        began = time.monotonic()
        assert await (await ask(found)).outcome == CONNECT
        assert 0.18 < time.monotonic() - began < 1.2
    silent.set()
    server.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
async def test_an_abort_closes_the_connection_within_a_second(tmp_path: Path, secure: bool, phase: str) -> None:
    context, bundle, _ = authority(tmp_path)

    async def goes_on(_: Any, __: Any, writer: asyncio.StreamWriter) -> None:
        if phase == "in the stream":
            writer.write(STREAM + chunk(b": x\n\n"))
        await asyncio.sleep(30)

    async with serve(goes_on, context if secure else None) as api:
        base = url(api, scheme="https" if secure else "http", host="localhost")
        async with pool(base, caBundleFile=str(bundle), timeouts=QUICK | {"firstByteMs": 5000}) as found:
            sink = Sink()
            attempt = found.attempt(request(), sink)
            attempt.start()
            await until(lambda: bool(api.asked) and (phase != "in the stream" or bool(sink.body)))
            attempt.abort()
            attempt.abort()
            assert found.addresses[0].in_flight == 0
            await asyncio.wait_for(api.left.wait(), 1)
            assert not sink.outcome.done()
            assert found.addresses[0].failures == 0


async def test_a_sink_that_gives_up_on_the_head_hears_no_more() -> None:
    class Fussy(Sink):
        def upstream_head(self, head: Head) -> None:
            super().upstream_head(head)
            attempt.abort()

    async with serve(says("x")) as api, pool(url(api)) as found:
        sink = Fussy()
        attempt = found.attempt(request(), sink)
        attempt.start()
        await asyncio.sleep(0.2)
        assert sink.head is not None
        assert (sink.body, sink.outcome.done(), found.addresses[0].in_flight) == (b"", False, 0)
        assert len(api.asked) == 1


async def test_a_pause_stops_the_api_and_a_resume_loses_nothing() -> None:
    sent = 0

    async def pours(_: Any, __: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM)
        for _number in range(400):
            writer.write(chunk(b"x" * 65_536))
            await writer.drain()
            sent += 65_536
        writer.write(b"0\r\n\r\n")

    async with serve(pours) as api, pool(url(api), timeouts=QUICK | {"totalMs": 20_000}) as found:
        sink = Sink()
        attempt = found.attempt(request(), sink)
        attempt.start()
        await until(lambda: bool(sink.body))
        async with asyncio.timeout(10):
            attempt.pause()
            await asyncio.sleep(0.7)  # longer than the idle time
            held, poured = len(sink.body), sent
            await asyncio.sleep(0.1)
            assert (len(sink.body), sent) == (held, poured)
            assert poured < 400 * 65_536
            attempt.resume()
            assert await sink.outcome is None
        assert len(sink.body) == 400 * 65_536


async def test_connections_are_kept_as_long_as_said() -> None:
    async with serve(says("x")) as api, pool(url(api), keepAliveMs=200) as found:
        for pause in (0.0, 0.0, 0.4):
            await asyncio.sleep(pause)
            assert await (await ask(found)).outcome is None
        assert api.connections == 2
        for _ in range(2):
            assert await (await ask(found, fresh=True)).outcome is None
        assert api.connections == 4


async def test_a_closed_pool_lets_what_is_in_flight_end() -> None:
    gate = asyncio.Event()

    async def waits(_: Any, __: Any, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(reply("200 OK", completion("x")))

    async with serve(waits) as api, pool(url(api), timeouts=QUICK | {"firstByteMs": 3000}) as found:
        sink = Sink()
        found.attempt(request(), sink).start()
        await until(lambda: bool(api.asked))
        found.close()
        assert not found.attempt(request(), Sink()).start()
        gate.set()
        async with asyncio.timeout(3):
            assert await sink.outcome is None
        await found.wait_closed()


async def test_the_key_is_in_no_failure_and_no_representation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "key"
    key.write_text("sk-canary-4711")
    async with pool("http://127.0.0.1:9/v1", apiKeyFile=str(key)) as found:
        sink = await ask(found)
        said = f"{sink.outcome.result()!r} {found!r} {found.problem!r} {found._secret!r} {caplog.text}"
    assert "canary" not in said
