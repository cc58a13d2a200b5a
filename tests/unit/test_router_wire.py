"""Bodies as bytes: where fields lie, what is changed and what never is, and that no body costs more than its length."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing import census
from modeltiers.router.wire import MOST_FIELDS, BadBody, Body

WRITERS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":")},
    "spaced": {},
    "indented": {"indent": 2},
    "odd": {"separators": (" ,\r\n", "\t: ")},
    "not ASCII": {"ensure_ascii": False},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=6), JSON, max_size=6)


@given(OBJECTS, st.sampled_from(sorted(WRITERS)))
def test_spans_are_where_the_values_are(fields: dict[str, Any], writer: str) -> None:
    raw = json.dumps(fields, **WRITERS[writer]).encode()
    spans = Body(raw).spans()
    assert list(spans) == list(fields)
    assert {key: json.loads(raw[begin:end]) for key, (begin, end) in spans.items()} == fields


@given(OBJECTS, st.dictionaries(st.sampled_from(["model", "n", "é", '"\\']), JSON, max_size=3), st.data())
def test_changes_change_their_fields_and_no_other_byte(
    fields: dict[str, Any], changes: dict[str, Any], data: st.DataObject
) -> None:
    raw = json.dumps(fields, **WRITERS[data.draw(st.sampled_from(sorted(WRITERS)))]).encode()
    changes = {key: value for key, value in changes.items() if key != '"\\' or key in fields}
    body = Body(raw)
    changed = body.with_changes({key: json.dumps(value).encode() for key, value in changes.items()})
    assert json.loads(changed) == fields | changes
    before, after = body.spans(), Body(changed).spans()
    assert list(after)[: len(before)] == list(before)
    for key, (begin, end) in before.items():
        if key not in changes:
            at, to = after[key]
            assert changed[at:to] == raw[begin:end]
    if not changes:
        assert changed == raw


TWICE = [
    b'{"a":1,"a":1}',
    b'{"a":1,"a":2}',
    b'{"a":1, "a":22}',
    b'{"a":22,"a":1}',
    b'{"a":1,"\\u0061":1}',
    b'{"a":1,"b":2,"a":1}',
    b'{"a":{"b":2},"b":2,"a":[1]}',
    b'{"a":{"x":1,"b":2},"b":3,"a":[1234]}',
    b'{ "a":"\\"a\\":1","a":"x" }',
    b'{"":1,"":2}',
]


@pytest.mark.parametrize("raw", TWICE, ids=str)
def test_a_key_given_twice_is_refused_however_it_is_written(raw: bytes) -> None:
    with pytest.raises(BadBody, match="twice"):
        Body(raw)


@given(st.integers(0, 2**32))
def test_a_key_given_twice_is_refused_wherever_it_stands(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - it makes bodies, no secrets
    values = ["1", "12", '"x"', "[1]", '{"a":1}', '{"a":1,"b":[2]}', '"\\"a\\":1"', "[]", "null"]
    keys = ["a", "b", "c", "d"]
    chosen = dice.sample(keys, dice.randrange(1, 4))
    chosen.insert(dice.randrange(len(chosen) + 1), dice.choice(chosen))
    space = dice.choice(["", " ", "\n\t"])
    raw = "{" + ",".join(f'{space}"{key}"{space}:{space}{dice.choice(values)}{space}' for key in chosen) + "}"
    with pytest.raises(BadBody, match="twice"):
        Body(raw.encode())


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"[1]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"{", "not JSON"),
        (b'{"a":1}{}', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":"\xff"}', "not UTF-8: byte 6"),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "deep"),
    ],
)
def test_a_bad_body_is_refused_with_its_reason(raw: bytes, said: str) -> None:
    with pytest.raises(BadBody, match=said):
        Body(raw)


def test_more_top_level_fields_than_anybody_sends_are_refused() -> None:
    def body(count: int) -> bytes:
        return json.dumps({str(number): 0 for number in range(count)}).encode()

    assert len(Body(body(MOST_FIELDS)).spans()) == MOST_FIELDS
    with pytest.raises(BadBody, match=f"{MOST_FIELDS + 1} top-level fields"):
        Body(body(MOST_FIELDS + 1))


def test_many_fields_in_all_are_refused_before_objects_are_made_of_them() -> None:
    fields = b",".join(b'"%x":0' % number for number in range(census.MOST + 2))
    for raw in (b"{" + fields + b"}", b'{"x":{' + fields + b"}}", b'{"x":[{' + fields + b"}]}"):
        with pytest.raises(BadBody, match="more than 100000 fields"):
            Body(raw)


def test_signs_in_long_texts_are_no_fields() -> None:
    text = 'a "quoted": word, {and: [more]}\\ ' * 50_000
    raw = json.dumps({"messages": [{"role": "user", "content": text}], "n": 1}).encode()
    assert json.loads(Body(raw).with_changes({"n": b"2"})) == {**json.loads(raw), "n": 2}


GROWING: dict[str, Callable[[int], bytes]] = {
    "white space before a key": lambda size: b"{" + b" " * size + b'"a":1}',
    "white space behind a key": lambda size: b'{"a"' + b"\n" * size + b":1}",
    "white space around each field": lambda size: (
        b"{" + b",".join(b" " * (size // 900) + b'"%d" :1' % number for number in range(900)) + b"}"
    ),
    "white space at the end": lambda size: b'{"a":1' + b" " * size + b"}" + b" " * size,
    "a key of quotes": lambda size: b'{"' + b'\\"' * (size // 2) + b'": 1}',
    "a key of backslashes": lambda size: b'{"' + b"\\\\" * (size // 2) + b'": 1}',
    "keys of backslashes": lambda size: (
        b"{" + b",".join(b'"%b%d":1 ' % (b"\\\\" * (size // 1800), number) for number in range(900)) + b"}"
    ),
    "values of quotes": lambda size: (
        b"{" + b",".join(b'"%d":"%b" ' % (number, b'\\"' * (size // 1800)) for number in range(900)) + b"}"
    ),
    "many fields": lambda size: b"{" + b",".join(b'"%x":0' % number for number in range(size // 10)) + b"}",
    "many fields and quotes": lambda size: (
        b'{"x":"' + b'\\":' * (size // 6) + b'","y":{' + b",".join(b'"%x":0' % n for n in range(size // 20)) + b"}}"
    ),
}


def _seconds(raw: bytes) -> float:
    best = 9.0
    for _ in range(3):
        began = time.process_time()
        try:
            Body(raw).with_changes({"model": b'"x"', "a": b"2"})
        except BadBody as error:
            assert "fields" in str(error)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("case", GROWING)
def test_time_grows_with_the_length_of_a_body_and_no_faster(case: str) -> None:
    """Quadratic would be sixteen times for four times the length, and seconds for a megabyte."""
    small, large = _seconds(GROWING[case](2**18)), _seconds(GROWING[case](2**20))
    assert large < 0.1
    assert large < 9 * small + 0.02
