"""`modeltiers route`: the choice with every reason, records decided again byte for byte, and that no input fells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.cli.main import main
from modeltiers.domain.routing.accept import Evidence, judge
from modeltiers.domain.routing.ask import read_request
from modeltiers.domain.routing.choose import Choice, Load, choose, compile_policy
from modeltiers.domain.routing.confidence import FUSION, Signals
from modeltiers.domain.routing.record import Attempt, DecisionRecord, Usage, account, encode
from modeltiers.domain.routing.see import see
from modeltiers.domain.routing.table import read_table

TABLE: dict[str, Any] = {
    "formatVersion": 1,
    "version": "v1",
    "tiers": [
        {"name": "small", "address": "127.0.0.1:1", "contextTokens": 1000, "price": {"inputPerMillionMicros": 100_001}},
        {"name": "middle", "address": "127.0.0.1:2", "local": True},
        {"name": "large", "address": "127.0.0.1:3", "can": {"images": True}},
    ],
    "policies": [
        {
            "name": "support",
            "model": "support",
            "tiers": ["small", "middle", "large"],
            "mode": "Hybrid",
            "score": {"thresholdPermille": 500, "unclearPermille": 100},
            "session": {},
            "override": {"tiers": ["large"]},
            "clamp": {"n": 2, "maxTokens": 100},
            "accept": {"confidence": {}},
            "rules": [
                {"name": "cards", "when": {"keywords": ["card"]}, "action": "Refuse"},
                {"name": "legal", "when": {"keywords": ["court"]}, "floor": "middle"},
                {"name": "team", "when": {"headers": [{"name": "x-team", "values": ["a"]}]}, "tier": "large"},
            ],
        }
    ],
}
OTHER = {**TABLE["policies"][0], "name": "sales", "model": "sales", "mode": "Upfront", "rules": []}
PROOF = "Explain why 2^n > n for every natural n, and prove it by induction, step by step."


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write(tmp_path / "table.yaml", TABLE)


def write(path: Path, content: Any) -> str:
    """Write a file; returns its path."""
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def route(*args: str, stdin: str | bytes | None = None) -> Result:
    """One call; an exception is a failure of the test."""
    return CliRunner().invoke(main, ["route", *args], input=stdin, catch_exceptions=False)


def asked(table: str, *args: str, stdin: str | bytes | None = None) -> dict[str, Any]:
    """What one call says as JSON."""
    result = route("-t", table, "-o", "json", *args, stdin=stdin)
    assert result.exit_code in (0, 1), result.output
    return dict(json.loads(result.stdout))


# --- the choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "tier", "reason"),
    [
        (("--ask", "Hello"), "small", "ScoreLow"),
        (("--ask", PROOF), "small", "ScoreUnclear"),
        (("--ask", PROOF, "--threshold-permille", "200"), "middle", "ScoreHigh"),
        (("--ask", PROOF, "--escalated-share-permille", "500"), "middle", "EscalationCap"),
        (("--ask", "to the court"), "middle", "Floor"),
        (("--ask", "Hello", "-H", "X-Team: a"), "large", "Rule"),
        (("--ask", "Hello", "-H", "x-modeltiers-tier:large"), "large", "Override"),
        (("--ask", "Hello", "--sticky", "middle"), "middle", "Sticky"),
        (("--ask", "Hello", "--not-ready", "small"), "middle", "NotReady"),
        (("--ask", "Hello", "--not-ready", "small", "--not-ready", "middle"), "large", "NotReady"),
        (("--ask", "Hello", "--saturated", "small"), "middle", "Saturated"),
        (("--ask", "x " * 3000), "middle", "ContextFit"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else value,
)
def test_each_circumstance_is_a_choice_with_its_reason(
    table: str, args: tuple[str, ...], tier: str, reason: str
) -> None:
    said = asked(table, *args)
    assert (said["choice"]["tiers"][0], said["choice"]["reason"]) == (tier, reason)
    assert said["why"]
    text = route("-t", table, *args)
    assert text.exit_code == 0
    assert text.output.startswith(f"support: {tier}")
    assert f"  {reason}: " in text.output


def test_what_is_printed_as_json_is_what_the_functions_of_the_router_say(table: str) -> None:
    body = json.dumps({"model": "support", "messages": [{"role": "user", "content": PROOF}], "tools": [{}]}).encode()
    read = read_table(TABLE)
    policy = compile_policy(read, read.policies[0])
    ask = see(policy, read_request("chat", body), {"x-session-id": "s"}, "id")
    choice = choose(policy, ask, Load((True, True, True)))
    said = asked(table, "--request", "-", "-H", "x-session-id: s", "--request-id", "id", stdin=body)
    assert msgspec.convert(said["choice"], Choice) == choice
    assert said["ask"] == json.loads(msgspec.json.encode(ask))
    assert [one["count"] for one in said["features"]] == list(ask.features)


def test_every_rule_and_every_tier_says_what_became_of_it(table: str) -> None:
    said = asked(table, "--ask", "to the court", "-H", "x-team: a")
    assert said["rules"] == [
        {"name": "cards", "state": "does not hold"},
        {"name": "legal", "state": "holds: floor middle"},
        {"name": "team", "state": "holds: tier large"},
    ]
    assert [one["tier"] for one in said["ladder"]] == ["small", "middle", "large"]
    assert all(one["verdict"] for one in said["ladder"])


def test_a_refusal_exits_with_1_and_says_who_refuses(table: str) -> None:
    result = route("-t", table, "--ask", "my card")
    assert result.exit_code == 1
    assert "refused with status 403: the rule cards" in result.output
    assert "not read: cards ended the reading" in result.output


def test_what_no_tier_can_take_exits_with_1_and_says_what_each_lacks(table: str) -> None:
    body = {"model": "support", "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}
    result = route("-t", table, "--request", "-", stdin=json.dumps(body))
    assert result.exit_code == 1
    assert "refused with status 400" in result.output
    assert result.output.count("does not take audio") >= 3


def test_what_is_clamped_is_shown(table: str) -> None:
    body = {"model": "support", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000}
    assert asked(table, "--request", "-", stdin=json.dumps(body))["changes"] == {"max_tokens": 100}
    assert "clamped" in route("-t", table, "--request", "-", stdin=json.dumps(body)).output


@pytest.mark.parametrize(("field", "endpoint"), [("prompt", "completions"), ("input", "embeddings")])
def test_other_endpoints_are_known_by_their_prompt(table: str, field: str, endpoint: str) -> None:
    assert asked(table, "--request", "-", stdin=json.dumps({field: "x"}))["ask"]["endpoint"] == endpoint


def test_the_policy_is_named_or_is_the_one_of_the_model(tmp_path: Path) -> None:
    both = write(tmp_path / "both.yaml", {**TABLE, "policies": [*TABLE["policies"], OTHER]})
    assert asked(both, "--ask", "x", "--policy", "sales")["policy"] == "sales"
    body = json.dumps({"model": "sales", "messages": [{"role": "user", "content": "x"}]})
    assert asked(both, "--request", "-", stdin=body)["policy"] == "sales"
    unnamed = route("-t", both, "--ask", "x")
    assert unnamed.exit_code == 2
    assert "more than one policy" in unnamed.stderr


# --- records ----------------------------------------------------------------------------------------------------------


def record(text: str = PROOF, *, hop: bool = False) -> DecisionRecord:
    """A record as a router makes it, of an answer that was found wanting."""
    table = read_table(TABLE)
    spec = table.policies[0]
    policy = compile_policy(table, spec)
    body = json.dumps({"model": "support", "messages": [{"role": "user", "content": text}]}).encode()
    ask = see(policy, read_request("chat", body), {}, "r1")
    load = Load((True, True, True), threshold_permille=512.125)
    choice = Choice(("middle",), "Hop") if hop else choose(policy, ask, load)
    evidence = Evidence(FUSION, tokens=30, finish="Stop", signals=Signals(30, -2.25, 0.125, 2.5))
    verdict = judge(spec.accept, evidence)
    first = Attempt("small", "Escalated", verdict.reason, 200, 41, Usage(30, 30), evidence=evidence, verdict=verdict)
    last = Attempt("middle", "Answered", None, 200, 99, Usage(30, 80))
    attempts = (last,) if hop else (first, last)
    return DecisionRecord(
        format=1,
        id="r1",
        time_ms=1,
        policy="support",
        table="v1",
        ask=ask,
        load=load,
        choice=choice,
        attempts=attempts,
        final_tier="middle",
        cost=account(table.tiers, attempts),
    )


def spool(path: Path, *lines: bytes) -> str:
    """Write a spool; returns its path."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


def test_records_of_a_router_hold_byte_for_byte(table: str, tmp_path: Path) -> None:
    lines = spool(tmp_path / "spool", encode(record()), b"", encode(record(hop=True)))
    result = route("-t", table, "--record", lines, "--verify")
    assert (result.exit_code, result.output) == (0, "2 of 2 records hold, 0 differ\n")


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (b'"reason":"ScoreUnclear"', b'"reason":"ScoreLow"', "choice.reason"),
        (b'"cascade":true', b'"cascade":false', "choice.cascade"),
        (b'"thresholdPermille":512.125', b'"thresholdPermille":100.0', "choice.tiers"),
        (b'"score":0.585672,"scorer"', b'"score":0.585673,"scorer"', "ask.score"),
        (b'"task":"Reasoning"', b'"task":"Chat"', "ask.task"),
        (b'"accepted":false', b'"accepted":true', "attempts[0].verdict.accepted"),
        (b'"quantile":-2.25', b'"quantile":-0.25', "attempts[0].verdict.probability"),
        (b'"finalTier":"middle"', b'"finalTier":"small"', "finalTier"),
        (b'"decisionMicros":4', b'"decisionMicros":3', "cost.decisionMicros"),
        (b'"table":"v1"', b'"table":"v2"', "table"),
        (b'"id":"r1"', b'"id": "r1"', "encoding"),
        (b'"id":"r1"', b'"id":"r1","extra":1', "encoding"),
        (b'"policy":"support"', b'"policy":"other"', "policy"),
        (b'"tier":"middle"', b'"tier":"elsewhere"', "attempts[1].tier"),
        (FUSION.encode() + b'","tokens', b'elsewhere","tokens', "attempts[0].verdict"),
    ],
    ids=str,
)
def test_a_record_that_was_changed_anywhere_is_found_out(
    table: str, tmp_path: Path, old: bytes, new: bytes, where: str
) -> None:
    good = encode(record())
    assert good.count(old) >= 1, good
    lines = spool(tmp_path / "spool", good, good.replace(old, new, 1))
    result = route("-t", table, "--record", lines, "--verify")
    assert result.exit_code == 1
    assert result.output.startswith("line 2, record r1:\n")
    assert f"  {where}: " in result.output
    assert result.output.endswith("1 of 2 records hold, 1 differ\n")
    said = json.loads(route("-t", table, "--record", lines, "--verify", "-o", "json").stdout)
    assert (said["records"], said["hold"], said["differ"]) == (2, 1, 1)
    assert said["differing"][0]["line"] == 2


def test_a_record_is_held_against_the_table_of_its_version(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    write(folder / "a.yaml", {**TABLE, "version": "v0", "policies": [{**TABLE["policies"][0], "mode": "Upfront"}]})
    write(folder / "b.yaml", TABLE)
    lines = spool(tmp_path / "spool", encode(record()))
    assert route("-t", str(folder), "--record", lines, "--verify").exit_code == 0
    assert "ScoreUnclear" in route("-t", str(folder), "--record", lines).output


def test_a_record_is_explained_with_its_attempts(table: str, tmp_path: Path) -> None:
    lines = spool(tmp_path / "spool", encode(record()))
    result = route("-t", table, "--record", lines)
    assert result.exit_code == 0
    assert "threshold 0.512" in result.output
    assert any(line.split()[:3] == ["small", "Escalated", "41"] for line in result.output.splitlines())
    assert asked(table, "--record", lines)["attempts"][1]["tier"] == "middle"


@given(st.text(max_size=200))
def test_whatever_the_text_the_record_of_its_decision_holds(text: str) -> None:
    made = record(text.encode("utf-8", "replace").decode())
    line = encode(made)
    assert encode(msgspec.json.decode(line, type=DecisionRecord)) == line


# --- bad input --------------------------------------------------------------------------------------------------------


def bad(*args: str, stdin: str | bytes | None = None) -> str:
    """What a call with bad input says; it exits with 2 and prints nothing else."""
    result = route(*args, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"[]", "not a JSON object"),
        (b"{}", "no prompt"),
        (b'{"messages":[]}', "empty"),
        (b'{"messages":1}', "messages"),
        (b'{"messages":[{"role":"user","content":"\xff"}]}', "not UTF-8"),
        (b'{"messages":[{"role":"user","content":"x"}],"n":-1}', "n"),
        (b'{"messages":[{"role":"user","content":"x"}],"n":3}', "at most 2"),
        (b'{"messages":[{"role":"user","content":"x"}],"n":1,"n":2}', "twice"),
        (b'{"messages":[{"role":"user","content":"x"}],"model":"nobody"}', "there is support"),
        (b'{"prompt":{}}', "prompt"),
        (b'{"messages":' + b"[" * 100_000, "deep"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_request_is_refused_with_what_is_wrong(table: str, body: bytes, said: str) -> None:
    assert said in bad("-t", table, "--request", "-", stdin=body)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "give one of"),
        (("--ask", "x", "--request", "y"), "give one of"),
        (("--ask", "x", "--verify"), "--verify goes with --record"),
        (("--request", "no such file"), "cannot be read"),
        (("--request", "a\0b"), "cannot be read"),
        (("--record", "no such file"), "cannot be read"),
        (("--ask", "x", "--policy", "none"), "there is support"),
        (("--ask", "x", "--sticky", "none"), "the ladder has no tier none"),
        (("--ask", "x", "--not-ready", "none"), "small, middle, large"),
        (("--ask", "x", "-H", "nothing"), "name: value"),
        (("--ask", "x", "--threshold-permille", "nan"), "between 0 and 1000"),
        (("--ask", "x", "--escalated-share-permille", "inf"), "between 0 and 1000"),
    ],
    ids=str,
)
def test_bad_options_are_refused_with_the_way_out(table: str, args: tuple[str, ...], said: str) -> None:
    assert said in bad("-t", table, *args)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "0 documents"),
        ("a: [", "not YAML"),
        ("{}", "$.formatVersion"),
        ("[]", "table.yaml: $: "),
        ("formatVersion: 1\n", "tiers"),
        (yaml.safe_dump(TABLE) + "---\n{}\n", "2 documents"),
        (yaml.safe_dump(TABLE).replace("court", "court\\"), ""),
        (json.dumps({**TABLE, "policies": [{**TABLE["policies"][0], "tiers": ["none"]}]}), "there is no tier 'none'"),
    ],
    ids=lambda value: value[:20],
)
def test_a_bad_table_is_refused_with_its_path(tmp_path: Path, content: str, said: str) -> None:
    path = write(tmp_path / "table.yaml", content)
    if said:
        assert said in bad("-t", path, "--ask", "x")
    else:
        assert route("-t", path, "--ask", "x").exit_code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rules": [{"name": "r", "when": {"patterns": ["("]}, "tier": "small"}]}, "rules[0].when.patterns[0]"),
        (
            {"accept": {"validators": [{"name": "p", "kind": "Pattern", "patterns": ["("]}]}},
            "$.policies[0].accept.validators[0].patterns[0]",
        ),
        (
            {"accept": {"validators": [{"name": "s", "kind": "JSONSchema", "schema": {"type": 1}}]}},
            "$.policies[0].accept.validators[0].schema",
        ),
    ],
    ids=["rule", "pattern", "schema"],
)
def test_a_pattern_or_schema_that_cannot_be_used_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "table.yaml", {**TABLE, "policies": [{**TABLE["policies"][0], **change}]})
    assert said in bad("-t", path, "--ask", "x")


def test_a_folder_without_tables_and_a_missing_table_are_named(tmp_path: Path) -> None:
    assert "holds no file" in bad("-t", str(tmp_path), "--ask", "x")
    assert "cannot be read" in bad("-t", str(tmp_path / "none"), "--ask", "x")


@pytest.mark.parametrize("line", [b"{}", b"x", b"\xff", b"[1]", b'{"format":2}', b"{" * 10_000])
def test_a_line_that_is_no_record_is_named(table: str, tmp_path: Path, line: bytes) -> None:
    lines = spool(tmp_path / "spool", encode(record()), line)
    said = bad("-t", table, "--record", lines, "--verify")
    assert "line 2: is no decision record" in said
    assert "holds no record" in bad("-t", table, "--record", spool(tmp_path / "empty"), "--verify")
    assert "of the policy 'none'" in bad("-t", table, "--record", spool(tmp_path / "s", encode(record())), "-p", "none")
