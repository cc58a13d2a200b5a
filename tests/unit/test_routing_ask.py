"""What is read of a request, what is refused before it costs anything, and which addresses a prompt names."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing import census
from modeltiers.domain.routing.ask import BadRequest, Endpoint, Request, media_urls, read_prompts, read_request

EVIL = "http://169.254.169.254/latest"
GOOD = "data:image/png;base64,AA"


def chat(**fields: Any) -> bytes:
    """A body for a chat."""
    return json.dumps({"model": "support", "messages": [{"role": "user", "content": "x"}], **fields}).encode()


def refused(endpoint: Endpoint, body: bytes) -> BadRequest:
    """The refusal of a body."""
    with pytest.raises(BadRequest) as found:
        read_request(endpoint, body)
    assert len(found.value.message) > 10
    return found.value


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("n", "2", "n"),
        ("n", -1, "n"),
        ("n", 1.5, "n"),
        ("min_tokens", -1, "min_tokens"),
        ("prompt_logprobs", -1, "prompt_logprobs"),
        ("stop", [1], "stop[0]"),
        ("tools", {}, "tools"),
        ("messages", [], "messages"),
        ("messages", None, "messages"),
        ("messages", "x", "messages"),
        ("messages", [{"role": "user", "content": 1}], "messages[0].content"),
        ("stream", 1, "stream"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(field: str, value: Any, param: str) -> None:
    assert refused("chat", chat(**{field: value})).param == param


@pytest.mark.parametrize("body", [b"{", b'{"a":\xff}', b"[" * 100_000], ids=["cut", "no UTF-8", "deep"])
def test_what_is_no_json_is_refused_without_a_field(body: bytes) -> None:
    assert refused("chat", body).param is None


@pytest.mark.parametrize(("endpoint", "field"), [("completions", "prompt"), ("embeddings", "input")])
def test_a_conversation_is_refused_where_an_engine_would_read_it_unseen(endpoint: Endpoint, field: str) -> None:
    assert refused(endpoint, chat(**{field: "x"})).param == "messages"


@pytest.mark.parametrize(("endpoint", "field"), [("completions", "prompt"), ("embeddings", "input")])
@pytest.mark.parametrize("value", [None, {}, 1, True, [{}], [[[1]]], [["x"]], [1.5], [None], [True], ["x", None]])
def test_a_prompt_that_is_none_is_refused(endpoint: Endpoint, field: str, value: Any) -> None:
    assert refused(endpoint, json.dumps({"model": "m", field: value}).encode()).param == field


def test_each_endpoint_keeps_its_own_prompt_only() -> None:
    body = json.dumps({"model": "m", "prompt": "p", "input": "i"}).encode()
    assert read_request("completions", body).endpoint == "completions"
    assert read_request("embeddings", body).endpoint == "embeddings"
    assert read_request("chat", chat(prompt="p", input="i")).endpoint == "chat"


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "texts", "tokens"),
    [
        ("x", ["x"], []),
        ("[1,2]", ["[1,2]"], []),
        (["x", "y"], ["x", "y"], []),
        ([], [], []),
        ([1], [], [1]),
        ([1, 2, 3], [], [3]),
        ([[1, 2], [3]], [], [2, 1]),
        ([[1]] * 3, [], [1, 1, 1]),
        (["x", [1, 2]], ["x"], [2]),
    ],
)
@pytest.mark.parametrize(
    "writer", [{"separators": (",", ":")}, {"indent": 1}, {}], ids=["compact", "indented", "spaced"]
)
def test_prompts_are_told_apart(value: Any, texts: list[str], tokens: list[int], writer: dict[str, Any]) -> None:
    prompts = read_prompts(read_request("completions", json.dumps({"prompt": value}, **writer).encode()))
    assert (prompts.texts, prompts.token_counts) == (texts, tokens)
    assert prompts.count() == len(texts) + len(tokens)


@given(st.lists(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=5), min_size=1, max_size=5))
def test_lists_of_tokens_are_counted_as_python_counts_them(lists: list[list[int]]) -> None:
    request = read_request("embeddings", json.dumps({"input": lists}).encode())
    assert read_prompts(request).token_counts == [len(one) for one in lists]


# --- bounds -----------------------------------------------------------------------------------------------------------

MANY = census.MOST + 1
BOMBS: dict[str, tuple[str, bytes]] = {
    "empty messages": ("messages", b'"messages":[' + b"{}," * MANY + b"{}]"),
    "empty parts": ("messages", b'"messages":[{"role":"user","content":[' + b"{}," * MANY + b"{}]}]"),
    "tool calls": ("messages", b'"messages":[{"role":"x","tool_calls":[' + b"0," * 2 * MANY + b"0]}]"),
    "tools": ("tools", b'"tools":[' + b"0," * 2 * MANY + b"0]"),
    "stops": ("stop", b'"stop":[' + b'"",' * MANY + b'""]'),
    "options": ("stream_options", b'"stream_options":{' + b",".join(b'"%x":0' % n for n in range(MANY + 1)) + b"}"),
    "metadata": ("metadata", b'"metadata":{"x":[' + b"[]," * MANY + b"0]}"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_more_values_than_anybody_means_are_refused_and_their_field_named(case: str) -> None:
    field, text = BOMBS[case]
    rest = b"" if field == "messages" else b',"messages":[{"role":"user","content":"x"}]'
    assert refused("chat", b"{" + text + rest + b"}").param == field


@pytest.mark.parametrize("prompt", [b"[]," * MANY + b"[]", b'"",' * MANY + b'""', b"[1]," * MANY + b"[1]"])
def test_more_prompts_than_anybody_means_are_refused(prompt: bytes) -> None:
    assert refused("embeddings", b'{"input":[' + prompt + b"]}").param == "input"


def test_a_million_tokens_are_a_prompt_like_any_other() -> None:
    request = read_request("completions", b'{"prompt":[' + b"1," * 999_999 + b"1]}")
    assert read_prompts(request).token_counts == [1_000_000]


def test_a_long_text_full_of_signs_is_no_list_of_values() -> None:
    text = '{"a": [1, 2, {}]}, ' * 60_000
    assert read_request("chat", chat(messages=[{"role": "user", "content": text}])).messages is not None
    assert read_prompts(read_request("completions", json.dumps({"prompt": text}).encode())).texts == [text]


# --- media ------------------------------------------------------------------------------------------------------------


def urls(*parts: str, role: str = "user") -> list[str]:
    """The addresses in a message of these parts."""
    body = '{"messages":[{"role":"%s","content":[%s]}]}' % (role, ",".join(parts))  # noqa: UP031 - braces everywhere
    return media_urls(read_request("chat", body.encode()))


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"image_url","image_url":{"url":"URL"}}',
        '{"type":"image_url","image_url":"URL"}',
        '{"image_url":{"url":"URL"}}',
        '{"type":"text","text":"x","image_url":{"url":"URL"}}',
        '{"type":"input_image","image_url":"URL"}',
        '{"type":"input_image","input_image":{"image_url":"URL"}}',
        '{"type":"audio_url","audio_url":{"url":"URL"}}',
        '{"type":"video_url","video_url":{"url":"URL","detail":"low"}}',
        '{"type":"file","file":{"file_data":"URL"}}',
        '{"type":"file","file":{"file_url":"URL","file_id":"f"}}',
        '{"type":"x","image\\u005furl":{"\\u0075rl":"URL"}}',
    ],
)
@pytest.mark.parametrize("role", ["user", "tool", "system"])
def test_an_address_is_found_in_every_shape_that_an_engine_reads(part: str, role: str) -> None:
    assert urls('{"type":"text","text":"x"}', part.replace("URL", EVIL), role=role) == [EVIL]


@pytest.mark.parametrize("value", ["null", "1", '["x"]', '{"url":null}', '{"url":["x"]}', "{}", '{"detail":"low"}'])
def test_a_medium_whose_address_cannot_be_read_comes_as_an_empty_one(value: str) -> None:
    assert urls('{"type":"image_url","image_url":%s}' % value) == [""]  # noqa: UP031  the braces are JSON's


def test_texts_and_names_of_files_are_no_addresses() -> None:
    assert urls('{"type":"text","text":"see %s"}' % EVIL, '{"type":"file","file":{"file_id":"f-1"}}') == []  # noqa: UP031  the braces are JSON's


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"image_url","image_url":{"url":"EVIL","url":"GOOD"}}',
        '{"type":"image_url","image_url":{"url":"GOOD","url":"EVIL"}}',
        '{"type":"image_url","image_url":{"url":"EVIL","\\u0075rl":"GOOD"}}',
        '{"image_url":{"url":"EVIL"},"type":"image_url","image_url":{"url":"GOOD"}}',
        '{"image_url":{"url":"EVIL"} , "type":"image_url", "image\\u005furl" : {"url":"GOOD"}}',
        '{"type":"text","text":"a","text":"b"},{"type":"image_url","image_url":{"url":"GOOD"}}',
    ],
)
def test_a_field_given_twice_beside_media_is_refused(part: str) -> None:
    part = part.replace("EVIL", EVIL).replace("GOOD", GOOD)
    body = '{"messages":[{"role":"user","content":[%s]}]}' % part  # noqa: UP031  the braces are JSON's
    assert "twice" in refused("chat", body.encode()).message


def test_a_message_that_gives_its_content_twice_is_refused_where_media_are() -> None:
    body = '{"messages":[{"role":"user","content":"x","content":[{"image_url":{"url":"%s"}}]}]}' % GOOD  # noqa: UP031  the braces are JSON's
    assert "twice" in refused("chat", body.encode()).message


@given(
    st.binary(max_size=200)
    | st.binary(max_size=5).map(lambda odd: b'[{"role":"u","content":[{"image_url":{"' + odd + b'":1}}]}]')
)
def test_reading_raises_nothing_but_a_refusal(data: bytes) -> None:
    for endpoint in ("chat", "completions", "embeddings"):
        try:
            request = read_request(endpoint, b'{"messages":' + data + b',"prompt":' + data + b"}")
        except BadRequest:
            continue
        media_urls(request)


def test_a_field_left_out_is_no_field() -> None:
    request = read_request("chat", chat())
    assert not memoryview(request.prompt_embeds)
    assert not memoryview(msgspec.structs.asdict(request)["vllm_xargs"])
    assert isinstance(request, Request)
