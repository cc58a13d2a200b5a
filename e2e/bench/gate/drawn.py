"""Promotion among conversations, drawn with a fixed seed: there are too many outcomes to weigh them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from random import Random
from statistics import fmean, stdev

from e2e.bench.gate.exact import ALPHA, MARGIN, RULE, shown
from modeltiers.domain.gate.items import Pair
from modeltiers.domain.gate.paired import p_values
from modeltiers.domain.gate.student_t import upper_tail
from modeltiers.domain.gate.tally import tally
from modeltiers.domain.gate.verdict import not_worse

Draw = list[list[int]]
"""Conversations, each with its turns: 1 won, -1 lost, 0 the same."""


@dataclass(frozen=True, slots=True)
class World:
    """Conversations of 1 to `longest` turns; in a share of them all turns go as the first does."""

    discordance: float
    alike: float
    longest: int

    def draw(self, random: Random, clusters: int, worse: float) -> Draw:
        """One evaluation in which the student is `worse` by so much."""
        win, differ = (self.discordance - worse) / 2, self.discordance
        drawn = []
        for _ in range(clusters):
            turns = random.randint(1, self.longest)
            values = [random.random() for _ in range(turns)]
            if random.random() < self.alike:
                values = values[:1] * turns
            drawn.append([1 if value < win else -1 if value < differ else 0 for value in values])
        return drawn


def as_if_alone(draw: Draw) -> bool:
    """The score test with every turn for an item by itself."""
    turns = [turn for one in draw for turn in one]
    return shown(turns.count(1), turns.count(-1), len(turns))


def t_test(draw: Draw) -> bool:
    """The usual t-test over conversations."""
    items = sum(map(len, draw))
    centre = sum(map(sum, draw)) / items
    sums = [sum(one) - centre * len(one) for one in draw]
    error = stdev(sums) * sqrt(len(draw)) / items
    if error == 0:
        return centre > -MARGIN
    return upper_tail((centre + MARGIN) / error, len(draw) - 1) <= ALPHA


def pairs(draw: Draw) -> list[Pair]:
    """The same as scores."""
    return [Pair(str(number), 1000 * (turn > 0), 1000 * (turn < 0)) for number, one in enumerate(draw) for turn in one]


def test_alone(draw: Draw) -> bool:
    """The gate's test on any number of items."""
    return p_values(tally(pairs(draw)), MARGIN)[0] <= ALPHA


def gate(draw: Draw) -> bool:
    """The gate: shown, on as many items as the power takes."""
    return not_worse(RULE, "incumbent", pairs(draw), "incumbent", round(1000 * MARGIN), ALPHA).outcome == "Pass"


RULES: dict[str, Callable[[Draw], bool]] = {
    "turns as if alone": as_if_alone,
    "t-test": t_test,
    "our test": test_alone,
    "the gate": gate,
}


def chances(world: World, clusters: int, worse: float, runs: int, seed: int) -> dict[str, float]:
    """How often each rule promotes."""
    random = Random(f"{seed} {world} {clusters} {worse}")  # noqa: S311  # draws to be repeated, not secrets
    draws = [world.draw(random, clusters, worse) for _ in range(runs)]
    return {name: fmean(map(rule, draws)) for name, rule in RULES.items()}
