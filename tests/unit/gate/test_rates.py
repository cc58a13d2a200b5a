"""How often the gate errs: exactly where items stand alone, drawn with a fixed seed where they do not."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random

import pytest

from e2e.bench.gate import __main__ as bench
from e2e.bench.gate import drawn, exact
from modeltiers.domain.gate.decide import decide
from modeltiers.domain.gate.items import Pair
from modeltiers.domain.gate.looks import Ledger
from modeltiers.domain.gate.paired import p_values
from modeltiers.domain.gate.power import items_needed
from modeltiers.domain.gate.rule import Rule
from modeltiers.domain.gate.tally import tally
from modeltiers.domain.gate.verdict import not_worse
from tests.unit.gate.people import flipped

TEACHER = Rule(margin=None, teacher_margin=20, max_looks=1)


@pytest.mark.parametrize("discordance", [0.06, 0.15, 0.40])
@pytest.mark.parametrize("items", [20, 35, 50, 100, 300, 1000])
def test_five_points_worse_is_promoted_at_most_once_in_a_hundred(items: int, discordance: float) -> None:
    assert exact.chance(exact.gate, items, discordance, 0.05) <= 0.01


@pytest.mark.parametrize(("items", "discordance"), [(20, 0.15), (50, 0.05), (50, 0.3), (150, 0.02), (400, 0.1)])
def test_at_the_margin_the_test_keeps_its_error_where_others_do_not(items: int, discordance: float) -> None:
    assert exact.chance(exact.shown, items, discordance, 0.02) <= 0.06


@pytest.mark.parametrize("discordance", [0.021, 0.05, 0.15, 0.4])
@pytest.mark.parametrize("items", [5, 10, 20, 50, 100, 500])
def test_few_items_do_not_fail_a_student_by_luck(items: int, discordance: float) -> None:
    assert exact.chance(exact.fails, items, discordance, 0.02) <= 0.075
    assert exact.chance(exact.fails, items, discordance, 0.0) <= 0.055


def test_an_equal_student_passes_with_the_promised_power() -> None:
    needed = items_needed(0.10, 0.03, 0.05, 0.8)
    assert 0.77 <= exact.chance(partial(exact.shown, margin=0.03), needed, 0.10, 0.0) <= 0.83


def test_the_bench_asks_the_gate_itself() -> None:
    random = Random(4)  # noqa: S311 - repeatable, not secret
    seen: Counter[bool] = Counter()
    for _ in range(150):
        items = random.randint(1, 1500)
        won = random.randint(0, items // 20)
        lost = random.randint(0, min(items - won, items // 30))
        pairs = [Pair(str(n), 1000 * (n < won), 1000 * (won <= n < won + lost)) for n in range(items)]
        passes = not_worse(exact.RULE, "incumbent", pairs, "incumbent", 20, exact.ALPHA).outcome == "Pass"
        assert exact.gate(won, lost, items) == passes
        seen[passes] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize("discordance", [0.06, 0.15])
@pytest.mark.parametrize("clusters", [20, 60])
def test_conversations_do_not_fool_it(clusters: int, discordance: float) -> None:
    world = drawn.World(discordance, alike=0.3, longest=9)
    worse = drawn.chances(world, clusters, 0.05, runs=300, seed=1)
    assert worse["the gate"] <= 0.01
    assert worse["our test"] <= 0.01
    margin = drawn.chances(world, clusters, 0.02, runs=300, seed=2)
    assert margin["our test"] <= 0.08
    assert margin["turns as if alone"] > margin["our test"]


def test_graded_scores_of_few_items_keep_the_error() -> None:
    random = Random(9)  # noqa: S311 - repeatable, not secret
    passed = 0
    for _ in range(1500):
        pairs = []
        for number in range(30):
            draw = random.random()
            # Two points worse: one in ten loses a third, one in twenty gains a third, 1 in 300 loses all.
            loss = 1000 if draw < 1 / 300 else 333 if draw < 0.1 + 1 / 300 else 0
            gain = 333 if draw > 0.95 else 0
            pairs.append(Pair(str(number), 1000 - loss, 1000 - gain))
        passed += p_values(tally(pairs), 0.02)[0] <= 0.05
    assert passed / 1500 <= 0.065


def test_a_copy_of_the_teacher_passes_and_five_flipped_answers_in_a_hundred_fail() -> None:
    """200 seeds. A flip loses nine times and wins once: the student is 4 points worse."""
    copies: Counter[str] = Counter()
    flips: Counter[str] = Counter()
    for seed in range(200):
        copies[decide(TEACHER, flipped(200, 0.0, seed), Ledger("s"), "look").outcome] += 1
        flips[decide(TEACHER, flipped(1000, 0.05, seed), Ledger("s"), "look").outcome] += 1
    assert copies == {"Pass": 200}
    assert flips["Pass"] == 0
    assert flips["Fail"] >= 160


def test_the_page_has_the_tables_of_this_code() -> None:
    page = bench.PAGE.read_text(encoding="utf-8")
    assert bench.alone_row(100) in page
    assert bench.power_row(0.05, 0.10) in page
    assert bench.BEGIN in page
    assert bench.END in page
