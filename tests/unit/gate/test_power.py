"""How many items it takes, and Holm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.gate.items import GateError
from modeltiers.domain.gate.paired import compare
from modeltiers.domain.gate.power import holm, items_for, items_needed
from modeltiers.domain.gate.tally import of_counts

shares = st.integers(0, 1000).map(lambda permille: permille / 1000)
some = st.integers(1, 300).map(lambda permille: permille / 1000)


@pytest.mark.parametrize(
    ("discordance", "needed"),
    [(0.10, (1546, 687, 248)), (0.20, (3092, 1374, 495)), (0.05, (773, 344, 124))],
)
def test_the_table_of_the_literature(discordance: float, needed: tuple[int, ...]) -> None:
    assert tuple(items_needed(discordance, margin, 0.05, 0.8) for margin in (0.02, 0.03, 0.05)) == needed


def test_clusters_need_more_and_copies_need_149() -> None:
    assert items_needed(0.10, 0.02, 0.05, 0.8, design_effect=2.5) == 3865  # 3,864.1
    assert items_needed(0.0, 0.02, 0.05, 0.8) == 149
    assert items_needed(0.0, 0.02, 0.05, 0.8, design_effect=10) == 1490


@given(shares, shares, some, some, st.integers(500, 990).map(lambda permille: permille / 1000))
def test_what_is_harder_needs_more(one: float, other: float, margin: float, alpha: float, power: float) -> None:
    fewer, more = sorted((one, other))
    needed = items_needed(fewer, margin, alpha, power)
    assert needed <= items_needed(more, margin, alpha, power)
    assert needed <= items_needed(fewer, margin / 2, alpha, power)
    assert needed <= items_needed(fewer, margin, alpha / 2, power)
    assert needed <= items_needed(fewer, margin, alpha, (1 + power) / 2)
    assert needed <= items_needed(fewer, margin, alpha, power, 1.5)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((1.1, 0.02, 0.05, 0.8), "discordance is 1.1"),
        ((0.1, 0.0, 0.05, 0.8), "no number of items shows a margin of 0"),
        ((0.1, 0.02, 0.5, 0.8), "alpha 0.5"),
        ((0.1, 0.02, 0.05, 1.0), "power 1"),
        ((0.1, 0.02, 0.05, 0.8, 0.5), "design effect is 0.5"),
    ],
)
def test_numbers_out_of_range_are_refused(asked: tuple[float, ...], said: str) -> None:
    with pytest.raises(GateError, match=said):
        items_needed(*asked)


def test_items_that_would_settle_it() -> None:
    seen = compare(of_counts(70, 80, 1000), 0.02, 0.05)
    assert items_for(seen, 0.02, 0.05, 0.8) == 9268  # 0.1499 x 6.1826 / 0.01^2 = 9,267.7
    assert items_for(compare(of_counts(70, 90, 1000), 0.02, 0.05), 0.02, 0.05, 0.8) is None
    assert items_for(compare(of_counts(300, 20, 1000), 0.02, 0.05), 0.02, 0.05, 0.8) == 1001


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_nothing_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(raw <= one <= min(1.0, len(p_values) * raw) + 1e-12 for raw, one in zip(p_values, adjusted, strict=True))
    assert sorted(adjusted) == [one for _, one in sorted(zip(p_values, adjusted, strict=True))]
