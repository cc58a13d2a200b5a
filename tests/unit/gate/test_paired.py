"""The paired test: published intervals, and what must hold of any data."""

from __future__ import annotations

from dataclasses import astuple
from math import isnan, sqrt
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modeltiers.domain.gate.items import GateError, Pair
from modeltiers.domain.gate.paired import compare, fewest, non_inferiority
from modeltiers.domain.gate.tally import of_counts, tally

scores = st.sampled_from([0, 333, 500, 667, 1000])
binary = st.sampled_from([0, 1000])
margins = st.integers(0, 400).map(lambda permille: permille / 1000)
alphas = st.integers(1, 300).map(lambda permille: permille / 1000)


@st.composite
def some_pairs(draw: st.DrawFn) -> list[Pair]:
    score = draw(st.sampled_from([scores, binary]))
    most = draw(st.sampled_from([3, 50]))
    clusters = st.integers(0, most).map(str)
    return draw(st.lists(st.builds(Pair, clusters, score, score), min_size=1, max_size=60))


@pytest.mark.parametrize(
    ("won", "lost", "items", "level", "lower", "upper"),
    [
        (9, 3, 32, 0.95, -0.027, 0.390),  # Tango 1998
        (0, 1, 44, 0.90, -0.096, 0.037),  # Tango 1998: soft contact lenses
        (16, 8, 86, 0.95, -0.020, 0.207),  # Agresti and Min 2005
        (1, 7, 21, 0.95, -0.517, -0.026),  # Fagerland, Lydersen and Laake 2014: airways
        (25, 2, 102, 0.95, 0.139, 0.321),  # Chang and others 2024
        (3, 1, 14, 0.95, -0.1670, 0.4327),  # Tang, Ling and others 2010
    ],
)
def test_published_intervals(won: int, lost: int, items: int, level: float, lower: float, upper: float) -> None:
    found = compare(of_counts(won, lost, items), 0.02, (1 - level) / 2)
    assert (found.lower, found.upper) == pytest.approx((lower, upper), abs=6e-4)


def test_at_no_margin_it_is_mcnemar() -> None:
    found = compare(of_counts(12, 27, 300), 0.0, 0.05)
    chi = (12 - 27) ** 2 / (12 + 27)
    assert sqrt(chi) == pytest.approx(2.4019, abs=1e-4)
    assert found.p_worse == pytest.approx(0.00816, abs=1e-5)


def test_counts_and_pairs_say_the_same() -> None:
    pairs = [Pair(str(n), 1000 * (n < 12 or n >= 39), 1000 * (n >= 12)) for n in range(300)]
    assert tally(pairs) == of_counts(12, 27, 300)


def test_a_copy_needs_as_many_items_as_would_show_one_loss_in_the_margin() -> None:
    assert fewest(0.02, 0.05) == 149
    assert 0.98**149 <= 0.05 < 0.98**148
    same = [Pair(str(n), 1000, 1000) for n in range(149)]
    assert non_inferiority(same, 0.02, 0.05).p_value < 0.05
    assert non_inferiority(same[:130], 0.02, 0.05).p_value > 0.05


@given(some_pairs(), st.randoms(use_true_random=False), margins, alphas)
def test_order_and_names_do_not_matter(pairs: list[Pair], random: Random, margin: float, alpha: float) -> None:
    found = non_inferiority(pairs, margin, alpha)
    shuffled = random.sample(pairs, len(pairs))
    renamed = [pair._replace(cluster=f"{hash(pair.cluster)}") for pair in shuffled]
    assert non_inferiority(renamed, margin, alpha) == found


@given(some_pairs(), alphas)
def test_the_two_sides_mirror_each_other(pairs: list[Pair], alpha: float) -> None:
    here = non_inferiority(pairs, 0.0, alpha)
    there = non_inferiority([Pair(c, reference, candidate) for c, candidate, reference in pairs], 0.0, alpha)
    assert there.difference == pytest.approx(-here.difference, abs=1e-12)
    assert (there.lower, there.upper) == pytest.approx((-here.upper, -here.lower), abs=1e-9)
    assert (there.p_value, there.p_worse) == pytest.approx((here.p_worse, here.p_value), abs=1e-9)
    assert there.design_effect == pytest.approx(here.design_effect)


@given(some_pairs(), margins, margins, alphas)
def test_a_wider_margin_is_easier(pairs: list[Pair], one: float, other: float, alpha: float) -> None:
    narrow, wide = (non_inferiority(pairs, margin, alpha) for margin in sorted((one, other)))
    assert wide.p_value <= narrow.p_value + 1e-12
    assert wide.p_worse >= narrow.p_worse - 1e-12
    assert (wide.lower, wide.upper) == (narrow.lower, narrow.upper)


@given(some_pairs(), alphas, alphas)
def test_a_smaller_alpha_is_a_wider_interval(pairs: list[Pair], one: float, other: float) -> None:
    strict, lax = (non_inferiority(pairs, 0.02, alpha) for alpha in sorted((one, other)))
    assert strict.lower <= lax.lower <= lax.difference + 1e-12
    assert lax.difference - 1e-12 <= lax.upper <= strict.upper


@given(some_pairs(), margins, alphas)
def test_bounds_and_p_values_agree(pairs: list[Pair], margin: float, alpha: float) -> None:
    found = non_inferiority(pairs, margin, alpha)
    assume(abs(found.lower + margin) > 1e-6 and abs(found.upper + margin) > 1e-6)
    assert (found.p_value <= alpha) == (found.lower > -margin)
    assert (found.p_worse <= alpha) == (found.upper < -margin)


@given(some_pairs(), st.integers(2, 4), margins)
def test_copies_inside_their_clusters_prove_nothing_more(pairs: list[Pair], copies: int, margin: float) -> None:
    once, often = non_inferiority(pairs, margin, 0.05), non_inferiority(pairs * copies, margin, 0.05)
    assert often.difference == pytest.approx(once.difference)
    assert often.lower <= once.lower + 1e-9
    assert often.upper >= once.upper - 1e-9
    assert often.design_effect >= once.design_effect - 1e-9


@given(st.lists(st.tuples(binary, binary), min_size=2, max_size=200), st.integers(2, 5))
def test_items_that_are_copied_are_needed_so_much_oftener(answers: list[tuple[int, int]], copies: int) -> None:
    copied = tally(Pair(str(n), *scored) for n, scored in enumerate(answers) for _ in range(copies))
    assert copied.effective == pytest.approx(len(answers))
    assert copied.design_effect >= copies - 1e-9


@given(st.lists(st.tuples(binary, binary), min_size=2, max_size=200))
def test_clusters_that_are_one_item_each_are_items(answers: list[tuple[int, int]]) -> None:
    alone = tally(Pair(str(n), *scored) for n, scored in enumerate(answers))
    assert alone.df == float("inf")
    assert alone.effective == alone.items == len(answers)
    assert alone.size == alone.design_effect == 1.0


def test_one_cluster_says_nothing_of_others() -> None:
    found = non_inferiority([Pair("only", 1000, 0)] * 500, 0.02, 0.05)
    assert (found.lower, found.upper, found.p_value, found.p_worse) == (-1.0, 1.0, 0.5, 0.5)


def test_items_of_one_cluster_that_go_together_count_as_one() -> None:
    random = Random(1)  # noqa: S311 - repeatable, not secret
    pairs = []
    for cluster in range(300):
        gone = random.random()
        pairs += [Pair(str(cluster), 1000 * (gone > 0.1), 1000 * (gone > 0.05 or gone < 0.02))] * 10
    together = non_inferiority(pairs, 0.02, 0.05)
    assert together.n == 3000
    assert together.clusters == 300
    assert together.design_effect == pytest.approx(10, rel=0.01)
    singles = non_inferiority([pair for n, pair in enumerate(pairs) if n % 10 == 0], 0.02, 0.05)
    assert together.lower == pytest.approx(singles.lower, abs=0.002)


def test_graded_scores_prove_more_than_the_same_disagreement_in_full() -> None:
    halves = [Pair(str(n), 1000 - 500 * (n % 10 == 0), 1000 - 500 * (n % 10 == 5)) for n in range(500)]
    whole = [Pair(str(n), 1000 - 1000 * (n % 10 == 0), 1000 - 1000 * (n % 10 == 5)) for n in range(500)]
    assert non_inferiority(halves, 0.02, 0.05).lower > non_inferiority(whole, 0.02, 0.05).lower
    assert non_inferiority(halves, 0.02, 0.05).discordance == pytest.approx(0.05)


@given(some_pairs(), margins, alphas)
def test_every_number_is_in_its_range(pairs: list[Pair], margin: float, alpha: float) -> None:
    found = non_inferiority(pairs, margin, alpha)
    assert -1 <= found.lower <= found.difference + 1e-12
    assert found.difference - 1e-12 <= found.upper <= 1
    assert 0 <= found.p_value <= 1
    assert 0 <= found.p_worse <= 1
    assert found.design_effect >= 1
    assert not any(isnan(value) for value in astuple(found))


@pytest.mark.parametrize(
    ("pairs", "margin", "alpha", "said"),
    [
        ([], 0.02, 0.05, "no items"),
        ([Pair("a", 1001, 0)], 0.02, 0.05, "1001 and 0 in cluster 'a': give permille"),
        ([Pair("a", 0, -1)], 0.02, 0.05, "give permille"),
        ([Pair("a", 0, 0)], -0.01, 0.05, "margin is -0.01; it must be at least 0"),
        ([Pair("a", 0, 0)], 1.0, 0.05, "below 1"),
        ([Pair("a", 0, 0)], 0.02, 0.0, "alpha is 0; it must be above 0"),
        ([Pair("a", 0, 0)], 0.02, 0.5, "below 0.5"),
    ],
)
def test_what_cannot_be_compared_is_refused(pairs: list[Pair], margin: float, alpha: float, said: str) -> None:
    with pytest.raises(GateError, match=said):
        non_inferiority(pairs, margin, alpha)


@pytest.mark.parametrize("counts", [(1, 1, 0), (-1, 0, 5), (3, 3, 5)])
def test_counts_that_do_not_add_up_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(GateError, match="do not add up"):
        of_counts(*counts)
