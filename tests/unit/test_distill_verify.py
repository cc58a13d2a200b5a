"""Verifiers: what makes an answer right."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.distilljob import Verifier
from modeltiers.domain.distill.numbers import last_number, number_of
from modeltiers.domain.distill.verify import BadVerifier, judge, judgeable, needing, text_of, trace_length


def verifier(kind: str, **more: Any) -> Verifier:
    """A verifier of a type."""
    return Verifier.model_validate({"name": "check", "type": kind, **more})


def right(kind: str, text: str, expected: Any = None, **more: Any) -> bool:
    """Whether one verifier calls an answer right."""
    return judge([verifier(kind, **more)], text, expected).right


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("15", 15),
        ("7 plus 8 is 15.", 15),
        ("**15**", 15),
        (r"\boxed{15}", 15),
        ("#### 15", 15),
        ("15 kg, or 15kg", 15),
        ("1,234,567.5", Fraction("1234567.5")),
        ("1, 2, 3", 3),
        ("1,2,3", 3),
        ("$1,200", 1200),
        ("-$3", -3),
        ("x = -5", -5),
        ("x = −5", -5),
        ("it is -5.", -5),
        ("7-5", 5),
        ("7 - 5", 5),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        ("5/0", 5),
        (".5", Fraction(1, 2)),
        ("2.5e3", 2500),
        ("1e-5", Fraction(1, 100_000)),
        ("3 × 10^8", 3 * 10**8),
        ("\uff11\uff15", 15),
        ("50%", 50),
        ("1" * 500, None),
        ("none", None),
        ("", None),
        ("v2", None),
    ],
)
def test_the_last_number_is_read_exactly(text: str, number: Any) -> None:
    assert last_number(text) == number


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=1))
def test_every_whole_number_is_read_as_it_is_written(number: Fraction) -> None:
    assert last_number(f"The answer is {int(number):,}.") == number


@given(st.text())
def test_reading_a_number_never_fails(text: str) -> None:
    last_number(text)
    trace_length(text)


def test_what_is_expected_may_be_a_number_or_end_with_one() -> None:
    assert number_of(0.1) == Fraction(1, 10)
    assert number_of("so 7 + 8 = 15") == 15
    assert number_of(True) is None
    assert number_of([15]) is None


def test_numeric_within_its_tolerance_of_what_is_expected() -> None:
    assert right("Numeric", "about 101", 100, tolerancePermille=10)
    assert not right("Numeric", "about 102", 100, tolerancePermille=10)
    assert not right("Numeric", "15.0000001", 15)
    assert right("Numeric", "15.00", "15")
    assert not right("Numeric", "no idea", 15)


def test_exact_but_for_space_around() -> None:
    assert right("Exact", " Paris\n", "Paris")
    assert not right("Exact", "paris", "Paris")
    assert right("Exact", "15", 15)
    assert right("Exact", "true", True)


def test_contains_all_of_a_list() -> None:
    assert right("Contains", "It is Paris.", "Paris")
    assert right("Contains", "red and blue", ["blue", "red"])
    assert not right("Contains", "red", ["blue", "red"])


@pytest.mark.parametrize(
    ("text", "expected", "good"),
    [
        ('{"a": 1}', None, True),
        ('{"a": 1}', {"a": 1}, True),
        ('{"a": 1.0}', '{"a": 1}', True),
        ('{"a": true}', {"a": 1}, False),
        ('[1, {"b": null}]', [1, {"b": None}], True),
        ("[1]", [1, 2], False),
        ('"x"', "x", True),
        ('{"a": 1} ', {"a": 1}, True),
        ('```json\n{"a": 1}\n```', {"a": 1}, False),
        ("NaN", None, False),
        ("[" * 100_000, None, False),
    ],
)
def test_json_equal_to_what_is_expected(text: str, expected: Any, good: bool) -> None:
    assert right("Json", text, expected) is good


def test_json_of_its_schema() -> None:
    schema = '{"type": "object", "required": ["a"]}'
    assert right("Json", '{"a": 1}', schemaText=schema)
    verdict = judge([verifier("Json", schemaText=schema)], "{}", None)
    assert (verdict.failed, verdict.malformed) == ("check", False)
    assert "is not of the schema" in verdict.why
    assert judge([verifier("Json")], "so: {}", None).malformed


def test_regex_matches_somewhere() -> None:
    assert right("Regex", "so: yes", pattern="yes|no")
    assert not right("Regex", "maybe", pattern="yes|no")


@pytest.mark.parametrize("kind", ["Exact", "Contains", "Numeric"])
def test_without_anything_expected_nothing_is_right(kind: str) -> None:
    assert not right(kind, "15")
    assert needing([verifier("Json"), verifier(kind)]) == "check"
    assert not judgeable([verifier(kind)], None)
    assert judgeable([verifier(kind)], "15")


def test_what_verifiers_can_use_of_what_is_expected() -> None:
    assert not judgeable([verifier("Numeric")], "fifteen")
    assert not judgeable([verifier("Contains")], [])
    assert not judgeable([verifier("Exact")], "  ")
    assert judgeable([verifier("Json"), verifier("Regex", pattern="x")], None)


def test_all_must_agree_and_the_first_that_does_not_is_named() -> None:
    both = [verifier("Numeric"), Verifier.model_validate({"name": "short", "type": "Regex", "pattern": "^.{1,3}$"})]
    assert judge(both, "15", 15).right
    assert judge(both, "it is 15", 15).failed == "short"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (verifier("Regex", pattern="("), r"verifiers\[check\].pattern: RE2 does not take"),
        (verifier("Json", schemaText="{]"), r"verifiers\[check\].schemaText: is no JSON schema"),
        (verifier("Json", schemaText='{"type": 7}'), r"verifiers\[check\].schemaText"),
        (verifier("Json", schemaText='{"$ref": "http://example.org/x"}'), r"verifiers\[check\].schemaText"),
    ],
)
def test_a_verifier_that_cannot_be_run_names_its_field(bad: Verifier, field: str) -> None:
    with pytest.raises(BadVerifier, match=field):
        judge([bad], "{}", None)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("15", "15"),
        ("<think>7 and 8</think>\n\n15", "15"),
        ("7 and 8</think>15", "15"),
        ("<think>cut off", ""),
        ("<reasoning>a</reasoning> b <think>c</think>", "b <think>c</think>"),
        ("a < b </ c", "a < b </ c"),
    ],
)
def test_a_reasoning_trace_is_not_judged(content: str, text: str) -> None:
    assert text_of({"role": "assistant", "content": content}) == text


def test_without_text_the_calls_of_tools_are_judged_as_json() -> None:
    function = {"name": "add", "arguments": '{"a":7}'}
    answer = {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
    assert right("Json", text_of(answer), [{"name": "add", "arguments": {"a": 7}}])
    assert text_of({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}).endswith('"{"}]')
