"""Each kind of check: what passes, what fails and why, what is dear, and what a hostile schema or pattern can do."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.domain.routing import schema, validators
from modeltiers.domain.routing.answer import Answer, ToolCall
from modeltiers.domain.routing.arithmetic import false_statement
from modeltiers.domain.routing.ask import read_request
from modeltiers.domain.routing.forms import hedges, refuses
from modeltiers.domain.routing.language import languages
from modeltiers.domain.routing.question import Question, question_of
from modeltiers.domain.routing.remarks import PASSING, WHYS
from modeltiers.domain.routing.table import InvalidTable, Validator
from modeltiers.domain.routing.validators import Check, Ready, check_of, checked, dear, lost, run_check

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
EXPLODING = "(a|b)*a(a|b){180}c"
"""RE2's automaton for it has 2^180 states, so it falls back to following them all at once."""


def asked(last: str = "hello", system: str = "", **fields: Any) -> Question:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": last}]
    return question_of(read_request("chat", json.dumps({"messages": messages, **fields}).encode()))


def ready(kind: str, **fields: Any) -> Ready:
    return Ready(msgspec.convert({"name": "it", "kind": kind, **fields}, Validator), "it")


def why(kind: str, text: str, question: Question | None = None, **fields: Any) -> str | None:
    """Return why a check fails, or with which remark it passes."""
    found = checked(ready(kind, **fields), question or asked(), Answer(text=text))
    assert found.passed == (found.why is None or found.why in PASSING)
    return found.why


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"city": "Paris"}', None),
        ('{"town": "Paris"}', "SchemaMismatch"),
        ('{"city": "Paris"', "NotJSON"),
        ('```json\n{"city": "Paris"}\n```', "NotJSON"),
        ("", "NotJSON"),
        ("[" * 100_000, "NotJSON"),
    ],
)
def test_json_is_checked_against_the_policys_schema_and_the_requests(text: str, said: str | None) -> None:
    assert why("JSONSchema", text, schema=CITY) == said
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
    assert why("JSONSchema", text, asked(response_format=form)) == said
    assert why("JSONSchema", text, asked(structured_outputs={"json": CITY})) == said
    assert why("JSONSchema", text, asked(structured_outputs={"json": json.dumps(CITY)})) == said


def test_without_a_schema_there_is_nothing_to_check() -> None:
    assert why("JSONSchema", "hello") == "NotAsked"
    assert why("JSONSchema", "hello", asked(response_format={"type": "json_object"})) == "NotAsked"


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "other.json#/a"])
def test_a_reference_out_of_a_schema_is_refused(target: str) -> None:
    bad = {"type": "object", "properties": {"a": {"$ref": target}}}
    with pytest.raises(InvalidTable, match=r"it\.schema: cannot be used: refers to .*outside itself"):
        ready("JSONSchema", schema=bad)
    form = {"type": "json_schema", "json_schema": {"schema": bad}}
    assert why("JSONSchema", "{}", asked(response_format=form)) == "SchemaRefused"


@pytest.mark.parametrize(
    "bad",
    [
        {"type": 7},
        {"pattern": "("},
        {"$ref": "#/$defs/none"},
        {"description": "x" * (schema.BYTES + 1)},
        {"items": json.loads('{"items":' * 80 + "{}" + "}" * 80)},
        {"pattern": "((a{1,100}){1,100}){1,100}"},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_path(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidTable, match=r"it\.schema: cannot be used"):
        ready("JSONSchema", schema=bad)


def test_a_schema_whose_cost_has_no_bound_never_runs_in_this_process() -> None:
    doubling = {"$defs": {"a": {"allOf": [{"items": {"$ref": "#/$defs/a"}}] * 2}}, "$ref": "#/$defs/a"}
    for one in (doubling, {"uniqueItems": True}, {"$ref": "#"}, {"items": {"$ref": "#"}}):
        assert schema.cost(one) == schema.ENDLESS
        form = {"type": "json_schema", "json_schema": {"schema": one}}
        assert dear(ready("JSONSchema"), asked(response_format=form), Answer(text="[]"))
    wide: dict[str, Any] = {"$defs": {"z": {}}}
    for level in range(12):
        wide["$defs"][f"a{level}"] = {"anyOf": [{"$ref": f"#/$defs/a{level + 1}" if level < 11 else "#/$defs/z"}] * 10}
    assert schema.cost({**wide, "$ref": "#/$defs/a0"}) == schema.ENDLESS
    assert schema.cost(CITY) < 5


@pytest.mark.parametrize("pattern", [r"\pL", r"(ab|c.d){1,60}", r"\w+\s\w+\s\w+"])
def test_a_clients_schema_whose_patterns_take_long_to_make_ready_is_dear(pattern: str) -> None:
    one = {"anyOf": [{"pattern": f"{pattern}{index}"} for index in range(40)]}
    form = {"type": "json_schema", "json_schema": {"schema": one}}
    assert dear(ready("JSONSchema"), asked(response_format=form), Answer(text='"a"'))


# --- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "choice", "said"),
    [
        ([("get_weather", '{"city":"Paris"}')], "auto", None),
        ([("get_weather", '{"town": 7}')], "auto", "ArgumentsMismatch"),
        ([("get_weather", "{city}")], "auto", "ArgumentsNotJSON"),
        ([("get_weather", "[1]")], "auto", "ArgumentsNotJSON"),
        ([("get_time", "{}")], "auto", "UnknownTool"),
        ([("get_weather", '{"city":"Paris"}'), ("get_time", "{}")], "auto", "UnknownTool"),
        ([("get_weather", '{"city":"Paris"}')], "none", "CallUnwanted"),
        ([("get_weather", '{"city":"Paris"}')], {"type": "function", "function": {"name": "other"}}, "CallUnwanted"),
        ([], "required", "CallMissing"),
        ([], {"type": "function", "function": {"name": "get_weather"}}, "CallMissing"),
        ([], "auto", None),
    ],
)
def test_calls_are_checked_against_the_requests_tools(
    calls: list[tuple[str, str]], choice: Any, said: str | None
) -> None:
    question = asked(tools=[WEATHER], tool_choice=choice)
    answer = Answer(text="", tool_calls=tuple(ToolCall(*call) for call in calls))
    found = checked(ready("ToolArguments"), question, answer)
    assert (found.why, found.passed) == (said, said is None)
    assert run_check(check_of(ready("ToolArguments"), question, answer)) == found


def test_a_call_that_the_engine_left_in_the_text_is_none() -> None:
    question = asked(tools=[WEATHER])
    assert why("ToolArguments", '<tool_call>{"name": "get_weather"', question) == "CallUnread"
    assert why("ToolArguments", "The weather is fine.", question) is None
    assert why("ToolArguments", "The weather is fine.") == "NotAsked"


def test_a_tool_without_parameters_takes_any_object_and_none() -> None:
    question = asked(tools=[{"type": "function", "function": {"name": "now"}}])
    for arguments in ("", "{}", '{"a":1}'):
        answer = Answer(tool_calls=(ToolCall("now", arguments),))
        assert checked(ready("ToolArguments"), question, answer).passed


def test_checks_of_text_pass_an_answer_that_only_calls_tools() -> None:
    answer = Answer(tool_calls=(ToolCall("now", "{}"),))
    for kind, fields in (
        ("JSONSchema", {"schema": CITY}),
        ("Pattern", {"patterns": ["x"]}),
        ("NumericAnswer", {}),
        ("Form", {"form": "List"}),
        ("Language", {"language": "de"}),
        ("Length", {"minChars": 5}),
    ):
        assert checked(ready(kind, **fields), asked(), answer).why == "OnlyCalls"


# --- text -------------------------------------------------------------------------------------------------------------


def test_patterns_must_be_there_or_must_not() -> None:
    assert why("Pattern", "order 66", patterns=["nope", r"\d{2}"]) is None
    assert why("Pattern", "order", patterns=[r"\d{2}"]) == "NotFound"
    assert why("Pattern", "order 66", patterns=[r"\d{2}"], absent=True) == "Found"
    assert why("Pattern", "größer", patterns=["(?i)GRÖSSER|GRÖßER"]) is None


def test_a_pattern_that_re2_does_not_take_is_named() -> None:
    with pytest.raises(InvalidTable, match=r"it\.patterns\[1\]: RE2 does not take"):
        ready("Pattern", patterns=["a", r"(a)\1"])


TRUE = [
    "2 + 2 = 4", "So 12 * 12 = 144.", "10 / 4 = 2.5", "10 / 3 = 3.33", "2 / 3 = 0.67", "1,000 + 250 = 1,250",
    "0.1 + 0.2 = 0.3", "$5 + $6 = $11", "7 - 9 = -2", "2 × 3 = 6", r"2 \times 3 = 6", "**2 + 2 = 4**", "3 x 4 = 12",
    # Not understood, so passed over: pieces of longer statements, other bases, code, German decimals.
    "1 + 2 + 3 = 6", "2 + 3 = 5 * 1", "1/2 + 1/3 = 5/6", "1 + 2**3 = 9", "2 + 3 = 5x", "x2 + 3 = 9", "50% + 20% = 70%",
    "1.500 + 500 = 2.000", "3,5 + 1,5 = 5", "```\nassert 2 + 2 = 5\n```", "2 + 2 == 5", "(1 + 1) * 2 + 2 = 6",
    "a = 5", "2024-01-01 = today", "4 x 2 + 3 = 11", "100 - 20 = 80%", "1 + 1 = 2.5.1",
]  # fmt: skip
FALSE = [
    "2 + 2 = 5", "So 12 * 12 = 145.", "10 / 4 = 2.6", "7 / 2 = 3", "1,000 + 250 = 1,350", "0.1 + 0.2 = 0.4",
    "$5 + $6 = $12", "5 / 0 = 0", "2 × 3 = 5", "**2 + 2 = 5**", "it is 4 + 4 = 9, so", "First: 3 - 1 = 1\nThen",
    "1.5 + 1.5 = 3.1", "2 + 2 = **5**",
]  # fmt: skip


@pytest.mark.parametrize("text", TRUE)
def test_arithmetic_that_holds_or_is_not_understood_passes(text: str) -> None:
    assert not false_statement(text)


@pytest.mark.parametrize("text", FALSE)
def test_wrong_arithmetic_is_found(text: str) -> None:
    assert false_statement(text)


@given(st.integers(-(10**6), 10**6), st.integers(0, 10**6), st.sampled_from("+-*"), st.integers(-3, 3))
def test_arithmetic_is_exact(a: int, b: int, operator: str, off: int) -> None:
    exact = {"+": a + b, "-": a - b, "*": a * b}[operator]
    assert false_statement(f"we get {a} {operator} {b} = {exact + off}, as said") == (off != 0)


def test_a_number_must_be_there_where_one_was_asked_for() -> None:
    question = asked("How many days has a week?")
    assert why("NumericAnswer", "It has 7.", question) is None
    assert why("NumericAnswer", "It has seven days.", question) is None
    assert why("NumericAnswer", "It has some days.", question) == "NoNumber"
    assert why("NumericAnswer", "It has some days.", asked("Hello!")) == "NotAsked"
    assert why("NumericAnswer", "Hello, 2 + 2 = 5", asked("Hello!")) == "ArithmeticWrong"


FORMS = [
    ("JSON", "Return only JSON.", '{"a": 1}', "a is 1"),
    ("JSON", "Answer in JSON", 'Here:\n```json\n{"a": 1}\n```\n', "```json\n{a}\n```"),
    ("List", "Give me a list of colours", "- red\n- blue", "red and blue"),
    ("List", "List the planets", "1. Mercury\n2. Venus", "Mercury, Venus"),
    ("Table", "Show me a table of costs", "| a | b |\n|---|---|\n| 1 | 2 |", "a is 1, b is 2"),
    ("Code", "Write a Python function that adds", "```python\ndef f(): ...\n```", "You add them."),
    ("YesNo", "Answer yes or no: is it late?", "Yes, it is.", "It depends on the clock"),
    ("YesNo", "Antworte ja oder nein", "Nein.", "Vielleicht"),
    ("Choice", "Which?\nA) red\nB) blue", "The answer is (B).", "Probably blue"),
    ("Number", "How much is it?", "About 5 euros", "Not much"),
]


@pytest.mark.parametrize(("form", "question", "good", "bad"), FORMS)
def test_a_form_counts_where_the_request_asks_for_it(form: str, question: str, good: str, bad: str) -> None:
    assert why("Form", good, asked(question), form=form) is None
    assert why("Form", bad, asked(question), form=form) == "FormMissing"
    assert why("Form", bad, asked("Tell me something."), form=form) == "NotAsked"
    assert why("Form", good, asked("Now.", question), form=form) in (None, "NotAsked")


def test_the_system_message_and_json_mode_ask_for_forms_too() -> None:
    assert why("Form", "Perhaps", asked("Is it?", "Always answer yes or no."), form="YesNo") == "FormMissing"
    assert why("Form", "no json", asked(response_format={"type": "json_object"}), form="JSON") == "FormMissing"


ENGLISH = "The answer is that we must look at how it was built, and then at what it costs to run for the year."
GERMAN = "Die Antwort ist, dass wir zuerst sehen, wie es gebaut ist, und dann, was es für das Jahr kostet."
FRENCH = "La réponse est que nous devons voir comment il est fait, et ce que cela coûte pour une année dans le pays."
RUSSIAN = "Ответ в том, что сначала надо посмотреть, как это устроено, и сколько это стоит."
CHINESE = "答案是我们首先要看它是怎么建造的。"
JAPANESE = "まず、それがどのように作られているかを見なければなりません。"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENGLISH, "en"), (GERMAN, "de"), (FRENCH, "fr"), (CHINESE, "zh"), (JAPANESE, "ja"), (RUSSIAN, "ru"),
        ("La respuesta es que primero hay que ver cómo está hecho y lo que cuesta para el año en un país.", "es"),
        ("De vraag is niet wat het kost, maar hoe het voor een jaar op de markt wordt gezet.", "nl"),
        ("42", None), ("OK", None), ("Paris, London, Berlin, Madrid, Rome, Lisbon, Vienna, Prague", None),
        ("```\nfor the of and to is in that it was for\n```", None),
    ],
)  # fmt: skip
def test_a_language_is_told_only_where_it_can_be(text: str, said: str | None) -> None:
    found = languages(text)
    assert (said in found) if said else not found


def test_an_answer_is_in_the_language_of_the_prompt_or_the_one_asked_for() -> None:
    assert why("Language", GERMAN, asked(GERMAN)) is None
    assert why("Language", ENGLISH, asked(GERMAN)) == "OtherLanguage"
    assert why("Language", CHINESE, asked(ENGLISH)) == "OtherLanguage"
    assert why("Language", FRENCH, asked(f"Translate into French: {ENGLISH}")) is None
    assert why("Language", ENGLISH, asked(f"Translate into French: {ENGLISH}")) == "OtherLanguage"
    assert why("Language", ENGLISH, asked("Say it in French and in German, please")) == "CannotTell"
    assert why("Language", ENGLISH, asked("Hi")) == "CannotTell"
    assert why("Language", ENGLISH, asked("Hi"), language="de") == "OtherLanguage"
    assert why("Language", ENGLISH, asked("Hi"), language="fi") == "CannotTell"


def test_length_counts_characters() -> None:
    assert why("Length", "four", minChars=4, maxChars=4) is None
    assert why("Length", "four", minChars=5) == "TooShort"
    assert why("Length", "four", maxChars=3) == "TooLong"


REFUSALS = [
    "I'm sorry, but I can't help with that.", "I cannot provide instructions for that.", "I’m unable to access it.",
    "As an AI language model, I have no body.", "Unfortunately, I can't answer this.", "I am sorry, I cannot do this.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.", "Je suis désolé, mais non.", "Lo siento, pero no.",
    "抱歉，我无法回答。",
]  # fmt: skip
HEDGES = ["I don't know.", "I do not know, perhaps 17 or so.", "I'm not sure about it.", "I have no idea what it is."]
PLAIN = [
    "The answer is 42.", "You can't do that in Python 2; use Python 3.", "He said he cannot help it.",
    "The service is unable to start because the port is taken.", "Sorry to hear that! Try to restart the router.",
    "I can help you with that.", "It is not certain that prices rise.", "You may not know this, but it is so.",
    "A cat can't provide milk for a litter of ten.", "Perhaps it will rain.",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_found_at_the_beginning(text: str) -> None:
    assert why("Refusal", text) == "Refused"
    assert not refuses("The tier answers as follows. " * 10 + text)


@pytest.mark.parametrize("text", HEDGES)
def test_hedges_are_found_at_both_ends(text: str) -> None:
    assert why("Refusal", text) == "Hedged"
    assert hedges("It has been said. " * 40 + text)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_answers_are_no_refusals(text: str) -> None:
    assert why("Refusal", text) is None


def test_the_replys_own_refusal_counts() -> None:
    assert checked(ready("Refusal"), asked(), Answer(refusal="no")).why == "Refused"


@pytest.mark.parametrize(
    ("end", "said"), [("stop", None), ("length", "CutAtLength"), ("content_filter", "ContentFilter"), (None, None)]
)
def test_an_answer_that_was_cut_fails(end: str | None, said: str | None) -> None:
    assert checked(ready("Finish"), asked(), Answer(text="x", finish_reason=end)).why == said


# --- early ------------------------------------------------------------------------------------------------------------

EARLY = [
    (ready("JSONSchema", schema=CITY), ["Sure! {}", '{"a": 1}', "  {", "", "no"]),
    (
        ready("Pattern", patterns=[r"\bend\b", "x$"], absent=True),
        ["x", "the end", "the end.", "ending", "xy", "an x\n"],
    ),
    (ready("Length", maxChars=4), ["abc", "abcd", "abcde"]),
    (ready("Refusal"), [*REFUSALS, *PLAIN, "I don't know."]),
    (ready("Finish"), ["x"]),
]


@pytest.mark.parametrize(
    ("one", "examples"), EARLY, ids=lambda value: value.spec.kind if hasattr(value, "spec") else ""
)
def test_what_is_lost_early_is_lost_at_the_end(one: Ready, examples: list[str]) -> None:
    for text in examples:
        for more in ("", "ing", " and so on.", "\nx"):
            whole = text + more
            for end in range(len(whole) + 1):
                found = lost(one, asked(), Answer(text=whole[:end]))
                if found is not None:
                    assert not found.passed
                    assert not checked(one, asked(), Answer(text=whole)).passed, (whole[:end], whole)


def test_what_can_be_told_early_is() -> None:
    for one, text in (
        (ready("JSONSchema", schema=CITY), "Sure, here"),
        (ready("Pattern", patterns=["secret"], absent=True), "the secret is"),
        (ready("Length", maxChars=4), "12345"),
        (ready("Refusal"), "I'm sorry, but I can't help with "),
    ):
        assert lost(one, asked(), Answer(text=text)) is not None


# --- dear, and total --------------------------------------------------------------------------------------------------

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JSONSchema", {"schema": CITY}), ("JSONSchema", {}), ("ToolArguments", {}), ("Pattern", {"patterns": [r"\d+"]}),
    ("Pattern", {"patterns": ["a+b"], "absent": True}), ("NumericAnswer", {}), ("Form", {"form": "JSON"}),
    ("Form", {"form": "Table"}), ("Form", {"form": "Choice"}), ("Language", {}), ("Length", {"minChars": 3}),
    ("Refusal", {}), ("Finish", {}),
]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200), st.text(max_size=100), st.sampled_from(KINDS), st.binary(max_size=40))
def test_checks_take_anything_and_say_the_same_in_another_process(
    text: str, prompt: str, kind: tuple[str, dict[str, Any]], noise: bytes
) -> None:
    one = ready(kind[0], **kind[1])
    question = asked(prompt, tools=[WEATHER], response_format={"type": "json_schema", "json_schema": {"schema": CITY}})
    answer = Answer(text=text, tool_calls=(ToolCall("get_weather", noise.decode("latin-1")),) if noise else ())
    here = checked(one, question, answer)
    assert here.why != "Crashed"
    assert here.why is None or here.why in WHYS
    if kind[0] not in ("Language", "Refusal", "Finish"):  # these are never dear
        check = check_of(one, question, answer)
        there = msgspec.msgpack.decode(msgspec.msgpack.encode(check), type=Check)
        assert run_check(there) == here


def test_a_check_that_throws_has_failed() -> None:
    broken = ready("Length", minChars=1)
    broken.run = lambda *_: 1 / 0  # type: ignore[assignment]  # made to fail on purpose
    found = checked(broken, asked(), Answer(text="x"))
    assert (found.passed, found.why) == (False, "Crashed")
    assert (
        run_check(Check(Validator(name="it", kind="Pattern", patterns=("(",)), validators.Wish(), "")).why == "Crashed"
    )


def test_long_texts_and_heavy_patterns_are_dear() -> None:
    long = Answer(text="a" * (validators.CHARS + 1))
    assert dear(ready("NumericAnswer"), asked(), long)
    assert dear(ready("JSONSchema", schema=CITY), asked(), long)
    assert dear(ready("Pattern", patterns=[EXPLODING]), asked(), Answer(text="a" * 1000))
    calls = Answer(tool_calls=(ToolCall("now", "{}"),) * (validators.CALLS + 1))
    assert dear(ready("ToolArguments"), asked(tools=[WEATHER]), calls)
    assert not dear(ready("Pattern", patterns=[r"\border \d{3,9}\b"]), asked(), Answer(text="a" * 1000))
    for kind in ("Language", "Refusal", "Length", "Finish"):
        fields = {"minChars": 1} if kind == "Length" else {}
        assert not dear(ready(kind, **fields), asked(), long)


WORST = [
    (ready("Pattern", patterns=[EXPLODING]), "ab" * 230),
    (ready("NumericAnswer"), "1" * (validators.CHARS - 200) + "1 + 1 = 2 " * 20),
    (ready("NumericAnswer"), "111111111111111 + 1 = 1" * 700),
    (ready("NumericAnswer"), "```" * 5000),
    (ready("NumericAnswer"), "1**" * 5000 + "="),
    (ready("Form", form="Table"), "|" * validators.CHARS),
    (ready("Form", form="List"), "\n" * validators.CHARS),
    (ready("Form", form="Code"), "<a" * 8000),
    (ready("Form", form="JSON"), "```json\n" * 2000),
    (ready("Form", form="YesNo"), "word " * 3000),
    (ready("Language"), "the of and to " * 2000),
    (ready("Language"), "и то же " * 2000),
    (ready("Language"), "```" * 5000),
    (ready("Refusal"), "i i'm sorry, sorry, " * 500),
    (ready("JSONSchema", schema={"items": {"items": CITY}}), "[" * 200 + "]" * 200),
]


@pytest.mark.parametrize(("one", "text"), WORST, ids=[f"{i}-{one.spec.kind}" for i, (one, _) in enumerate(WORST)])
def test_the_worst_text_takes_about_a_millisecond_or_is_dear(one: Ready, text: str) -> None:
    question = asked("Give me a list, in JSON, as a table. Write code. Yes or no? How many?\nA) x\nB) y")
    answer = Answer(text=text)
    if dear(one, question, answer):
        return
    best = min(_seconds(one, question, answer) for _ in range(5))
    assert best < 0.005, f"{best * 1000:.2f} ms"  # five times the bound: the machine may be busy


def _seconds(one: Ready, question: Question, answer: Answer) -> float:
    began = time.process_time()
    checked(one, question, answer)
    return time.process_time() - began


def test_a_hostile_prompt_is_read_in_time() -> None:
    for prompt in (
        "\n" * 4000,
        "in " * 1400,
        "write " * 700,
        "a list " * 600,
        "A)\n" * 1300,
        "what is 1" + "1 " * 2000,
    ):
        began = time.process_time()
        asked(prompt).forms  # noqa: B018 - what it costs is the point
        assert time.process_time() - began < 0.02
