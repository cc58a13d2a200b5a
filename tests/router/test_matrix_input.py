"""What clients send: bad JSON, too much, strange paths, URLs, numbers, framing: rows P8, P9, P12 to P14, P23, P24.

Each refusal must be OpenAI's, reach no tier, and leave the next client undisturbed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.router.kit import vllm
from tests.router.kit.client import CHAT, Reply, Wire, ask, chat, chat_body, chunked, get, replies, request
from tests.router.kit.setup import Shared, shared
from tests.router.kit.upstream import answer, response, says

CORPUS = Path(__file__).parent / "corpus"
MIB = 2**20
CAN = {"images": True, "audio": True, "embeddings": True}
CLAMP = {"n": 4, "maxTokens": 100, "logprobs": 5, "stop": 4}


@pytest.fixture(scope="module")
def started() -> Iterator[Shared]:
    times = {"firstByteMs": 5_000, "idleMs": 5_000}
    policy = {"clamp": CLAMP, "mediaHosts": ["img.test"]}
    with shared(tier={"can": CAN, "breaker": {"failures": 1000}}, policy=policy, timeouts=times) as both:
        yield both


@pytest.fixture
def pair(started: Shared) -> Iterator[Shared]:
    started.begin()
    yield started
    started.end()


def refused(pair: Shared, reply: Reply, *statuses: int) -> dict[str, Any]:
    """Fail unless this was refused in OpenAI's shape and no tier saw it; returns the error."""
    assert reply.status in statuses, (reply.status, reply.body[:300])
    assert pair.first.requests == pair.second.requests == []
    return reply.error


# -- P8: bodies that are no good JSON ---------------------------------------------------------------------------------

GOOD = b'"messages":[{"role":"user","content":"x"}],"model":"support"'
BAD: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \r\n\t ",
    "a word": b"hello",
    "a list": b"[1]",
    "a text": b'"x"',
    "a number": b"1",
    "null": b"null",
    "cut": b"{" + GOOD,
    "cut in a text": b'{"model":"supp',
    "two values": b"{" + GOOD + b"}{}",
    "text behind": b"{" + GOOD + b"} x",
    "NUL behind": b"{" + GOOD + b"}\0",
    "a comma too many": b"{" + GOOD + b",}",
    "no comma": b"{" + GOOD.replace(b"],", b"]") + b"}",
    "no colon": b'{"model" "support"}',
    "single quotes": b"{'model':'support'}",
    "a bare key": b"{model:1," + GOOD + b"}",
    "a comment": b"{/*x*/" + GOOD + b"}",
    "NaN": b"{" + GOOD + b',"temperature":NaN}',
    "Infinity": b"{" + GOOD + b',"temperature":Infinity}',
    "-Infinity": b"{" + GOOD + b',"x":-Infinity}',
    "a plus": b"{" + GOOD + b',"x":+1}',
    "a leading zero": b"{" + GOOD + b',"x":01}',
    "a dot alone": b"{" + GOOD + b',"x":1.}',
    "a dot before": b"{" + GOOD + b',"x":.5}',
    "hexadecimal": b"{" + GOOD + b',"x":0x10}',
    "an exponent alone": b"{" + GOOD + b',"x":1e}',
    "a minus alone": b"{" + GOOD + b',"x":-}',
    "True": b"{" + GOOD + b',"x":True}',
    "a raw line feed in a text": b"{" + GOOD + b',"x":"a\nb"}',
    "a raw NUL in a text": b"{" + GOOD + b',"x":"a\0b"}',
    "a raw tab in a text": b"{" + GOOD + b',"x":"a\tb"}',
    "an unknown escape": b"{" + GOOD + b',"x":"\\x41"}',
    "a cut escape": b"{" + GOOD + b',"x":"\\u12"}',
    "a lone high surrogate": b"{" + GOOD + b',"x":"\\ud800"}',
    "a lone low surrogate": b"{" + GOOD + b',"x":"\\udc00"}',
    "a lone surrogate in a message": b'{"model":"support","messages":[{"role":"user","content":"\\ud800"}]}',
    "a lone surrogate in the model": b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}',
    "a lone surrogate in a key": b"{" + GOOD + b',"\\ud800":1}',
    "a byte order mark": b"\xef\xbb\xbf{" + GOOD + b"}",
    "UTF-16": ("{" + GOOD.decode() + "}").encode("utf-16"),
    "UTF-32": ("{" + GOOD.decode() + "}").encode("utf-32"),
    "Latin-1": b"{" + GOOD + b',"x":"\xe9"}',
    "a cut character": b"{" + GOOD + b',"x":"\xe2\x82"}',
    "an overlong character": b"{" + GOOD + b',"x":"\xc0\xaf"}',
    "a surrogate in UTF-8": b"{" + GOOD + b',"x":"\xed\xa0\x80"}',
    "beyond Unicode": b"{" + GOOD + b',"x":"\xf5\x80\x80\x80"}',
    "a key twice": b"{" + GOOD + b',"model":"other"}',
    "a key twice, the same": b"{" + GOOD + b',"model":"support"}',
    "a key twice, escaped": b"{" + GOOD + b',"mod\\u0065l":"other"}',
    "an unknown key twice": b'{"x":1,' + GOOD + b',"x":2}',
    "a key twice, apart": b'{ "x" : 1 , "y":2, "x" : 1 ,' + GOOD + b"}",
    "stream twice": b'{"stream":false,' + GOOD + b',"stream":true}',
    "messages twice": b"{" + GOOD + b',"messages":[{"role":"user","content":"other"}]}',
    "depth of lists": b"{" + GOOD + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth of objects": b"{" + GOOD + b',"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "depth without end": b"[" * 5 * MIB,
    "depth of a message": b'{"model":"support","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "depth of metadata": b"{" + GOOD + b',"metadata":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
}


@pytest.mark.parametrize("case", BAD)
def test_p08_a_bad_body_is_a_400_that_says_what_is_wrong(pair: Shared, case: str) -> None:
    assert len(refused(pair, ask(pair.port, request(BAD[case])), 400)["message"]) > 10


FIELDS: dict[str, tuple[str, Any]] = {
    "model is a number": ("model", 1),
    "model is null": ("model", None),
    "model is left out": ("model", ...),
    "messages is a text": ("messages", "x"),
    "messages is null": ("messages", None),
    "messages is left out": ("messages", ...),
    "messages is empty": ("messages", []),
    "a message is a text": ("messages", ["x"]),
    "a message without role": ("messages", [{"content": "x"}]),
    "a role is a number": ("messages", [{"role": 1, "content": "x"}]),
    "content is a number": ("messages", [{"role": "user", "content": 1}]),
    "content is an object": ("messages", [{"role": "user", "content": {"type": "text"}}]),
    "a part is a text": ("messages", [{"role": "user", "content": ["x"]}]),
    "a part's type is a number": ("messages", [{"role": "user", "content": [{"type": 1}]}]),
    "stream is a text": ("stream", "true"),
    "stream is a number": ("stream", 1),
    "stream_options is a list": ("stream_options", []),
    "n is a text": ("n", "2"),
    "n is a fraction": ("n", 1.5),
    "stop is a number": ("stop", 1),
    "stop holds a number": ("stop", [1]),
    "tools is an object": ("tools", {}),
    "metadata is a list": ("metadata", []),
    "response_format is a text": ("response_format", "json"),
    "user is a number": ("user", 1),
    "logprobs is a text": ("logprobs", "yes"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_p08_a_field_of_the_wrong_type_is_named(pair: Shared, case: str) -> None:
    field, value = FIELDS[case]
    error = refused(pair, chat(pair.port, **{field: value}), 400)
    assert field in str(error["param"]) or field in error["message"]


def test_p08_a_model_that_nobody_has_is_a_404(pair: Shared) -> None:
    assert refused(pair, chat(pair.port, model="nobody"), 404)["code"] == "model_not_found"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "chunked", "x", "identity, gzip"])
def test_p08_a_compressed_body_is_refused_unread(pair: Shared, coding: str) -> None:
    refused(pair, chat(pair.port, "x", f"content-encoding: {coding}"), 400, 415)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_p08_a_body_that_says_it_is_no_json_is_refused(pair: Shared, kind: str) -> None:
    refused(pair, ask(pair.port, request(chat_body(), kind=kind)), 400, 415)


def repeat(part: bytes, size: int = 9 * MIB) -> bytes:
    return part * (size // len(part))


PARTS = b'{"model":"support","messages":[{"role":"user","content":['
BOMBS: dict[str, bytes] = {
    "a number of 9 MiB": b"{" + GOOD + b',"max_tokens":' + repeat(b"9") + b"}",
    "an unknown number of 9 MiB": b"{" + GOOD + b',"x":' + repeat(b"9") + b"}",
    "white space of 9 MiB": b"{" + repeat(b" ") + GOOD + b"}",
    "line feeds behind a key": b'{"x"' + repeat(b"\n") + b":1," + GOOD + b"}",
    "a key of quotes": b'{"' + repeat(b'\\"') + b'":1, ' + GOOD + b"}",
    "a key of backslashes": b'{"' + repeat(b"\\\\") + b'":1, ' + GOOD + b"}",
    "keys": b"{" + b"".join(b'"%x":0, ' % n for n in range(700_000)) + GOOD + b"}",
    "empty parts": PARTS + repeat(b"{},") + b"{}]}]}",
    "empty messages": b'{"model":"support","messages":[' + repeat(b'{"role":""},') + b'{"role":"user"}]}',
    "stops": b"{" + GOOD + b',"stop":[' + repeat(b'"",') + b'""]}',
    "tools": b"{" + GOOD + b',"tools":[' + repeat(b"0,") + b"0]}",
    "tool calls": PARTS[:-1] + b'"x","tool_calls":[' + repeat(b"0,") + b"0]}]}",
    "metadata": b"{" + GOOD + b',"metadata":{"x":[' + repeat(b"[],") + b"0]}}",
    "options": b"{" + GOOD + b',"stream_options":{' + b",".join(b'"%x":0' % n for n in range(700_000)) + b"}}",
    "unknown lists": b"{" + GOOD + b',"x":[' + repeat(b"[],") + b"0]}",
    "one long text": b'{"model":"support","messages":[{"role":"user","content":"' + repeat(b"x") + b'"}]}',
    "one long text, escaped": b'{"model":"support","messages":[{"role":"user","content":"'
    + repeat(b"\\u00e9")
    + b'"}]}',
}


@pytest.mark.parametrize("case", BOMBS)
def test_p08_a_body_made_to_hurt_holds_nobody_up_and_takes_little_memory(pair: Shared, case: str) -> None:
    """The loop is one thread: what one body costs, every other client waits."""
    router, body = pair.router, BOMBS[case]
    assert len(body) < 10 * MIB
    chat(pair.port)
    router.forget_peak()
    before, spent = router.peak(), router.cpu()
    ask(pair.port, request(body))
    assert router.cpu() - spent < 0.4
    assert router.peak() - before < 10 * len(body)
    pair.still_serves()


@pytest.mark.slow
def test_p08_bombs_leave_no_memory_behind(pair: Shared) -> None:
    for body in BOMBS.values():
        ask(pair.port, request(body))
    before = pair.router.rss()
    for body in BOMBS.values():
        ask(pair.port, request(body))
    until = time.monotonic() + 2
    while (left := pair.router.rss() - before) > 32 * MIB and time.monotonic() < until:
        time.sleep(0.1)
    assert left < 32 * MIB


# -- P9: too much -----------------------------------------------------------------------------------------------------


def test_p09_a_declared_length_over_the_bound_is_refused_before_the_body_comes(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        wire.send(request(b"", "content-type: application/json", f"content-length: {10 * MIB + 1}", length=False))
        reply = wire.reply(1)
        refused(pair, reply, 413)
        assert reply.header("connection") == "close"
        wire.until_closed(3)


def test_p09_with_100_continue_the_body_is_not_asked_for(pair: Shared) -> None:
    head = request(b"", f"content-length: {10 * MIB + 1}", "expect: 100-continue", length=False)
    with Wire(pair.port) as wire:
        said = wire.send(head).until_closed(3)
        assert b"100 Continue" not in said
        assert b" 413 " in said


def test_p09_a_body_of_just_the_bound_is_taken(pair: Shared) -> None:
    empty = chat_body("")
    body = chat_body("x" * (10 * MIB - len(empty)))
    assert len(body) == 10 * MIB
    assert ask(pair.port, request(body)).status == 200
    assert pair.first.requests[0].json["messages"] == json.loads(body)["messages"]


def test_p09_chunks_beyond_the_bound_are_refused_where_they_cross_it(pair: Shared) -> None:
    head = request(b"", "content-type: application/json", "transfer-encoding: chunked", length=False)
    sent = 0
    with Wire(pair.port) as wire:
        wire.send(head)
        while sent < 64 * MIB and wire.try_send(b"%x\r\n%b\r\n" % (MIB, b" " * MIB)):
            sent += MIB
        assert sent < 40 * MIB
        said = wire.until_quiet(0.5, 3)
    assert said == b"" or b" 413 " in said
    pair.still_serves()


def test_p09_many_bodies_at_the_bound_at_once_are_bounded_together(pair: Shared) -> None:
    router, size = pair.router, 8 * MIB
    router.forget_peak()
    before = router.peak()
    wires = [Wire(pair.port) for _ in range(8)]
    try:
        for wire in wires:
            head = request(b"", "content-type: application/json", f"content-length: {size}", length=False)
            wire.send(head + b'{"x":"' + b" " * (size - 100))
        assert router.peak() - before < 8 * size * 2.5
    finally:
        for wire in wires:
            wire.close()
    router.idle()
    pair.still_serves()


def test_p09_small_chunks_cost_no_more_memory_than_large_ones(pair: Shared) -> None:
    router, body = pair.router, chat_body("x" * 2 * MIB)
    router.forget_peak()
    before = router.peak()
    parts = (body[at : at + 2] for at in range(0, len(body), 2))
    assert ask(pair.port, chunked(parts), seconds=20).status == 200
    assert router.peak() - before < 24 * MIB


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a trailer": (b"1\r\n{\r\n0\r\nx: ", b"x" * 65_536),
    "a trailer's name": (b"1\r\n{\r\n0\r\n", b"x" * 65_536),
    "trailers": (b"1\r\n{\r\n0\r\n", b"x: y\r\n" * 10_000),
    "a chunk extension": (b"1;", b"x" * 65_536),
    "a chunk size": (b"", b"0" * 65_536),
    "empty chunks' extensions": (b"", b"1;x=y\r\n \r\n" * 6_000),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_p09_framing_without_end_is_refused_and_takes_no_memory(pair: Shared, case: str) -> None:
    first, more = ENDLESS[case]
    router = pair.router
    router.forget_peak()
    before, sent = router.peak(), 0
    with Wire(pair.port, timeout=2) as wire:
        wire.send(request(b"", "content-type: application/json", "transfer-encoding: chunked", length=False) + first)
        while sent < 64 * MIB and wire.try_send(more):
            sent += len(more)
        assert sent < 64 * MIB, "all of it was taken"
    assert router.peak() - before < 24 * MIB
    pair.still_serves()


HEADS: dict[str, bytes] = {
    "a header": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx: " + b"a" * MIB,
    "a header's name": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + b"a" * MIB,
    "a target": b"GET /" + b"a" * MIB,
    "a method": b"A" * MIB,
    "headers": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 100_000,
    "lines before the first": b"\r\n" * MIB,
    "a whole head of 40 kB": request(chat_body(), f"x: {'a' * 40_000}"),
    "a whole head of 1000 lines": request(chat_body(), *(f"x{n}: y" for n in range(1000))),
    "a key of 1 MiB": request(chat_body(), f"authorization: Bearer {'a' * MIB}"),
}


@pytest.mark.parametrize("case", HEADS)
def test_p09_a_head_without_end_is_refused(pair: Shared, case: str) -> None:
    router = pair.router
    router.forget_peak()
    before = router.peak()
    with Wire(pair.port) as wire:
        wire.try_send(HEADS[case])
        said = wire.until_quiet(0.5, 3)
    assert said == b"" or replies(said)[0].status in (400, 404, 405, 414, 431)
    assert pair.first.requests == []
    assert router.peak() - before < 8 * MIB
    pair.still_serves()


def test_p09_an_image_as_a_data_url_passes_untouched(pair: Shared) -> None:
    url = "data:image/png;base64," + "A" * 5 * MIB
    body: dict[str, Any] = {"model": "support", "max_tokens": 5}
    body["messages"] = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    raw = json.dumps(body).encode()
    assert ask(pair.port, request(raw)).status == 200
    assert pair.first.requests[0].body == raw


# -- P12: paths -------------------------------------------------------------------------------------------------------

CONTROL = [
    *("/health", "/ping", "/version", "/load", "/metrics", "/docs", "/redoc", "/openapi.json", "/server_info"),
    *("/tokenize", "/detokenize", "/invocations", "/generative_scoring", "/pooling", "/classify", "/score", "/rerank"),
    *("/inference/v1/generate", "/inference/v1/abort_requests", "/scale_elastic_ep", "/is_scaling_elastic_ep"),
    *("/sleep?level=1", "/wake_up", "/is_sleeping", "/pause", "/resume", "/is_paused", "/reset_prefix_cache"),
    *("/collective_rpc", "/abort_requests", "/update_weights", "/init_weights_update_group", "/start_profile"),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/chat/completions/batch", "/v1/messages"),
    *("/v1/chat/completions/render", "/v1/completions/render", "/v1/audio/transcriptions", "/v1/audio/speech"),
    *("/v1/realtime", "/v1/files", "/v1/batches", "/v1/models/support", "/v1", "/", "/stop_profile", "/debug"),
    *("/healthz", "/readyz", "/status", "/drain", "/engine/health", "/engine/metrics", "/favicon.ico", "/.env"),
]
TRICKS = [
    *("//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/v1/chat/completions//"),
    *("/./v1/chat/completions", "/v1/./chat/completions", "/x/../v1/chat/completions", "/v1/chat/completions/."),
    *("/v1/chat/completions/../../../metrics", "/v1/%2e%2e/metrics", "/%2e%2e/metrics", "/v1/chat%2fcompletions"),
    *("/v1/chat/completion%73", "/%76%31/chat/completions", "/v1/chat/completions%00", "/v1/chat/completions%0d%0a"),
    *("/v1/chat/completions;x=y", "/v1;x/chat/completions", "/v1/chat/completions;", "/V1/chat/completions"),
    *("/v1/Chat/Completions", "\\v1\\chat\\completions", "/v1\\chat\\completions", "/v1/chat/completions\\..\\x"),
    *("v1/chat/completions", "*", "http://router.test/metrics", "http://evil.test/v1/chat/completions"),
    *("https://router.test/v1/chat/completions", "//evil.test/v1/chat/completions", "/v1/chat/completions#x"),
    *("/http://evil.test/", "file:///etc/passwd", "/v1/chat/completions%3fx", "/%c0%ae%c0%ae/metrics", "/..;/metrics"),
    *("/v1/chat/completions%20", "/v1/\xe9", "/v1/chat/completions\x7f", "router.test:443", "/v1/chat/completions,x"),
]


@pytest.mark.parametrize("path", CONTROL)
def test_p12_no_other_path_of_an_engine_is_served(pair: Shared, path: str) -> None:
    for method in ("GET", "POST"):
        assert ask(pair.port, request(chat_body(), path=path, method=method)).status == 404
        refused(pair, ask(pair.port, request(chat_body(), path=path, method=method)), 404)


@pytest.mark.parametrize("path", TRICKS)
def test_p12_a_path_that_is_not_just_the_one_is_not_served(pair: Shared, path: str) -> None:
    refused(pair, ask(pair.port, request(chat_body(), path=path)), 400, 404)
    pair.still_serves()


@pytest.mark.parametrize(
    "host",
    ["evil.test", "127.0.0.1:1", "a b", "a/../metrics", "a@b", "[::1", "a:99999", "", "a#b", "\xff", "%00", "a,b"],
)
def test_p12_a_host_that_lies_changes_nothing(pair: Shared, host: str) -> None:
    """The path is read from the first line alone: a host that leaks into it is how others were broken into."""
    reply = ask(pair.port, request(chat_body(), host=host))
    assert reply.status in (200, 400)
    for asked in pair.first.requests:
        assert asked.target == CHAT
        assert asked.header("host") == pair.first.address
    assert get(pair.port, "/v1/models").status == 200


def test_p12_every_path_goes_to_the_path_of_the_same_name_and_no_query_follows(pair: Shared) -> None:
    bodies = {CHAT: chat_body(), "/v1/completions": b'{"model":"support","prompt":"x"}'}
    bodies["/v1/embeddings"] = b'{"model":"support","input":"x"}'
    for path, body in bodies.items():
        assert ask(pair.port, request(body, path=path)).status == 200
        reply = ask(pair.port, request(body, path=f"{path}?api_key=secret&x=%2e%2e"))
        assert reply.status in (200, 404)
    assert {asked.target for asked in pair.first.requests} == set(bodies)


def test_p12_methods_that_are_not_the_one_are_named(pair: Shared) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
        reply = ask(pair.port, request(method=method, path=CHAT))
        refused(pair, reply, 405, 400)
        if reply.status == 405:
            assert "POST" in (reply.header("allow") or ""), method
    refused(pair, ask(pair.port, request(chat_body(), path="/v1/models")), 405)


# -- P13: URLs that lead elsewhere ------------------------------------------------------------------------------------

SSRF = json.loads((CORPUS / "ssrf.json").read_text())


def media(url: str, kind: str = "image_url") -> bytes:
    part = {"type": kind, kind: {"url": url}}
    return json.dumps({"model": "support", "messages": [{"role": "user", "content": [part]}]}).encode()


@pytest.mark.parametrize("url", SSRF["media"])
def test_p13_a_media_url_that_leads_elsewhere_is_refused(pair: Shared, url: str) -> None:
    error = refused(pair, ask(pair.port, request(media(url))), 400)
    assert "messages" in str(error["param"])


@pytest.mark.parametrize("url", SSRF["mediaAllowed"])
def test_p13_a_media_url_on_a_host_that_the_policy_names_is_taken(pair: Shared, url: str) -> None:
    assert ask(pair.port, request(media(url))).status == 200


EVIL = "http://169.254.169.254/latest/meta-data/"
SHAPES: dict[str, bytes] = {
    "image_url as a text": b'{"type":"image_url","image_url":"URL"}',
    "no type": b'{"image_url":{"url":"URL"}}',
    "another type": b'{"type":"text","text":"x","image_url":{"url":"URL"}}',
    "an unknown type": b'{"type":"image","image_url":{"url":"URL"}}',
    "audio": b'{"type":"audio_url","audio_url":{"url":"URL"}}',
    "video": b'{"type":"video_url","video_url":{"url":"URL"}}',
    "video as a text": b'{"type":"video_url","video_url":"URL"}',
    "input_image": b'{"type":"input_image","image_url":"URL"}',
    "input_image of its own": b'{"type":"input_image","input_image":{"url":"URL"}}',
    "the key escaped": b'{"type":"image_url","image\\u005furl":{"url":"URL"}}',
    "half the letters escaped": b'{"type":"image_url","\\u0069m\\u0061g\\u0065_\\u0075r\\u006c":{"url":"URL"}}',
    "url escaped": b'{"type":"image_url","image_url":{"\\u0075rl":"URL"}}',
    "type escaped": b'{"\\u0074ype":"image_url","image_url":{"url":"URL"}}',
    "the scheme escaped": b'{"type":"image_url","image_url":{"url":"\\u0068\\u0074tp://169.254.169.254/"}}',
    "url twice, good first": b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AA","url":"URL"}}',
    "url twice, bad first": b'{"type":"image_url","image_url":{"url":"URL","url":"data:image/png;base64,AA"}}',
    "image_url twice, good first": b'{"image_url":{"url":"data:,x"},"type":"image_url","image_url":{"url":"URL"}}',
    "image_url twice, bad first": b'{"image_url":{"url":"URL"},"type":"image_url","image_url":{"url":"data:,x"}}',
    "with a detail": b'{"type":"image_url","image_url":{"detail":"low","url":"URL"},"uuid":"x"}',
    "url is a list": b'{"type":"image_url","image_url":{"url":["URL"]}}',
    "url is null": b'{"type":"image_url","image_url":{"url":null}}',
    "image_url is a list": b'{"type":"image_url","image_url":["URL"]}',
    "a file": b'{"type":"file","file":{"file_data":"URL"}}',
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_p13_a_media_url_is_found_in_every_shape_that_an_engine_reads(pair: Shared, case: str, role: str) -> None:
    part = SHAPES[case].replace(b"URL", EVIL.encode())
    body = b'{"model":"support","messages":[{"role":"%b","content":[{"type":"text","text":"x"},%b]}]}'
    body = body % (role.encode(), part)
    refused(pair, ask(pair.port, request(body)), 400)


def test_p13_content_given_twice_is_refused_or_judged_as_an_engine_reads_it(pair: Shared) -> None:
    part = SHAPES["with a detail"].replace(b"URL", EVIL.encode())
    for content in (b'"content":[%b],"content":"x"' % part, b'"content":"x","content":[%b]' % part):
        body = b'{"model":"support","messages":[{"role":"user",%b}]}' % content
        pair.first.requests.clear()
        reply = ask(pair.port, request(body))
        if content.endswith(b"]") or reply.status != 200:
            refused(pair, reply, 400)


@pytest.mark.parametrize(
    "fields",
    [
        {"mm_processor_kwargs": {"x": 1}},
        {"media_io_kwargs": {"video": {"num_frames": 10**9}}},
        {"chat_template": "{{x}}"},
    ],
    ids=str,
)
def test_p13_fields_that_reach_into_an_engine_change_nothing_of_the_check(pair: Shared, fields: dict[str, Any]) -> None:
    body = json.loads(media(EVIL)) | fields
    refused(pair, ask(pair.port, request(json.dumps(body).encode())), 400)


# -- P14: asking for too much -----------------------------------------------------------------------------------------

HUGE = [
    ("n", 5),
    ("n", 16_384),
    ("n", 10**9),
    ("n", 10**30),
    ("best_of", 5),
    ("stop", ["a"] * 5),
    ("stop", ["x"] * 10_000),
]
NEVER: list[tuple[str, Any]] = [
    ("n", -1),
    ("n", 1.5),
    ("n", "1"),
    ("n", [1]),
    *(("max_tokens", value) for value in (-1, 0.5, "9", 10**30, -(10**30))),
    *(("max_completion_tokens", value) for value in (-1, 10**30)),
    *(("top_logprobs", value) for value in (-1, 10**30, True)),
    *(("best_of", value) for value in (-1, 10**30)),
    ("stop", [None]),
    ("stop", 5),
    ("stop", {}),
    ("stop", [["x"]]),
]


@pytest.mark.parametrize(("field", "value"), [*HUGE, *NEVER], ids=str)
def test_p14_a_number_beyond_the_clamp_or_without_sense_reaches_no_tier(pair: Shared, field: str, value: Any) -> None:
    error = refused(pair, chat(pair.port, **{field: value}), 400)
    assert field in str(error["param"]) or field in error["message"]


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1e999999999", b"1E+400", b"0.1e1000", b"-0", b"1e2"])
@pytest.mark.parametrize("field", [b"n", b"max_tokens", b"top_logprobs"])
def test_p14_a_number_that_overflows_reaches_no_tier_as_it_is(pair: Shared, field: bytes, number: bytes) -> None:
    body = b"{" + GOOD + b',"' + field + b'":' + number + b"}"
    reply = ask(pair.port, request(body))
    if number in (b"-0", b"1e2"):
        assert reply.status in (200, 400)
        for asked in pair.first.requests:
            assert asked.json[field.decode()] in (0, 5, 100)
    else:
        refused(pair, reply, 400)


@pytest.mark.parametrize(
    ("field", "value", "sent"),
    [
        ("max_tokens", 1000, 100),
        ("max_tokens", 10**9, 100),
        ("max_completion_tokens", 1000, 100),
        ("max_tokens", 50, 50),
        ("max_tokens", 100, 100),
        ("top_logprobs", 20, 5),
    ],
)
def test_p14_what_can_be_lowered_is_lowered_and_nothing_else_is_touched(
    pair: Shared, field: str, value: int, sent: int
) -> None:
    raw = b'{ "z": 1.0,  "%b" : %d , %b, "logprobs":true,"\xc3\xa9":[ ] }' % (field.encode(), value, GOOD)
    assert ask(pair.port, request(raw)).status == 200
    body = pair.first.requests[0].body
    want = raw.replace(b'"%b" : %d' % (field.encode(), value), b'"%b" : %d' % (field.encode(), sent))
    if "max" not in field:
        want = want[:-1] + b',"max_tokens":100}'
        assert json.loads(body) == json.loads(want)
    else:
        assert body == want


def test_p14_an_open_end_is_closed(pair: Shared) -> None:
    for extra in (b"", b',"max_tokens":null', b',"max_completion_tokens":null'):
        ask(pair.port, request(b"{" + GOOD + extra + b"}"))
        said = pair.first.requests[-1].json
        assert said["max_tokens"] == 100
        assert said.get("max_completion_tokens") is None


def test_p14_both_ends_are_lowered(pair: Shared) -> None:
    chat(pair.port, max_tokens=500, max_completion_tokens=600)
    said = pair.first.requests[-1].json
    assert (said["max_tokens"], said["max_completion_tokens"]) == (100, 100)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ["x"] * 1000},
        {"prompt": [[1]] * 1000},
        {"prompt": ["x"] * 5, "n": 4},
        {"prompt": "x", "logprobs": 10**6},
        {"prompt": "x", "prompt_logprobs": 10**6},
        {"prompt": "x", "min_tokens": 10**9},
        {"prompt": "x", "best_of": 20},
        {"prompt": None},
        {"prompt": {}},
        {"prompt": []},
        {"prompt": [[["x"]]]},
        {"prompt_embeds": "gASVKAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU", "prompt": ""},
    ],
    ids=lambda fields: json.dumps(fields)[:40],
)
def test_p14_work_that_is_asked_for_by_other_fields_is_bounded_too(pair: Shared, fields: dict[str, Any]) -> None:
    """A list of prompts is as many answers, however small n is."""
    body = json.dumps({"model": "support", "max_tokens": 5, **fields}).encode()
    reply = ask(pair.port, request(body, path="/v1/completions"))
    for asked in pair.first.requests:
        said = asked.json
        count = len(said["prompt"]) if isinstance(said["prompt"], list) else 1
        assert count * max(said.get("n") or 1, said.get("best_of") or 1) <= CLAMP["n"]
        assert int(said.get("logprobs") or 0) <= CLAMP["logprobs"]
        assert int(said.get("prompt_logprobs") or 0) <= CLAMP["logprobs"]
        assert int(said.get("min_tokens") or 0) <= CLAMP["maxTokens"]
        assert "prompt_embeds" not in said
    if reply.status != 200:
        refused(pair, reply, 400)


# -- P23: what nobody here knows --------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"é": {}}}}}
FREE: dict[str, Any] = {"max_tokens": 5}
SENT: dict[str, bytes] = {
    "order, space and numbers": (
        b' {"zeta" : 1.10e2,\r\n\t"model":"support", "messages":[ {"role":"user","content":"x"} ] ,'
        b'"big":123456789012345678901234567890,"small":1E-400,"neg":-0.0,"max_tokens":5,"alpha":[1,  2,{ }]} \n'
    ),
    "escapes": b'{"model":"support","max_tokens":5,"messages":[{"role":"user","content":"\\u00e9\\/\\ud83d\\ude00"}]}',
    "raw text": '{"model":"support","max_tokens":5,"messages":[{"role":"user","content":"é漢😀"}]}'.encode(),
    "an escaped key": b'{"mod\\u0065l":"support","max_tokens":5,"messages":[{"role":"user","content":"x"}]}',
    "tools": chat_body(tools=[TOOL], tool_choice="auto", parallel_tool_calls=True, **FREE),
    "a tool's result": chat_body(
        messages=[
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "c", "content": "42"},
        ],
        **FREE,
    ),
    "choices": chat_body(n=3, seed=7, temperature=0.30000000000000004, **FREE),
    "logprobs": chat_body(logprobs=True, top_logprobs=5, **FREE),
    "a schema": chat_body(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}, **FREE
    ),
    "vLLM's own": chat_body(
        top_k=5, min_p=0.1, chat_template_kwargs={"enable_thinking": False}, structured_outputs={"regex": "a+"}, **FREE
    ),
    "tomorrow's": chat_body(
        reasoning={"effort": "high"}, modalities=["text"], store=True, web_search_options={}, **FREE
    ),
    "nulls": chat_body(n=None, stop=None, stream=None, user=None, tools=None, response_format=None, **FREE),
    "false": chat_body(stream=False, logprobs=False, **FREE),
    "an empty key": b'{"":1,"model":"support","max_tokens":5,"messages":[{"role":"user","content":"x"}]}',
    "keys that look like ours": chat_body(Model="x", MODEL="y", model_="z", stream_="x", **FREE),
}


@pytest.mark.parametrize("case", SENT)
def test_p23_a_body_passes_byte_for_byte(pair: Shared, case: str) -> None:
    assert ask(pair.port, request(SENT[case])).status == 200
    assert pair.first.requests[0].body == SENT[case]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_p23_a_body_in_chunks_passes_byte_for_byte_with_one_clean_framing(pair: Shared, cut: int) -> None:
    raw = SENT["order, space and numbers"]
    assert ask(pair.port, chunked(raw[at : at + cut] for at in range(0, len(raw), cut))).status == 200
    asked = pair.first.requests[0]
    assert asked.body == raw
    assert asked.header("content-length") == str(len(raw))
    assert asked.header("transfer-encoding") is None


SAID: dict[str, bytes] = {
    "vLLM's": vllm.chat("x", logprobs=-0.5, top=2, n=2),
    "odd space": b' { "choices" : [ ] , "usage" : null , "x" : 1.10, "x2":1E400 }\n',
    "tools": vllm.compact(
        {
            "choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}}],
            "kv_transfer_params": {"x": [1.0, 1e-9]},
        }
    ),
    "no usage": vllm.chat("x", usage=...),
    "tomorrow's": b'{"choices":[{"message":{"content":"x","audio":{"data":"AA=="}}}],"new":{"deep":[{}]}}',
}


@pytest.mark.parametrize("case", SAID)
def test_p23_a_reply_passes_byte_for_byte(pair: Shared, case: str) -> None:
    pair.first.script = says(response("200 OK", SAID[case]))
    assert chat(pair.port).body == SAID[case]


# -- P24: the protocol's corners --------------------------------------------------------------------------------------


def test_p24_requests_sent_ahead_are_answered_in_order_one_at_a_time(pair: Shared) -> None:
    pair.first.next(answer("slow", first=0.3), answer("two"), answer("three"))
    with Wire(pair.port) as wire:
        wire.send(request(chat_body("1")) + request(chat_body("2")) + request(chat_body("3")))
        time.sleep(0.15)
        assert len(pair.first.requests) == 1
        assert [wire.reply().text for _ in range(3)] == ["slow", "two", "three"]
    assert [asked.json["messages"][0]["content"] for asked in pair.first.requests] == ["1", "2", "3"]


@pytest.mark.parametrize("each", [1, 7, 100])
def test_p24_requests_sent_ahead_in_pieces_are_answered_too(pair: Shared, each: int) -> None:
    data = b"".join(request(chat_body(str(place), stream=place % 2 == 1)) for place in range(6))
    with Wire(pair.port) as wire:
        wire.send(data, each=each)
        assert [wire.reply().text for _ in range(6)] == ["first"] * 6


def test_p24_far_too_many_sent_ahead_take_no_memory_and_reach_the_tier_one_by_one(pair: Shared) -> None:
    pair.first.script = answer("x", first=0.05)
    pair.router.forget_peak()
    before = pair.router.peak()
    with Wire(pair.port, timeout=0.5) as wire:
        one = request(chat_body("x" * 1000)) * 100
        sent = sum(len(one) for _ in range(300) if wire.try_send(one))
        assert sent < 300 * len(one)
    assert len(pair.first.requests) < 20
    assert pair.router.peak() - before < 16 * MIB


def test_p24_good_then_bad_in_one_packet_answers_at_most_the_good_and_closes(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        said = replies(wire.send(request(chat_body()) + b"NONSENSE\r\n\r\n").until_closed(4))
    assert said[-1].status == 400
    assert len(pair.first.requests) == sum(one.status == 200 for one in said)


@pytest.mark.parametrize(
    "bad",
    [
        request(b"{nonsense"),
        request(chat_body(model="nobody")),
        request(chat_body(), path="/nowhere"),
        request(method="GET", path=CHAT),
        request(chat_body(n=-1)),
        request(chat_body(), kind="text/plain"),
    ],
    ids=["bad JSON", "no model", "no path", "no method", "bad field", "bad type"],
)
def test_p24_after_an_error_the_connection_serves_on(pair: Shared, bad: bytes) -> None:
    with Wire(pair.port) as wire:
        for _ in range(3):
            assert wire.send(bad).reply().status >= 400
            assert wire.send(request(chat_body())).reply().text == "first"


def test_p24_after_an_error_of_a_tier_the_connection_serves_on(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        # What is reset on a connection that was kept may have been closed while it was idle: it is sent once more.
        cut = says(b"", then="reset")
        pair.first.next(says(response("400 Bad", vllm.error(400, "x"))), cut, cut)
        assert wire.send(request(chat_body(model="t0"))).reply().status == 400
        assert wire.send(request(chat_body(model="t0"))).reply().status == 502
        assert wire.send(request(chat_body(model="t0"))).reply().text == "first"


def test_p24_a_body_is_asked_for_with_100_continue(pair: Shared) -> None:
    body = chat_body()
    with Wire(pair.port) as wire:
        wire.send(request(body, "expect: 100-continue")[: -len(body)])
        assert wire.some(2) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.send(body).reply().text == "first"
        assert wire.send(request(chat_body())).reply().text == "first"
    assert pair.first.requests[0].header("expect") is None


def test_p24_100_continue_with_the_body_at_once_and_behind_another_request(pair: Shared) -> None:
    both = request(chat_body()) + request(chat_body(), "Expect: 100-Continue")
    with Wire(pair.port) as wire:
        wire.send(both)
        assert [wire.reply().text for _ in range(2)] == ["first", "first"]


@pytest.mark.parametrize("expects", ["200-ok", "100-continue, x", "", "100-continue;q=1"])
def test_p24_another_expectation_is_a_417_or_400(pair: Shared, expects: str) -> None:
    refused(pair, chat(pair.port, "x", f"expect: {expects}"), 417, 400)


def test_p24_trailers_are_dropped(pair: Shared) -> None:
    data = chunked([chat_body()])[:-2] + b"x-evil: 1\r\nauthorization: Bearer x\r\nhost: evil\r\n\r\n"
    with Wire(pair.port) as wire:
        assert wire.send(data).reply().text == "first"
        assert wire.send(request(chat_body())).reply().text == "first"
    head = pair.first.requests[0].head.lower()
    assert b"evil" not in head
    assert b"authorization" not in head


def test_p24_head_has_no_body(pair: Shared) -> None:
    for path in ("/v1/models", CHAT, "/nowhere"):
        with Wire(pair.port) as wire:
            wire.send(request(method="HEAD", path=path) + request(method="GET", path="/v1/models"))
            said = wire.until_quiet()
        head, _, rest = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 ")
        assert rest == b"" or rest.startswith(b"HTTP/1.1 200 "), rest


def test_p24_options_and_trace_tell_nothing(pair: Shared) -> None:
    for method in ("OPTIONS", "TRACE"):
        reply = ask(pair.port, request(method=method, path=CHAT))
        assert reply.status in (400, 404, 405)
        assert "access-control-allow-origin" not in dict(reply.headers)
        assert b"router.test" not in reply.body


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("keep", ["keep-alive", "close", None])
@pytest.mark.parametrize("stream", [False, True])
def test_p24_old_and_new_clients_get_framing_that_they_understand(
    pair: Shared, version: str, keep: str | None, stream: bool
) -> None:
    lines = [f"connection: {keep}"] if keep else []
    data = request(chat_body(stream=stream), *lines).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with Wire(pair.port) as wire:
        reply = wire.send(data).reply()
        assert reply.text == "first"
        if version == "1.0":
            assert reply.header("transfer-encoding") is None
            assert reply.header("connection") != "keep-alive" or reply.header("content-length")
        if keep == "close" or (version == "1.0" and keep is None):
            wire.until_closed(3)


def test_p24_a_request_in_single_bytes_is_taken(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        assert wire.send(request(chat_body()), each=1).reply().text == "first"


def test_p24_empty_lines_before_a_request_are_forgiven(pair: Shared) -> None:
    with Wire(pair.port) as wire:
        assert wire.send(b"\r\n\r\n" + request(chat_body())).reply().text == "first"
        assert wire.send(b"\r\n" + request(chat_body())).reply().text == "first"
