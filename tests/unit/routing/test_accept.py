"""The verdict on an answer: from real replies, from every sign, early and at the end, and again from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.domain.routing import accept as accept_module
from modeltiers.domain.routing.accept import (
    REASONS,
    Evidence,
    Reason,
    Verdict,
    accept,
    compile_accept,
    dear,
    evidence,
    judge,
)
from modeltiers.domain.routing.answer import Answer, Logs, Watch, read_answer
from modeltiers.domain.routing.ask import read_request
from modeltiers.domain.routing.confidence import ENTROPY, FUSION, GIVE_UP_TOKENS, MARGIN, QUANTILE, Signals, hopeless
from modeltiers.domain.routing.question import Question, question_of
from modeltiers.domain.routing.remarks import WHYS, Result
from modeltiers.domain.routing.table import InvalidTable, Policy
from modeltiers.domain.routing.validators import CHARS, SCHEMA_BYTES, STEPS, SUBSCHEMAS, VISITS, run_check

CAPTURES = Path(__file__).parents[2] / "router" / "captures"


def policy(**fields: Any) -> Policy:
    document = {"name": "p", "model": "p", "tiers": ["small", "large"], "mode": "Cascade", "accept": fields}
    return msgspec.convert(document, Policy)


def question(name: str) -> Question:
    return question_of(read_request("chat", (CAPTURES / f"{name}.request.json").read_bytes()))


def judged(name: str, **fields: Any) -> Verdict:
    compiled = compile_accept(policy(**fields))
    answer = read_answer("chat", (CAPTURES / f"{name}.json").read_bytes())
    return accept(compiled, evidence(compiled, question(name), answer, whole=True))


HELLO = question_of(read_request("chat", b'{"messages":[{"role":"user","content":"hello"}]}'))


def verdict(answer: Answer, asked: Question = HELLO, *, whole: bool = True, **fields: Any) -> Verdict:
    compiled = compile_accept(policy(**fields))
    return accept(compiled, evidence(compiled, asked, answer, whole=whole))


def sure(text: str = "fine", count: int = 20, logprob: float = -0.05) -> Answer:
    logs = Logs([logprob] * count, [3.0] * count, [0.2] * count)
    return Answer(text=text, finish_reason="stop", logs=logs, tokens=count)


# --- real replies -----------------------------------------------------------------------------------------------------


def test_a_sure_answer_is_taken_and_an_unsure_one_is_not() -> None:
    good, bad = judged("chat-logprobs", confidence={}), judged("chat-unsure-logprobs", confidence={})
    assert (good.accepted, good.reason) == (True, "Confident")
    assert (bad.accepted, bad.reason) == (False, "BelowThreshold")
    assert good.probability > 0.9
    assert bad.probability < 0.6


def test_noise_of_a_random_model_is_not_taken() -> None:
    assert judged("random-logprobs", confidence={}).probability < 0.1


def test_wrong_arguments_of_a_tool_call_are_not_taken() -> None:
    required = {"name": "tools", "kind": "ToolArguments", "required": True}
    found = judged("tool-call", confidence={}, validators=[required])
    assert (found.accepted, found.reason, found.failed) == (False, "ToolCallWrong", ("tools",))


def test_an_answer_that_keeps_to_its_schema_is_taken() -> None:
    required = {"name": "schema", "kind": "JSONSchema", "required": True}
    assert judged("json-schema", validators=[required]) == Verdict(accepted=True, probability=0.8, reason="Confident")


def test_a_cut_answer_is_not_taken_where_the_end_counts() -> None:
    assert judged("chat-length", validators=[{"name": "end", "kind": "Finish", "required": True}]).reason == "Truncated"


# --- the reasons ------------------------------------------------------------------------------------------------------


def test_missing_logprobs_are_a_condition_of_their_own() -> None:
    answer = Answer(text="fine", finish_reason="stop", tokens=3)
    found = verdict(answer, confidence={})
    assert (found.accepted, found.reason, found.probability) == (False, "LogprobsMissing", 0.8)
    found = verdict(answer, confidence={"missing": "Ignore"})
    assert (found.accepted, found.reason, found.probability) == (True, "Confident", 0.8)
    assert verdict(answer).accepted


def test_an_answer_that_says_nothing_or_cannot_be_read_is_never_taken() -> None:
    assert verdict(Answer(text=" \n"), thresholdPermille=0).reason == "Empty"
    found = verdict(read_answer("chat", b'{"choices":7}'), thresholdPermille=0)
    assert (found.accepted, found.reason) == (False, "Unreadable")


KINDS: list[tuple[str, dict[str, Any], str, Reason]] = [
    ("JSONSchema", {"schema": {"type": "object"}}, "no", "SchemaFailed"),
    ("Pattern", {"patterns": ["yes"]}, "no", "PatternFailed"),
    ("NumericAnswer", {}, "1 + 1 = 3", "NumberWrong"),
    ("Length", {"minChars": 10}, "no", "LengthWrong"),
    ("Refusal", {}, "I can't help with that.", "Refused"),
    ("Language", {"language": "de"}, "the of and to is in that it was for on", "OtherLanguage"),
]


@pytest.mark.parametrize(("kind", "fields", "text", "reason"), KINDS)
def test_a_required_check_that_fails_has_its_own_reason(
    kind: str, fields: dict[str, Any], text: str, reason: Reason
) -> None:
    one = {"name": "it", "kind": kind, **fields}
    found = verdict(sure(text), thresholdPermille=0, validators=[{**one, "required": True}])
    assert found == Verdict(accepted=False, probability=0.0, reason=reason, failed=("it",))
    found = verdict(sure(text), thresholdPermille=600, validators=[one])
    assert found == Verdict(accepted=True, probability=0.666667, reason="Confident", failed=("it",))
    found = verdict(sure(text), validators=[{**one, "weightPermille": 1000}])
    assert (found.reason, found.probability) == ("BelowThreshold", 0.0)


def test_every_reason_and_remark_has_words() -> None:
    assert set(REASONS) == set(get_args(Reason))
    assert all(WHYS.values())


def test_every_fault_of_a_policy_is_told_with_its_path() -> None:
    bad = policy(
        validators=[
            {"name": "a", "kind": "Pattern", "patterns": ["ok", "("]},
            {"name": "b", "kind": "JSONSchema", "schema": {"$ref": "http://127.0.0.1/x"}},
        ]
    )
    with pytest.raises(InvalidTable) as caught:
        compile_accept(bad)
    assert [fault.path for fault in caught.value.faults] == [
        "accept.validators[0].patterns[1]",
        "accept.validators[1].schema",
    ]


# --- dear checks ------------------------------------------------------------------------------------------------------


def test_a_dear_check_is_run_elsewhere_and_its_result_counts() -> None:
    compiled = compile_accept(
        policy(validators=[{"name": "json", "kind": "JSONSchema", "schema": {"type": "array"}, "required": True}])
    )
    answer = sure(f"[{'1,' * 20_000}1]")
    (check,) = dear(compiled, HELLO, answer)
    assert (check.name, check.deadline_ms) == ("json", 250)
    waiting = evidence(compiled, HELLO, answer, whole=True)
    assert waiting.pending == ("json",)
    assert accept(compiled, waiting).reason == "Undecided"
    done = evidence(compiled, HELLO, answer, {"json": run_check(check)}, whole=True)
    assert accept(compiled, done) == Verdict(accepted=True, probability=0.8, reason="Confident")
    for why in ("Deadline", "Busy", "Crashed"):
        late = evidence(compiled, HELLO, answer, {"json": Result("json", passed=False, why=why)}, whole=True)
        assert accept(compiled, late).reason == "CheckFailed"


# --- early ------------------------------------------------------------------------------------------------------------


def test_a_stream_that_fades_is_noticed_and_one_that_is_noise_is_given_up() -> None:
    compiled = compile_accept(policy(confidence={}))
    watch, lost_at = Watch("chat"), None
    for block in (CAPTURES / "random-stream-logprobs.sse").read_bytes().split(b"\n\n"):
        watch.feed(block.removeprefix(b"data: "))
        seen = evidence(compiled, HELLO, watch.answer, whole=False)
        if lost_at is None and accept(compiled, seen).lost:
            lost_at = seen.tokens
    assert lost_at is not None
    assert lost_at <= 24


def test_a_sure_stream_is_never_given_up_and_would_be_taken_from_its_first_token() -> None:
    compiled = compile_accept(policy(confidence={}))
    watch = Watch("chat")
    for block in (CAPTURES / "chat-stream-logprobs-usage.sse").read_bytes().split(b"\n\n"):
        watch.feed(block.removeprefix(b"data: "))
        found = accept(compiled, evidence(compiled, HELLO, watch.answer, whole=False))
        assert not found.lost
        assert found.accepted == (watch.answer.text != "")


def test_a_required_check_that_failed_for_good_ends_it_at_once() -> None:
    required = {"name": "no", "kind": "Refusal", "required": True}
    found = verdict(sure("I'm sorry, but I can't help with "), whole=False, validators=[required])
    assert found == Verdict(accepted=False, probability=0.0, reason="Refused", failed=("no",), lost=True)
    assert not verdict(sure("The answer"), whole=False, validators=[required]).lost


def test_what_came_of_a_stream_is_judged_as_it_would_be_now() -> None:
    thought = Answer(reasoning="hm", tokens=30, thinking=Logs([-0.1] * 30, [], []))
    found = verdict(thought, whole=False, confidence={})
    assert (found.accepted, found.reason, found.lost) == (False, "Undecided", False)
    found = verdict(Answer(text="no numbers", tokens=30), whole=False, confidence={})
    assert (found.accepted, found.reason, found.lost) == (False, "LogprobsMissing", False)
    found = verdict(sure(count=5, logprob=-3.0), whole=False, confidence={})
    assert (found.accepted, found.reason, found.lost) == (False, "BelowThreshold", False)


def test_a_check_that_can_still_pass_does_not_count_early() -> None:
    required = {"name": "long", "kind": "Length", "minChars": 100, "required": True}
    found = verdict(sure("short"), whole=False, validators=[required])
    assert (found.reason, found.lost) == ("Confident", False)


# --- pure, continuous, monotone, and again from the record ------------------------------------------------------------

signals = st.builds(
    Signals,
    scored=st.integers(1, 4000),
    quantile=st.floats(-20, 0),
    margin=st.none() | st.floats(-20, 20),
    entropy=st.none() | st.floats(0, 12),
)
NAMES = ("a", "b", "c")
FIELDS: dict[str, Any] = {
    "confidence": {},
    "validators": [
        {"name": "a", "kind": "Refusal"},
        {"name": "b", "kind": "Language", "weightPermille": 900},
        {"name": "c", "kind": "Finish", "required": True},
    ],
}


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    results = [
        Result(name, passed=passed, why=None if passed else "Refused")
        for name in NAMES
        if (passed := draw(st.sampled_from([True, False, None]))) is not None
    ]
    return Evidence(
        fusion=FUSION,
        whole=draw(st.booleans()),
        readable=draw(st.integers(0, 9)) > 0,
        empty=draw(st.integers(0, 9)) == 0,
        tokens=draw(st.integers(0, 9)),
        signals=draw(st.none() | signals),
        results=tuple(results),
        pending=draw(st.sampled_from([(), ("c",)])),
    )


@settings(max_examples=150)
@given(evidences(), st.integers(0, 1000), st.integers(1, 999))
def test_the_record_of_an_answer_gives_its_verdict_again_byte_for_byte(
    seen: Evidence, threshold: int, prior: int
) -> None:
    spec = policy(**FIELDS, thresholdPermille=threshold, priorPermille=prior)
    found = accept(compile_accept(spec), seen)
    encoder = msgspec.json.Encoder(order="deterministic")
    recorded = json.loads(encoder.encode(seen))
    again = judge(spec.accept, recorded)
    assert encoder.encode(again) == encoder.encode(found) == encoder.encode(judge(spec.accept, seen))
    assert encoder.encode(msgspec.convert(recorded, Evidence)) == encoder.encode(seen)
    assert found.accepted == (found.reason == "Confident")
    assert not (found.accepted and found.lost)
    assert not (seen.whole and found.lost)


@settings(max_examples=150)
@given(evidences(), st.integers(0, 1000), st.floats(0, 3))
def test_a_better_sign_never_turns_a_taken_answer_down(seen: Evidence, threshold: int, more: float) -> None:
    spec = policy(**FIELDS, thresholdPermille=threshold).accept
    if seen.signals is None:
        return
    raised = msgspec.structs.replace(seen.signals, quantile=min(0.0, seen.signals.quantile + more))
    better = msgspec.structs.replace(
        seen, signals=raised, results=tuple(Result(one.name, passed=True) for one in seen.results)
    )
    here, there = accept(spec, seen), accept(spec, better)
    assert there.probability >= here.probability
    assert there.accepted >= here.accepted
    assert there.lost <= here.lost


def test_evidence_of_another_fusion_or_policy_is_not_judged() -> None:
    spec = policy(validators=[{"name": "a", "kind": "Refusal"}]).accept
    with pytest.raises(ValueError, match="was made for the fusion 'other'"):
        judge(spec, {"fusion": "other"})
    with pytest.raises(ValueError, match="has a result of 'x', which the policy's validators lack"):
        judge(spec, {"fusion": FUSION, "results": [{"name": "x", "passed": False}]})
    with pytest.raises(msgspec.ValidationError):
        judge(spec, {"fusion": FUSION, "tokens": "many"})


def test_evidence_holds_nothing_of_the_text() -> None:
    compiled = compile_accept(policy(confidence={}, validators=[{"name": "a", "kind": "Pattern", "patterns": ["x"]}]))
    seen = evidence(compiled, HELLO, sure("the secret word is plugh"), whole=True)
    assert b"plugh" not in msgspec.json.encode(seen)
    assert b"secret" not in msgspec.json.encode(seen)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.booleans(), st.lists(st.floats(-25, 0), max_size=5), st.none() | st.text(max_size=9))
def test_any_answer_gets_a_verdict(text: str, whole: bool, logprobs: list[float], finish: str | None) -> None:
    kinds = ("JSONSchema", "ToolArguments", "NumericAnswer", "Language", "Refusal", "Finish")
    answer = Answer(text=text, finish_reason=finish, logs=Logs(logprobs, [], []))
    found = verdict(
        answer, whole=whole, confidence={}, validators=[{"name": kind.lower(), "kind": kind} for kind in kinds]
    )
    assert found.reason in REASONS
    assert 0 <= found.probability <= 1


def test_the_module_names_no_clock_and_no_chance() -> None:
    assert not {"time", "random", "os"} & set(vars(accept_module))


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_document_says_every_weight_and_its_example_is_true() -> None:
    said = (Path(__file__).parents[3] / "docs" / "cascade.md").read_text()
    for name, term in (("quantile", QUANTILE), ("margin", MARGIN), ("entropy", ENTROPY)):
        assert f"| {name} | {term.weight} | {term.zero} | {term.low} | {term.high} |" in said
    for number in (
        GIVE_UP_TOKENS,
        FUSION,
        *REASONS,
        *(f"{bound:,}" for bound in (CHARS, STEPS, VISITS, SCHEMA_BYTES, SUBSCHEMAS)),
    ):
        assert str(number) in said
    checks = [{"name": "refusal", "kind": "Refusal"}, {"name": "end", "kind": "Finish", "required": True}]
    for name in ("chat-logprobs", "chat-unsure-logprobs", "chat-length"):
        found = judged(name, confidence={}, validators=checks)
        assert f"| {found.probability:.6g} | `{found.reason}` |" in said


@pytest.mark.parametrize(("tokens", "least"), [(12, 0.210), (24, 0.306), (50, 0.391), (100, 0.452), (400, 0.526)])
def test_the_document_says_when_a_stream_is_given_up(tokens: int, least: float) -> None:
    assert hopeless(least - 0.001, 600, tokens)
    assert not hopeless(least + 0.001, 600, tokens)
