"""The tables of docs/gate.md, computed anew, and how long a decision takes.

python -m e2e.bench.gate            print them
python -m e2e.bench.gate --write    and put them into the page
python -m e2e.bench.gate --check    or fail where the page says something else
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

from e2e.bench.gate import drawn, exact
from e2e.bench.gate.drawn import World
from modeltiers.domain.gate.decide import decide
from modeltiers.domain.gate.items import read_items
from modeltiers.domain.gate.looks import Ledger
from modeltiers.domain.gate.power import items_needed
from modeltiers.domain.gate.rule import Rule, SliceRule

PAGE = Path(__file__).parents[3] / "docs" / "gate.md"
BEGIN, END = "<!-- begin: python -m e2e.bench.gate --write -->\n", "<!-- end -->\n"
SEED, RUNS = 6, 2000
WORSE = (0.0, 0.02, 0.05, 0.10)


def percent(chance: float) -> str:
    """A chance as the tables have it."""
    if 0 < chance < 0.0005:
        return "< 0.1 %"
    return f"{100 * chance:.1f} %" if chance < 0.0995 else f"{100 * chance:.0f} %"


def alone_row(items: int) -> str:
    """Promotion by each rule at one number of items; the models differ on 15 %."""
    rules = (exact.within_points, exact.not_significant, exact.shown, exact.gate, exact.fails)
    cells = [" / ".join(percent(exact.chance(rule, items, 0.15, worse)) for worse in WORSE) for rule in rules]
    return f"| {items} | " + " | ".join(cells) + " |"


def alone() -> Iterator[str]:
    """Rules compared on items that stand alone."""
    yield "Chance that a student is promoted that is equal / 2 / 5 / 10 points worse. Margin 2 points, alpha 5 %, the"
    yield "two models differ on 15 % of the items, which stand alone. Last, the chance that the gate fails it. Exact:"
    yield "every outcome is weighed by its chance."
    yield ""
    rules = ('"Within 2 points, as seen"', '"McNemar finds no difference"', "Our test alone", "The gate", "It fails")
    yield "| Items | " + " | ".join(rules) + " |"
    yield "|---|---|---|---|---|---|"
    yield from map(alone_row, (20, 50, 100, 200, 500, 1000, 2000, 2319, 2667, 4000))


def power_row(margin: float, discordance: float) -> str:
    """Chance that an equal student passes at the needed number of items."""
    needed = items_needed(discordance, margin, exact.ALPHA, exact.POWER)
    pilot = exact.chance(partial(exact.shown, margin=margin), needed, discordance, 0.0)
    same = exact.chance(partial(exact.gate, margin=margin), needed, discordance, 0.0)
    more = exact.chance(partial(exact.gate, margin=margin), round(needed * 1.15), discordance, 0.0)
    first = items_needed(discordance, margin, exact.ALPHA / 2, exact.POWER)
    told = (f"{100 * margin:g} points", f"{100 * discordance:g} %", f"{needed}", f"{first}")
    cells = (*told, *map(percent, (pilot, same, more)))
    return "| " + " | ".join(cells) + " |"


def power() -> Iterator[str]:
    """Items needed, and what they bring."""
    yield "Items needed for an equal student with a power of 80 %, at alpha 5 % and at the first look of five; and the"
    yield "chance at alpha 5 % that it passes on so many: with the number from a pilot; with that worked out from the"
    yield "same look; so, but with 15 % more items."
    yield ""
    yield "| Margin | Models differ on | Needed | First of 5 looks | From a pilot | From the same look | 15 % more |"
    yield "|---|---|---|---|---|---|---|"
    for margin in (0.02, 0.03, 0.05):
        for discordance in (0.05, 0.10, 0.20):
            yield power_row(margin, discordance)


def conversations(world: World) -> Iterator[str]:
    """Rules compared on conversations."""
    yield f"Conversations of 1 to {world.longest} turns; in {100 * world.alike:g} % of them all turns go the same way."
    yield f"The models differ on {100 * world.discordance:g} % of the turns. Chance that a student is promoted that is"
    yield f"2 / 5 points worse, in {RUNS} draws of seed {SEED}."
    yield ""
    yield "| Conversations | " + " | ".join(drawn.RULES) + " |"
    yield "|---|" + "---|" * len(drawn.RULES)
    for clusters in (20, 50, 200, 800):
        found = [drawn.chances(world, clusters, worse, RUNS, SEED) for worse in (0.02, 0.05)]
        cells = [" / ".join(percent(one[name]) for one in found) for name in drawn.RULES]
        yield f"| {clusters} | " + " | ".join(cells) + " |"


def tables() -> str:
    """All of them, as Markdown."""
    parts = (alone(), power(), conversations(World(0.15, 0.3, 9)), conversations(World(0.05, 0.3, 9)))
    return "\n".join("\n".join(part) + "\n" for part in parts)


def milliseconds(items: int = 2000, repeats: int = 9) -> float:
    """Median CPU time of one decision: four models, three slices, a red-team part."""
    random = Random(SEED)  # noqa: S311  # draws to be repeated, not secrets
    rows = [
        {
            "item": f"i{number}",
            "cluster": f"c{number // 3}",
            "slice": "abc"[number % 3],
            "part": "redTeam" if number % 10 == 0 else "evaluation",
            "scores": {who: random.choice((0, 333, 667, 1000)) for who in ("student", "base", "incumbent", "teacher")},
        }
        for number in range(items)
    ]
    rule = Rule(teacher_margin=30, slices=tuple(map(SliceRule, "abc")), red_team_margin=0, out_of_slice_margin=50)
    times = []
    for _ in range(repeats):
        began = time.process_time()
        decide(rule, read_items(rows), Ledger("sealed"), "look")
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times)


def main() -> int:
    """Print the tables and the time; write the page or compare with it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.gate")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/gate.md")
    parser.add_argument("--check", action="store_true", help="fail where docs/gate.md has other tables")
    asked = parser.parse_args()
    text = tables()
    print(text)
    print(f"one decision on 2000 items, rows read and judged: {milliseconds():.0f} ms of one core")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    if asked.check and old != text:
        print(f"{PAGE.name} has other tables: run python -m e2e.bench.gate --write and review them", file=sys.stderr)
        return 1
    if asked.write:
        PAGE.write_text(before + BEGIN + text + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
