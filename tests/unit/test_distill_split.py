"""The split: nothing that belongs together is parted, and nothing but rows and seed has a say."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.distilljob import Split
from modeltiers.domain.distill.counts import MOST, by_slice
from modeltiers.domain.distill.likeness import Vocabulary
from modeltiers.domain.distill.split import Item, Parted, TooFewRows, clusters, part

QUESTION = "Which planet of our solar system has by far the most known moons, and since when?"


def items(*rows: tuple[str, str], **more: Any) -> list[Item]:
    """Items of groups and texts."""
    vocabulary = Vocabulary()
    return [Item(f"{index:03}", group, vocabulary.text(text), **more) for index, (group, text) in enumerate(rows)]


def alone(count: int, start: int = 0) -> list[Item]:
    """Items that have nothing to do with each other."""
    return items(*((f"g{number}", f"{number} {number * 7}") for number in range(start, start + count)))


def split(evaluation: int, calibration: int = 0, **more: Any) -> Split:
    """A split as the spec says it."""
    return Split.model_validate({"evaluation": evaluation, "calibration": calibration, **more})


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdefghij"),
        st.sampled_from([QUESTION, QUESTION.replace("our", "the"), "What is 7 plus 8?", "What is 7 plus 9?", "hello"])
        | st.text("xyz ", min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=30,
)


def parted(rows: list[Item], spec: Split) -> Parted | None:
    """Where rows go; None where they do not suffice."""
    try:
        return part(rows, spec)
    except TooFewRows:
        return None


@given(ROWS, st.integers(1, 8), st.integers(0, 4), st.integers(0, 3))
def test_groups_and_clusters_never_straddle(
    rows: list[tuple[str, str]], evaluation: int, calibration: int, seed: int
) -> None:
    given_rows = items(*rows)
    found = parted(given_rows, split(evaluation, calibration, seed=seed))
    if found is None:
        return
    for key in (lambda item: item.group, lambda item: item.text, lambda item: found.cluster[item.id]):
        parts = defaultdict(set)
        for item in given_rows:
            if item.text.words:
                parts[key(item)].add(found.part[item.id])
        assert all(len(one) == 1 for one in parts.values())
    counts = Counter(found.part.values())
    assert counts["evaluation"] >= evaluation
    assert counts["calibration"] >= calibration
    assert counts["train"] > 0


@given(ROWS, st.lists(st.booleans(), min_size=30, max_size=30))
def test_nothing_that_is_like_a_red_team_row_is_in_another_part(rows: list[tuple[str, str]], red: list[bool]) -> None:
    given_rows = [replace(item, red_team=flag) for item, flag in zip(items(*rows), red, strict=False)]
    found = parted(given_rows, split(1))
    if found is None:
        return
    clustered = {found.cluster[item.id] for item in given_rows if item.red_team}
    for item in given_rows:
        part_of = found.part.get(item.id)
        assert (part_of == "redTeam") is item.red_team
        assert (part_of in (None, "redTeam")) is (found.cluster[item.id] in clustered)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[tuple[str, str]], roll: random.Random) -> None:
    ahead = items(*rows)
    behind = roll.sample(ahead, len(ahead))
    assert parted(ahead, split(2, 1)) == parted(behind, split(2, 1))


def test_a_row_more_moves_at_most_one_other_of_each_part() -> None:
    before, after = part(alone(100), split(20, 10)), part(alone(101), split(20, 10))
    moved = Counter((name, after.part[row]) for row, name in before.part.items() if after.part[row] != name)
    assert sum(moved.values()) <= 2


def test_another_seed_is_another_split() -> None:
    assert part(alone(100), split(20)).part != part(alone(100), split(20, seed=18)).part


def test_parts_have_just_so_many_rows_where_clusters_are_small() -> None:
    assert Counter(part(alone(100), split(20, 10)).part.values()) == {"train": 70, "evaluation": 20, "calibration": 10}


def test_a_part_has_more_rows_rather_than_too_few() -> None:
    rows = items(*((f"g{number // 3}", f"{number}") for number in range(30)))
    assert Counter(part(rows, split(10)).part.values()) == {"train": 18, "evaluation": 12}


def test_near_duplicates_are_one_cluster_named_after_the_first_id() -> None:
    rows = items(("a", QUESTION), ("b", QUESTION.replace("our", "the")), ("b", "hello"), ("c", "What is 7 plus 8?"))
    assert sorted(map(sorted, clusters(rows, 0.8))) == [[0, 1, 2], [3]]
    assert sorted(map(sorted, clusters(rows, 1.0))) == [[0], [1, 2], [3]]
    found = part(rows, split(1))
    assert (found.cluster["002"], found.cluster["003"], found.largest) == ("000", "003", 3)


def test_rows_without_a_word_are_not_the_same() -> None:
    assert len(clusters(items(("a", "🙂"), ("b", "🙁")), 0.8)) == 2


def test_what_is_like_a_red_team_row_goes_nowhere() -> None:
    rows = alone(10)
    red = Item("red", "r", rows[3].text, red_team=True)
    found = part([*rows, red], split(2))
    assert {name for name, where in found.part.items() if where == "redTeam"} == {"red"}
    assert found.cluster.keys() - found.part.keys() == {"003"}


def test_rows_that_cannot_be_tested_are_trained_on() -> None:
    rows = [*alone(10), *(Item(f"x{n}", f"x{n}", one.text, testable=False) for n, one in enumerate(alone(5, 50)))]
    found = part(rows, split(9))
    assert {found.part[f"x{n}"] for n in range(5)} == {"train"}


@pytest.mark.parametrize(
    ("rows", "spec", "said"),
    [
        (alone(10), split(20), r"^spec.data.split.evaluation: 20 rows are wanted, 10 are left: 10 rows in 10 clusters"),
        (alone(10), split(8, 5), "^spec.data.split.calibration: 5 rows are wanted, 2 are left"),
        (alone(10), split(8, 2), "^spec.data.split.evaluation: no row is left to train on: 10 are to be sealed"),
        (items(*[("one", f"{n}") for n in range(50)]), split(20), "no row is left .* the largest has 50"),
        (items(("a", "1"), testable=False), split(1), "1 rows are wanted, 0 are left: 0 rows in 0 clusters"),
        ([], split(1), "1 rows are wanted, 0 are left"),
    ],
)
def test_too_few_rows_say_how_many_and_which_field(rows: list[Item], spec: Split, said: str) -> None:
    with pytest.raises(TooFewRows, match=said):
        part(rows, spec)


def test_a_student_tuned_elsewhere_needs_no_row_to_train_on() -> None:
    assert set(part(alone(10), split(10), train=False).part.values()) == {"evaluation"}


def test_slices_are_told_by_name_and_the_many_together() -> None:
    assert by_slice(Counter({"": 5})) == {}
    assert by_slice(Counter({"b": 1, "a": 2, "": 5})) == {"(none)": 5, "a": 2, "b": 1}
    many = by_slice(Counter({f"s{n:02}": n for n in range(1, 30)}))
    assert len(many) == MOST + 1
    assert many["(others)"] == sum(range(1, 14))
