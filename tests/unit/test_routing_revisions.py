"""Which revision a conversation gets: a share of draws, independent of others, computed again from the record."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from modeltiers.domain.routing.choose import Load, choose
from modeltiers.domain.routing.record import DecisionRecord, decide
from modeltiers.domain.routing.revisions import State, beside, chosen, first, revision_of, second
from modeltiers.domain.routing.rules import compile_policy
from modeltiers.domain.routing.see import DRAWS
from modeltiers.domain.routing.table import InvalidTable, Tier, read_table
from tests.unit.test_routing_choose import asked

CANDIDATE = {"revision": "r2", "address": "small-r2:8080", "hop": True, "sharePermille": 250}


def document(**candidate: Any) -> dict[str, Any]:
    small = {"name": "small", "address": "small:8080", "hop": True, "candidate": {**CANDIDATE, **candidate}}
    large = {"name": "large", "address": "large:8080"}
    policy = {"name": "p", "model": "m", "tiers": ["small", "large"]}
    return {"formatVersion": 1, "tiers": [small, large], "policies": [policy]}


def tier(share: int = 250) -> Tier:
    return read_table(document(sharePermille=share)).tiers[0]


@given(share=st.integers(0, 1000), place=st.integers(0, 9))
def test_the_share_is_exact_over_all_draws(share: int, place: int) -> None:
    one = tier(share)
    draws = range(0, DRAWS, 997)
    hits = sum(chosen(one, place, draw, "Ready") for draw in draws)
    assert abs(hits / len(draws) - share / 1000) < 0.02


def test_it_is_independent_of_a_policy_s_canary() -> None:
    one = tier(500)
    low = [chosen(one, 0, draw, "Ready") for draw in range(0, DRAWS // 10, 101)]
    assert 0.45 < sum(low) / len(low) < 0.55


@pytest.mark.parametrize(("state", "gets"), [("", False), ("NotReady", False), ("Alone", True), ("Ready", False)])
def test_who_is_ready_counts_more_than_the_draw(state: State, gets: bool) -> None:
    draw = next(draw for draw in range(1000) if not chosen(tier(), 0, draw, "Ready"))
    assert chosen(tier(), 0, draw, state) is gets
    assert not chosen(first(tier()), 0, draw, "Alone")


def test_a_tier_as_one_of_its_revisions() -> None:
    whole = tier()
    assert (
        first(whole)
        == read_table(
            {
                **document(),
                "tiers": [
                    {"name": "small", "address": "small:8080", "hop": True},
                    {"name": "large", "address": "large:8080"},
                ],
            }
        ).tiers[0]
    )
    other = second(whole)
    assert other is not None
    assert (other.address, other.hop, other.local, other.candidate) == ("small-r2:8080", True, False, None)
    assert second(first(whole)) is None
    assert (revision_of(whole, candidate=True), revision_of(whole, candidate=False)) == ("r2", "r1")
    assert revision_of(first(whole), candidate=False) is None


def test_the_router_beside_a_revision_reaches_its_engine_without_a_hop() -> None:
    near = beside(tier(), "127.0.0.1:8000", "r1")
    assert (near.local, near.hop, near.address) == (True, False, "127.0.0.1:8000")
    assert second(near) == second(tier())
    near = beside(tier(), "127.0.0.1:8000", "r2")
    assert (near.local, near.hop, near.address) == (False, True, "small:8080")
    own = second(near)
    assert own is not None
    assert (own.local, own.hop, own.address) == (True, False, "127.0.0.1:8000")
    # A table that knows of no candidate any more: its last pods answer what still comes.
    assert beside(first(tier()), "127.0.0.1:8000", "r2").local


@given(draw=st.integers(0, DRAWS - 1))
def test_a_choice_names_the_candidates_and_is_computed_again_from_its_record(draw: int) -> None:
    table = read_table(document())
    policy = compile_policy(table, table.policies[0])
    load = Load((True, True), candidates=("Ready", ""))
    ask = structs.replace(asked(policy), draw=draw)
    made = choose(policy, ask, load)
    assert made.candidates == (("small",) if chosen(table.tiers[0], 0, draw, "Ready") else ())
    record = DecisionRecord(format=1, id="i", time_ms=1, policy="p", table="v", ask=ask, load=load, choice=made)
    assert decide(policy, record) == made


@pytest.mark.parametrize(
    ("candidate", "problem"),
    [
        ({"address": "small-r2:70000"}, "candidate.address: the port lies between 1 and 65535"),
        ({"revision": "r1"}, "both revisions have one name"),
        ({"sharePermille": 1001}, "candidate.sharePermille"),
    ],
)
def test_a_candidate_that_cannot_be_is_refused(candidate: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidTable, match=problem):
        read_table(document(**candidate))


def test_an_external_tier_has_no_candidate() -> None:
    shape = document()
    shape["tiers"][0] = {"name": "small", "external": {"baseUrl": "https://a.b/v1"}, "candidate": CANDIDATE}
    with pytest.raises(InvalidTable, match="has no revisions"):
        read_table(shape)
