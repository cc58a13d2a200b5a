"""Before the answer: what is seen of a request, which rules hold, which tier is chosen, in which order and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing import features
from modeltiers.domain.routing.ask import Ask, read_request
from modeltiers.domain.routing.choose import REASONS, Choice, CompiledPolicy, Load, choose, compile_policy
from modeltiers.domain.routing.hold import Held, hold, most_error, start, went_up
from modeltiers.domain.routing.see import DRAWS, see
from modeltiers.domain.routing.table import InvalidTable, read_table

NAMES = ("small", "middle", "large")


def policy(tiers: Mapping[str, Mapping[str, Any]] | None = None, **fields: Any) -> CompiledPolicy:
    """A policy over three tiers, of which some differ."""
    table = {
        "formatVersion": 1,
        "tiers": [{"name": name, "address": "x:1", "model": name, **(tiers or {}).get(name, {})} for name in NAMES],
        "policies": [{"name": "p", "model": "m", "tiers": list(NAMES), **fields}],
    }
    read = read_table(table)
    return compile_policy(read, read.policies[0])


def asked(compiled: CompiledPolicy, text: Any = "hi", headers: Mapping[str, str] | None = None, **fields: Any) -> Ask:
    """What is seen of a chat of one message."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
    return see(compiled, read_request("chat", json.dumps(body).encode()), headers or {}, "id")


def chosen(compiled: CompiledPolicy, ask: Ask, **load: Any) -> Choice:
    """The choice, with every tier ready unless it says otherwise."""
    return choose(compiled, ask, Load(**{"ready": (True,) * 3, **load}))


def rule(name: str, when: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A rule that sends to the large tier unless it says otherwise."""
    return {"name": name, "when": when, **(more or {"tier": "large"})}


# --- rules ------------------------------------------------------------------------------------------------------------

WHENS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a word": ({"keywords": ["court"]}, {"text": "the Court!"}, {"text": "courtesy"}),
    "words in a row": ({"keywords": ["high court"]}, {"text": "high  court."}, {"text": "high the court"}),
    "a word beyond ASCII": ({"keywords": ["straße"]}, {"text": "die STRASSE?"}, {"text": "strass"}),
    "a script without spaces": ({"keywords": ["退款"]}, {"text": "我要退款。"}, {"text": "我要退货"}),
    "a word with signs": ({"keywords": ["c++"]}, {"text": "in C++, please"}, {"text": "in C"}),
    "a pattern": ({"patterns": [r"\bX-\d+"]}, {"text": "see X-12"}, {"text": "see X-y"}),
    "two patterns": ({"patterns": ["aa", "bb"]}, {"text": "xbbx"}, {"text": "ab"}),
    "a header": (
        {"headers": [{"name": "x-a", "values": ["1", "2"]}]},
        {"headers": {"x-a": "2"}},
        {"headers": {"x-a": "12"}},
    ),
    "metadata": (
        {"metadata": [{"key": "k", "values": ["v"]}]},
        {"metadata": {"k": "v"}},
        {"metadata": {"k": ["v"]}},
    ),
    "length at least": ({"promptCharsAtLeast": 5}, {"text": "12345"}, {"text": "1234"}),
    "length at most": ({"promptCharsAtMost": 4}, {"text": "1234"}, {"text": "12345"}),
    "tools": ({"tools": True}, {"tools": [{}]}, {"tools": [{}], "tool_choice": "none"}),
    "no tools": ({"tools": False}, {}, {"tools": [{}]}),
    "JSON": ({"jsonMode": True}, {"response_format": {"type": "json_object"}}, {"response_format": {"type": "text"}}),
    "an image": (
        {"modalities": ["Image"]},
        {"text": [{"type": "image_url", "image_url": "data:,"}]},
        {"text": [{"type": "text", "text": "image"}]},
    ),
    "a task": ({"tasks": ["Translation"]}, {"text": "Translate this"}, {"text": "Hello"}),
    "a score": ({"scoreAtLeastPermille": 400}, {"text": "prove why, derive, compare"}, {"text": "hi"}),
}


@pytest.mark.parametrize("case", WHENS)
def test_a_rule_holds_for_what_it_looks_for_and_for_nothing_else(case: str) -> None:
    when, holds, fails = WHENS[case]
    able = {name: {"can": {"images": True}} for name in NAMES}
    compiled = policy(able, rules=[rule("r", when)])
    assert (chosen(compiled, asked(compiled, **holds)).reason) == "Rule"
    assert (chosen(compiled, asked(compiled, **fails)).reason) == "EntryTier"


def test_every_field_of_a_rule_must_hold() -> None:
    compiled = policy(rules=[rule("r", {"keywords": ["a"], "patterns": ["b"], "tools": False})])
    for text, reason in (("a b", "Rule"), ("a", "EntryTier"), ("b", "EntryTier")):
        assert chosen(compiled, asked(compiled, text)).reason == reason


def test_the_first_rule_with_a_tier_ends_the_reading_and_floors_before_it_count() -> None:
    compiled = policy(
        rules=[
            rule("floor", {"keywords": ["a"]}, floor="middle"),
            rule("low", {"keywords": ["b"]}, tier="small"),
            rule("high", {"keywords": ["b"]}, tier="large"),
        ]
    )
    only = chosen(compiled, asked(compiled, "b"))
    assert (only.tiers[0], only.reason, only.rule) == ("small", "Rule", "low")
    both = chosen(compiled, asked(compiled, "a b"))
    assert (both.tiers[0], both.reason, both.displaced, both.floor) == ("middle", "Floor", "Rule", "middle")


def test_a_refusal_and_a_refused_risk_are_a_403_that_names_the_rule() -> None:
    refusing = policy(rules=[rule("no", {"keywords": ["a"]}, action="Refuse")])
    found = chosen(refusing, asked(refusing, "a"))
    assert (found.status, found.reason, found.tiers, found.rule) == (403, "Rule", (), "no")
    risky = policy(
        rules=[rule("risky", {"keywords": ["a"]}, risk="High")], risks=[{"risk": "Medium", "action": "Refuse"}]
    )
    found = chosen(risky, asked(risky, "a"))
    assert (found.status, found.reason, found.risk) == (403, "Risk", "High")
    assert "risky" in (found.refused or "")


@pytest.mark.parametrize("pattern", ["(", "a{1001}", r"(?=a)", r"\1", "(?:a{100}){100}"])
def test_a_pattern_that_cannot_be_run_in_bounded_time_is_refused_with_its_path(pattern: str) -> None:
    with pytest.raises(InvalidTable, match=r"\$\.policies\[0\]\.rules\[0\]\.when\.patterns\[1\]"):
        policy(rules=[rule("r", {"patterns": ["fine", pattern]})])


# --- the order of what decides ----------------------------------------------------------------------------------------


def test_what_counts_more_decides_first() -> None:
    compiled = policy(
        rules=[rule("r", {"keywords": ["rule"]}, tier="middle")],
        override={"tiers": ["large"]},
        session={},
        canary={"tier": "middle", "sharePermille": 1000},
    )
    header = {"x-modeltiers-tier": "large"}
    loop = [{"role": "user", "content": "rule"}, {"role": "tool", "content": "42"}]
    steps = [
        (asked(compiled, "rule", header, messages=loop), "middle", "ToolLoop"),
        (asked(compiled, "rule", header), "large", "Override"),
        (asked(compiled, "rule"), "middle", "Rule"),
        (asked(compiled), "middle", "Canary"),
    ]
    for ask, tier, reason in steps:
        found = chosen(compiled, ask, sticky="middle")
        assert (found.tiers[0], found.reason) == (tier, reason)
    plain = policy(session={})
    assert chosen(plain, asked(plain), sticky="large").reason == "Sticky"
    assert chosen(plain, asked(plain), sticky="gone").reason == "EntryTier"


def test_an_override_is_bound_by_the_policy_and_by_the_floor() -> None:
    compiled = policy(override={"tiers": ["small"]}, rules=[rule("f", {"keywords": ["a"]}, floor="middle")])
    assert chosen(compiled, asked(compiled, "x", {"x-modeltiers-tier": "large"})).reason == "EntryTier"
    found = chosen(compiled, asked(compiled, "a", {"x-modeltiers-tier": "small"}))
    assert (found.tiers[0], found.reason, found.displaced) == ("middle", "Floor", "Override")


@pytest.mark.parametrize(
    ("can", "fields"),
    [
        ("tools", {"tools": [{}]}),
        ("jsonSchema", {"response_format": {"type": "json_schema", "json_schema": {}}}),
        ("logprobs", {"logprobs": True}),
    ],
)
def test_a_tier_is_never_asked_for_what_it_lacks(can: str, fields: dict[str, Any]) -> None:
    compiled = policy({"small": {"can": {can: False}}})
    found = chosen(compiled, asked(compiled, **fields))
    assert (found.tiers, found.reason) == (("middle", "large"), "Capability")
    assert found.skipped == (("small", "Capability"),)
    nobody = policy({name: {"can": {can: False}} for name in NAMES})
    found = chosen(nobody, asked(nobody, **fields))
    assert (found.status, found.tiers) == (400, ())
    assert (found.refused or "").count("does not take") == 3


def test_a_prompt_goes_where_it_fits_and_a_doubtful_one_to_the_longest() -> None:
    sizes = {"small": {"contextTokens": 100}, "middle": {"contextTokens": 1_000}, "large": {"contextTokens": 2_000}}
    compiled = policy(sizes)
    for characters, tier in ((80, "small"), (2_000, "middle"), (7_000, "large"), (15_000, "large")):
        assert chosen(compiled, asked(compiled, "x" * characters)).tiers[0] == tier
    found = chosen(compiled, asked(compiled, "x" * 20_000))
    assert (found.status, found.reason) == (400, "ContextFit")
    assert chosen(compiled, asked(compiled, "x" * 80, max_tokens=500)).tiers[0] == "middle"
    assert chosen(compiled, asked(compiled, "x" * 80, tools=[{"x": "y" * 1_000}])).tiers[0] == "middle"


def test_embeddings_never_mix_models() -> None:
    able: dict[str, dict[str, Any]] = {name: {"can": {"embeddings": True}} for name in ("middle", "large")}
    compiled = policy(able, session={}, canary={"tier": "large", "sharePermille": 1000})
    ask = see(compiled, read_request("embeddings", b'{"input":"x"}'), {}, "id")
    found = chosen(compiled, ask, sticky="large")
    assert (found.tiers, found.reason) == (("middle",), "Embeddings")
    assert ("large", "OtherModel") in found.skipped
    same = policy({name: {**fields, "model": "e"} for name, fields in able.items()})
    assert chosen(same, ask).tiers == ("middle", "large")


@pytest.mark.parametrize("mode", ["Cascade", "Hybrid"])
def test_an_answer_is_judged_only_where_escalating_is_possible_and_allowed(mode: str) -> None:
    score = {"thresholdPermille": 200, "unclearPermille": 150}
    compiled = policy(mode=mode, score=score)
    assert chosen(compiled, asked(compiled)).cascade
    assert not chosen(compiled, asked(compiled, n=2)).cascade
    assert not chosen(compiled, asked(compiled), escalated_share_permille=500.0).cascade
    assert not chosen(compiled, asked(compiled), ready=(True, False, False)).cascade
    once = policy(mode=mode, score=score, escalation={"maxCalls": 1})
    assert chosen(once, asked(once)).reason == "EscalationCap"


def test_the_score_shares_the_upper_tiers_evenly() -> None:
    compiled = policy(score={"thresholdPermille": 500})
    ask = asked(compiled)
    wanted = ((0.1, "small"), (0.499, "small"), (0.5, "middle"), (0.74, "middle"), (0.76, "large"), (1.0, "large"))
    for score, tier in wanted:
        assert chosen(compiled, msgspec.structs.replace(ask, score=score)).tiers[0] == tier


def test_what_is_not_ready_or_full_is_passed_over_and_with_nothing_ready_the_tiers_are_named() -> None:
    compiled = policy(fallback={"down": True})
    ask = asked(compiled)
    assert chosen(compiled, ask, ready=(False, True, True)).tiers == ("middle", "large")
    assert chosen(compiled, ask, ready=(False,) * 3).tiers == NAMES
    full = chosen(compiled, ask, saturated=(True, True, False))
    assert (full.tiers, full.reason) == (("large", "small", "middle"), "Saturated")
    assert chosen(compiled, ask, saturated=(True,) * 3).tiers == NAMES
    sent = policy(fallback={"down": True}, rules=[rule("r", {"keywords": ["hi"]}, tier="middle")])
    found = chosen(sent, asked(sent))
    assert (found.tiers, found.up) == (("middle", "large", "small"), 2)


# --- properties -------------------------------------------------------------------------------------------------------

POLICIES = [
    policy(),
    policy(mode="Cascade"),
    policy(mode="Hybrid", score={"thresholdPermille": 400, "unclearPermille": 100}),
    policy(score={"thresholdPermille": 300}, session={}, canary={"tier": "large", "sharePermille": 200}),
    policy(
        {"small": {"contextTokens": 50, "can": {"tools": False}}, "large": {"can": {"images": True}}},
        override={"tiers": ["small", "large"]},
        fallback={"down": True},
        rules=[
            rule("a", {"keywords": ["a"]}, floor="middle"),
            rule("b", {"keywords": ["b"]}, risk="High"),
            rule("c", {"keywords": ["c"]}, action="Refuse"),
        ],
        risks=[{"risk": "High", "floor": "large"}],
    ),
]
TEXTS = st.text(alphabet="abc é退?{\n", max_size=40) | st.text(max_size=40)
LOADS = st.builds(
    Load,
    ready=st.tuples(*[st.booleans()] * 3),
    threshold_permille=st.none() | st.floats(-50, 1050),
    sticky=st.none() | st.sampled_from([*NAMES, "gone"]),
    escalated_share_permille=st.floats(0, 1000),
    saturated=st.just(()) | st.tuples(*[st.booleans()] * 3),
)


@given(st.sampled_from(POLICIES), TEXTS, LOADS, st.fixed_dictionaries({"n": st.integers(1, 3), "tools": st.just([])}))
def test_a_choice_is_whole_whatever_the_request_and_the_load(
    compiled: CompiledPolicy, text: str, load: Load, fields: dict[str, Any]
) -> None:
    text = text.encode("utf-8", "replace").decode()
    ask = asked(compiled, text, {"x-modeltiers-tier": "small"}, **fields)
    found = choose(compiled, ask, load)
    again = msgspec.json.decode(msgspec.json.encode(ask), type=Ask)
    assert choose(compiled, again, load) == found
    assert found.reason in REASONS
    assert bool(found.tiers) == (found.refused is None)
    assert len(set(found.tiers)) == len(found.tiers)
    places = [compiled.place(name) for name in found.tiers]
    assert min(places, default=9) >= (compiled.place(found.floor) if found.floor else 0)
    assert places[: found.up] == sorted(places[: found.up])
    assert not found.cascade or found.up > 1
    if found.tiers:
        assert {*found.tiers, *(name for name, _ in found.skipped)} == set(NAMES)
    if found.tiers and any(load.ready[place] for place in places):
        assert load.ready[places[0]]


@given(TEXTS, st.integers(1, 5))
def test_more_of_any_sign_never_lowers_the_score(text: str, more: int) -> None:
    compiled = POLICIES[3]
    ask = asked(compiled, text.encode("utf-8", "replace").decode())
    assert ask.score == features.score(ask.features)
    assert 0 < (ask.score or 0) < 1
    for place in range(len(ask.features)):
        higher = list(ask.features)
        higher[place] += more
        assert features.difficulty(higher) > features.difficulty(ask.features)


@given(st.text(min_size=1, max_size=20))
def test_a_conversation_keeps_its_draw_and_names_are_not_kept(name: str) -> None:
    compiled = policy(session={})
    first, again = (asked(compiled, text, {"x-session-id": name}) for text in ("a", "b"))
    assert first.draw == again.draw < DRAWS
    assert first.session == again.session != name


def test_draws_are_even() -> None:
    compiled = policy(canary={"tier": "large", "sharePermille": 100})
    hits = sum(
        chosen(compiled, asked(compiled, "x", {"x-session-id": str(number)})).reason == "Canary"
        for number in range(2_000)
    )
    assert 150 < hits < 250


# --- the share that is held -------------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False), st.integers(50, 950), st.integers(100, 500))
def test_the_share_is_held_whatever_the_scores(dice: Random, target: int, count: int) -> None:
    held = start(policy(score={"strongSharePermille": target}))
    strong = 0
    bent, worst = dice.choice((0.0, 0.1, 1.0, 5.0)), dice.random() < 0.3
    for _ in range(count):
        # The worst scores know the threshold, and stay just above or below it.
        score = min(max(held.threshold_permille / 1000, 0), 1) if worst else dice.random() ** bent
        up = score * 1000 >= held.threshold_permille
        strong += up
        held = hold(held, target, strong=up)
    assert abs(1000 * strong / count - target) <= most_error(count)
    assert -50 <= held.threshold_permille <= 1050


def test_a_share_is_held_closely_in_steady_traffic_and_again_after_a_change() -> None:
    held, strong = Held(500.0), 0
    for number in range(20_000):
        score = (number * 7919 % 1000) / 1000
        score = score**2 if number < 10_000 else score**0.5
        up = score * 1000 >= held.threshold_permille
        strong += up
        held = hold(held, 200, strong=up)
    assert abs(strong / 20 - 200) < 12  # permille
    compiled = policy()
    assert went_up(compiled, Choice(("middle",), "ScoreHigh"))
    assert not went_up(compiled, Choice(("small",), "ScoreLow"))
