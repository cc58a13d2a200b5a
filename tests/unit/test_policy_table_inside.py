"""Requests that never leave the cluster, from the spec through `choose`: no load, mode or wish sends one outside."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modeltiers.api.routingpolicy import RoutingPolicySpec
from modeltiers.domain.policy_table import CompiledTable, TierView, compile_table
from modeltiers.domain.routing.ask import Ask
from modeltiers.domain.routing.choose import Load, choose, compile_policy
from modeltiers.domain.routing.table import read_table

TIERS = {
    "a": TierView("a", "a", context_tokens=4000),
    "b": TierView("b", "b", external=True, outside=True, context_tokens=8000),
    "c": TierView("c", "c", context_tokens=16_000),
    "d": TierView("d", "d", external=True, outside=True),
}
NAMES = sorted(TIERS)
FLAGS = st.lists(st.booleans(), min_size=4, max_size=4)
ASKS = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(1, 20_000),
        "tools": st.booleans(),
        "score": st.floats(0, 1),
        "n": st.integers(1, 3),
        "override": st.none() | st.sampled_from(NAMES),
        "tool_loop": st.booleans(),
        "draw": st.integers(0, 999_999),
    }
)
SECRET = {"name": "secret", "when": {"promptCharsAtLeast": 1}, "dataClass": "NeverLeavesCluster"}


def spec(ladder: list[str], mode: str, *, down: bool) -> RoutingPolicySpec:
    """A policy in which all that there is leads to the top of the ladder."""
    top = ladder[-1]
    body: dict[str, Any] = {
        "model": "m",
        "tiers": [{"name": name} for name in ladder],
        "mode": mode,
        "placement": "Gateway",
        "classify": [{"name": "vip", "when": {"tools": True}, "tier": top}, SECRET],
        "fallback": {"down": down},
        "override": {"tiers": ladder},
        "session": {},
        "score": {},
        "canary": {"tier": top, "sharePermille": 500},
    }
    return RoutingPolicySpec.model_validate(body)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    st.sampled_from(["Upfront", "Cascade", "Hybrid"]),
    st.booleans(),
    ASKS,
    st.tuples(FLAGS, FLAGS, st.none() | st.sampled_from(NAMES)),
)
def test_no_request_goes_outside(ladder: list[str], mode: str, down: bool, given_: dict[str, Any], load: Any) -> None:
    """Not by a rule, a score, an override, a canary, a conversation, an escalation or a fallback."""
    made = compile_table("p", spec(ladder, mode, down=down), TIERS, "demo")
    assert isinstance(made, CompiledTable), [str(one) for one in made]
    table = read_table(dict(made.document))
    policy = compile_policy(table, table.policies[0])
    ask = Ask(endpoint="chat", model="m", prompt_chars=10, modalities=("Text",), session="s", **given_)
    ready, saturated, sticky = load
    size = len(ladder)
    kept = sticky if sticky in ladder else None
    found = choose(policy, ask, Load(tuple(ready[:size]), sticky=kept, saturated=tuple(saturated[:size])))
    outside = {name for name in ladder if TIERS[name].outside}
    assert not outside & set(found.tiers)
    assert found.tiers or found.refused
    if set(ladder) == outside:
        assert found.reason == "DataClass"
        assert "the rule secret keeps the request inside" in str(found.refused)
