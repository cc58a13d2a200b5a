"""Rows: what may come in, what is refused with the field, what is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.distilljob import Scrub
from modeltiers.domain.distill.rows import KEYS, BadRow, Row, parse_line, read_row
from modeltiers.domain.distill.scrub import BadPattern, Scrubber

USER = {"role": "user", "content": "What is 7 plus 8?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 7,  "b": 8}'}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def row(**body: Any) -> Row:
    """A row of a source."""
    return read_row({"messages": [USER], **body}, "rows", "Any")


def test_a_row_keeps_its_messages_as_they_were() -> None:
    asked = [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "add"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
    ]
    found = row(messages=asked, tools=TOOLS)
    assert found.to_json()["messages"] == asked
    assert found.messages[2]["tool_calls"][0]["function"]["arguments"] == '{"a": 7,  "b": 8}'
    assert Row.from_json(found.to_json()) == found


def test_keys_come_in_one_order_and_only_where_there_is_something() -> None:
    plain = row(expected=None, tools=[], slice="", group=None)
    assert list(plain.to_json()) == ["id", "messages", "group", "slice", "source", "part"]
    full = row(expected=15, tools=TOOLS, slice="sums", group=3, messages=[USER, {"role": "assistant", "content": "15"}])
    assert list(full.to_json()) == [
        "id", "messages", "tools", "expected", "recorded", "group", "slice", "source", "part",
    ]  # fmt: skip
    assert full.group == "3"


def test_a_last_answer_is_what_was_recorded_and_no_part_of_the_prompt() -> None:
    found = row(messages=[USER, {"role": "assistant", "content": "15"}])
    assert (found.messages, found.recorded) == ([USER], "15")
    called = row(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}])
    assert (called.messages, called.recorded) == ([USER], None)


def test_the_id_is_of_content_and_part_not_of_group_slice_or_source() -> None:
    assert row().id == row(group="x", slice="y").id == read_row({"messages": [USER]}, "other", "Any").id
    assert row().id != row(expected=15).id
    assert row().id != read_row({"messages": [USER]}, "rows", "RedTeam").id
    assert row().group == row().id


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "is not JSON"),
        (b'{"messages": NaN}', "NaN is no number of JSON"),
        (b"[1]", "a list, not an object"),
        (b"null", "missing, not an object"),
        (b"\x1f\x8b\x08\x00", "not UTF-8: save it as UTF-8, uncompressed"),
        ('{"a": "ü"}'.encode("latin-1"), "byte 8 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'{"a": "\x00"}', "is not JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_object_of_json_is_refused(line: bytes, said: str) -> None:
    with pytest.raises(BadRow, match=said):
        parse_line(line)


def call(**changes: Any) -> list[Any]:
    """A conversation with a call in it."""
    function = {**CALL["function"], **changes}
    return [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": function}]}, USER]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": None}, r"messages: is missing: a row is \{"),
        ({"messages": "hi"}, "messages: is a text, not a list"),
        ({"messages": []}, "messages: is an empty list"),
        ({"messages": ["hi"]}, r"messages\[0\]: is a text, not"),
        ({"messages": [{"content": "hi"}]}, r"messages\[0\].role: is None, not one of system"),
        ({"messages": [{"role": "bot", "content": "hi"}]}, r"messages\[0\].role: is 'bot', not one of"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: is missing, not a text"),
        ({"messages": [{"role": "user", "content": 7}]}, r"messages\[0\].content: is a number, not a text"),
        ({"messages": [{"role": "user", "content": " \n"}]}, r"messages\[0\].content: is empty"),
        ({"messages": [{"role": "user", "content": []}]}, r"messages\[0\].content: is empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            r"messages\[0\].content\[0\]: .* only text is learnt from",
        ),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, r"messages\[1\].content: is missing"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "to be answered is missing"),
        ({"messages": [{"role": "system", "content": "hi"}]}, "to be answered is system's"),
        ({"messages": [USER, *[{"role": "assistant", "content": "hi"}] * 2]}, "to be answered is assistant's"),
        ({"messages": [USER, {"role": "tool", "content": "15"}]}, r"messages\[1\].tool_call_id: is missing"),
        ({"messages": [{**USER, "tool_calls": [CALL]}]}, "only the assistant calls tools, not user"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": {}}, USER]}, "tool_calls: is an object, not a list"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{}]}, USER]}, r"tool_calls\[0\]: is not"),
        ({"messages": call(arguments={"a": 7})}, "arguments: is an object: it must be the JSON text"),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, r"messages\[0\].content: has a NUL character at 2"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, r"messages\[0\].content: has half a character"),
        ({"expected": {"a": ["\x00"]}}, r"expected.a\[0\]: has a NUL"),
        ({"expected": json.loads("[" * 200 + "]" * 200)}, r"expected\[0\].*: is nested more than 64 deep"),
        ({"expected": float("inf")}, "expected: is a number too large for JSON"),
        ({"tools": {}}, "tools: is an object, not a list"),
        ({"tools": [{"name": "add"}]}, r"tools\[0\]: is not"),
        ({"group": ["a"]}, "group: must be a text"),
        ({"group": True}, "group: must be a text"),
        ({"group": "x" * 300}, "group: must be a text of at most 256"),
        ({"slice": 7}, "slice: is 7: it must be"),
        ({"slice": "a b"}, "slice: is 'a b': it must be"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_field(body: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRow, match=said):
        row(**body)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["user", "assistant", "tool"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "function", "text", "type"]), inner)
    ),
)


@given(st.fixed_dictionaries({"messages": JSON}, optional={"expected": JSON, "tools": JSON, "group": JSON}))
def test_whatever_comes_is_a_row_or_refused(body: dict[str, Any]) -> None:
    try:
        found = read_row(body, "rows", "Any")
    except BadRow:
        return
    kinds = Scrub(kinds=["Email", "Phone", "CardNumber", "Iban", "IpAddress"])
    again = json.loads(json.dumps(Scrubber(kinds).row(found).to_json()))
    assert Row.from_json(again).named().id == again["id"]


def scrubbed(found: Row, *kinds: str, **patterns: str) -> tuple[dict[str, Any], dict[str, int]]:
    """A row after scrubbing, and the counts."""
    own = [{"name": name, "pattern": pattern} for name, pattern in patterns.items()]
    scrubber = Scrubber(Scrub.model_validate({"kinds": kinds, "patterns": own}))
    return scrubber.row(found).to_json(), dict(scrubber.counts)


@pytest.mark.parametrize(
    ("kind", "text", "left"),
    [
        ("Email", "mail jo.doe+x@mail.example.org now", "mail [Email] now"),
        ("Email", "Ärger@example.org, a@b", "[Email], a@b"),
        ("Phone", "call +49 (0)30 1234-5678.", "call [Phone]."),
        ("Phone", "call 0049 30 12345678 or (555) 123-4567", "call [Phone] or [Phone]"),
        ("Phone", "030 1234567 or 555-123-4567", "[Phone] or [Phone]"),
        ("Phone", "order 12345678 of 2024-05-06 costs 1234.50", "order 12345678 of 2024-05-06 costs 1234.50"),
        ("CardNumber", "card 4111 1111 1111 1111!", "card [CardNumber]!"),
        ("CardNumber", "order 4111111111111112", "order 4111111111111112"),
        ("Iban", "to DE89 3704 0044 0532 0130 00 please", "to [Iban] please"),
        ("Iban", "to DE00 3704 0044 0532 0130 00 please", "to DE00 3704 0044 0532 0130 00 please"),
        ("IpAddress", "from 192.168.0.1 and fe80::1:2", "from [IpAddress] and [IpAddress]"),
        ("IpAddress", "version 1.2.3, 999.1.1.1, 10:30:00", "version 1.2.3, 999.1.1.1, 10:30:00"),
    ],
)
def test_well_known_forms_are_replaced_and_what_only_looks_like_them_is_not(kind: str, text: str, left: str) -> None:
    body, counts = scrubbed(row(messages=[{"role": "user", "content": text}]), kind)
    assert body["messages"][0]["content"] == left
    assert counts.get(kind, 0) == left.count("[")


def test_every_text_is_scrubbed_and_no_name_or_reference() -> None:
    mail = "jo@example.org"
    arguments = json.dumps({"to": mail})
    asked = [
        {"role": "system", "content": mail},
        {"role": "user", "content": [{"type": "text", "text": mail}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": mail, "type": "function", "function": {"name": "send", "arguments": arguments}}],
        },
        {"role": "tool", "tool_call_id": mail, "content": mail},
        {"role": "assistant", "content": f"sent to {mail}"},
    ]
    body, counts = scrubbed(row(messages=asked, expected={"name": mail, "to": [mail]}, group=mail), "Email")
    assert mail not in json.dumps({**body, "messages": [{**one, "tool_call_id": ""} for one in body["messages"][3:]]})
    assert body["messages"][2]["tool_calls"][0]["id"] == mail
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"to": "[Email]"}'
    assert body["expected"] == {"name": "[Email]", "to": ["[Email]"]}
    assert body["recorded"] == "sent to [Email]"
    assert counts == {"Email": 7}
    assert body["id"] == Row.from_json(body).named().id


def test_a_group_that_says_who_it_was_becomes_a_hash_that_still_tells_groups_apart() -> None:
    one, _ = scrubbed(row(group="jo@example.org"), "Email")
    other, _ = scrubbed(row(group="al@example.org"), "Email")
    assert "@" not in one["group"]
    assert one["group"] != other["group"]
    assert scrubbed(row(group="ticket-7"), "Email")[0]["group"] == "ticket-7"


def test_own_patterns_are_replaced_by_their_names() -> None:
    body, counts = scrubbed(row(messages=[{"role": "user", "content": "ticket AB-1234"}]), ticket="[A-Z]{2}-[0-9]{4}")
    assert body["messages"][0]["content"] == "ticket [ticket]"
    assert counts == {"ticket": 1}
    assert scrubbed(row(), nothing="x*")[0] == row().to_json()


def test_a_pattern_that_re2_does_not_take_names_its_field() -> None:
    with pytest.raises(BadPattern, match=r"spec.data.scrub.patterns\[bad\].pattern: RE2 does not take"):
        scrubbed(row(), bad="(")


def test_the_rows_that_the_documents_show_are_rows() -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith('{"messages"')]
    assert len(shown) == 2
    for line in shown:
        assert not parse_line(line.encode()).keys() - KEYS
        read_row(parse_line(line.encode()), "rows", "Any")
