"""Where a policy's requests enter: away at once, back only to a tier that is steady, and the same after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.entry import Entry, Rung, Table, choose_entry, entry_status, table_at

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
STEADY = timedelta(seconds=30)


def rung(name: str, *ages: float, table: Table = Table.THERE) -> Rung:
    """A tier whose ready pods have been so for these seconds."""
    return Rung(name, tuple(NOW - timedelta(seconds=age) for age in ages), table)


def entry(at: str | None, *rungs: Rung, steady: timedelta = STEADY) -> Entry:
    found = choose_entry(rungs, at, NOW, steady)
    assert found is not None
    return found


def test_the_first_entry_waits_for_nothing() -> None:
    assert entry(None, rung("small", 1), rung("large", 500)).tier == "small"
    assert entry(None, rung("small"), rung("large", 1)).tier == "large"
    assert entry(None, rung("small"), rung("large")) == Entry(
        "small", "NoPodReady", "no tier has a ready pod that could take requests"
    )


def test_without_routers_there_is_no_entry() -> None:
    assert choose_entry((), "small", NOW, STEADY) is None


def test_it_leaves_at_once() -> None:
    found = entry("small", rung("small"), rung("large", 0))
    assert (found.tier, found.reason) == ("large", "FirstTierNotReady")
    assert found.message == "requests enter at large, since small has no ready pod"
    assert found.wait is None  # only a pod can change that


def test_it_leaves_before_the_last_pods_do_and_stays_where_nobody_else_answers() -> None:
    going = Rung("small", (NOW - timedelta(hours=1),), leaving=True)
    found = entry("small", going, rung("large", 0))
    assert (found.tier, found.reason, found.wait) == ("large", "FirstTierLeaving", None)
    assert found.message == "requests enter at large, since the pods of small are about to go"
    assert entry("large", going, rung("large", 500)).tier == "large"
    assert entry("small", going, rung("large")).tier == "small"


def test_it_stays_with_one_ready_pod_of_many_and_while_none_is_anywhere() -> None:
    assert entry("small", rung("small", 1), rung("large", 500)).tier == "small"
    assert entry("large", rung("small"), rung("large")).tier == "large"


def test_it_comes_back_only_after_a_while() -> None:
    early = entry("large", rung("small", 12), rung("large", 500))
    assert (early.tier, early.reason, early.wait) == ("large", "FirstTierUnsteady", timedelta(seconds=18))
    assert "30 s" in early.message
    assert entry("large", rung("small", 30), rung("large", 500)) == Entry(
        "small", "FirstTier", "requests enter at small, the first tier that has routers"
    )
    assert entry("large", rung("small", 0), rung("large", 500), steady=timedelta()).tier == "small"


def test_the_oldest_ready_pod_says_how_long_a_tier_is_ready() -> None:
    assert entry("large", rung("small", 3, 40), rung("large", 500)).tier == "small"


def test_it_comes_back_at_once_when_there_is_nowhere_else() -> None:
    assert entry("large", rung("small", 0), rung("large")).tier == "small"


def test_it_waits_for_the_first_of_several_lower_tiers() -> None:
    found = entry("c", rung("a", 5), rung("b", 20), rung("c", 99))
    assert (found.tier, found.wait) == ("c", timedelta(seconds=10))
    assert entry("c", rung("a", 5), rung("b", 31), rung("c", 99)).tier == "b"


def test_a_node_whose_clock_is_ahead_is_looked_at_again_soon() -> None:
    assert entry("large", rung("small", -3600), rung("large", 9)).wait == STEADY


def test_it_goes_only_where_the_table_is() -> None:
    absent, coming = rung("small", 99, table=Table.ABSENT), rung("small", 99, table=Table.COMING)
    for lower in (absent, coming):
        found = entry("large", lower, rung("large", 9))
        assert (found.tier, found.reason, found.wait) == ("large", "TableNotThere", None)
    assert entry("gone", coming, rung("large", 9)).tier == "large"
    assert entry("gone", coming, rung("large")).tier == "small"  # it comes within a second, and there is no other
    assert entry("small", absent, rung("large", 9)).tier == "large"  # ready, and refuses to serve
    assert entry("small", absent, rung("large")).tier == "small"
    assert entry("small", coming, rung("large", 9)).tier == "small"  # a new policy: no reason to run away


def test_a_tier_that_left_the_ladder_is_left_at_once() -> None:
    assert entry("gone", rung("small", 0), rung("large", 9)).tier == "small"


@pytest.mark.parametrize(
    ("said", "expected", "table"),
    [
        ([], True, Table.THERE),  # nobody can be asked
        (None, True, Table.COMING),
        (None, False, Table.ABSENT),
        ([], False, Table.ABSENT),
        ([("v1", "")], False, Table.ABSENT),  # it is on its way out
        ([("v0", "unknown field"), (None, "unknown field")], True, Table.THERE),  # an earlier one serves
        ([(None, "unknown field")], True, Table.ABSENT),
        ([(None, ""), (None, "unknown field")], True, Table.COMING),
    ],
)
def test_what_routers_say_of_the_table(said: list[tuple[str | None, str]] | None, expected: bool, table: Table) -> None:
    assert table_at(said, expected=expected) is table


def test_status_keeps_the_time_until_the_tier_changes() -> None:
    here = entry("small", rung("small", 1))
    told = entry_status(here, {}, NOW)
    assert told == {"tier": "small", "since": "2026-05-04T12:00:00Z"}
    assert entry_status(here, told, NOW + STEADY) == told
    assert entry_status(here, {"tier": "large", "since": "2020-01-01T00:00:00Z"}, NOW) == told


NAMES = ("a", "b", "c", "d")
ages = st.lists(st.integers(0, 60), max_size=3)


@st.composite
def ladders(draw: st.DrawFn) -> Sequence[Rung]:
    count = draw(st.integers(1, len(NAMES)))
    return [rung(name, *draw(ages), table=draw(st.sampled_from(Table))) for name in NAMES[:count]]


@given(rungs=ladders(), at=st.sampled_from((None, "gone", *NAMES)))
def test_every_choice_keeps_the_promises(rungs: Sequence[Rung], at: str | None) -> None:
    by_name = {one.name: one for one in rungs}
    order = [one.name for one in rungs]
    found = entry(at, *rungs)
    chosen, here = by_name[found.tier], by_name.get(at or "")
    # A second look changes nothing: no flapping, and no second write.
    assert entry(found.tier, *rungs) == found
    if here is None or at is None:
        return
    if here.usable:
        assert order.index(found.tier) <= order.index(at)  # it never leaves a tier that answers for a dearer one
        if chosen is not here:
            assert chosen.table is Table.THERE and chosen.usable and NOW - chosen.since >= STEADY
    elif any(one.usable for one in rungs):
        assert chosen.usable
    else:
        assert chosen is here


@given(rungs=ladders(), at=st.sampled_from(NAMES))
def test_by_the_clock_alone_it_changes_exactly_when_it_says(rungs: Sequence[Rung], at: str) -> None:
    found = entry(at, *rungs)
    if found.wait is None:
        later = choose_entry(rungs, found.tier, NOW + timedelta(days=1), STEADY)
        assert later is not None and later.tier == found.tier
        return
    before = choose_entry(rungs, found.tier, NOW + found.wait - timedelta(seconds=1), STEADY)
    after = choose_entry(rungs, found.tier, NOW + found.wait, STEADY)
    assert before is not None and before.tier == found.tier
    assert after is not None and after.tier != found.tier
