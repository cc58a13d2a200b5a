"""How long one plan takes: every catalogue model on every accelerator of the bundled table, both objectives.

    python -m e2e.bench.plan

Time is this process's own CPU time, so that a busy machine does not slow the figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from modeltiers.domain import accelerators, catalogue
from modeltiers.domain.accelerators import TABLE, Wanted
from modeltiers.domain.sizing import Ask, Plan, fit

REPEATS = 5


def bench() -> dict[str, list[int]]:
    """CPU nanoseconds of each plan, the best of some repeats, by what came of it."""
    devices = [accelerators.resolve(Wanted("a", product), None) for product in sorted(TABLE)]
    times: dict[str, list[int]] = {"fits": [], "does not fit": []}
    for model in catalogue.load().models.values():
        for device in devices:
            for objective in ("Cost", "Latency"):
                ask = Ask(objective, concurrency=32)
                outcome = "fits" if isinstance(fit(model, [device], ask), Plan) else "does not fit"
                times[outcome].append(min(_time(partial(fit, model, [device], ask)) for _ in range(REPEATS)))
    return times


def _time(call: Callable[[], object]) -> int:
    before = time.process_time_ns()
    call()
    return time.process_time_ns() - before


def main() -> None:
    """Print median, 99th percentile and longest, in microseconds."""
    for outcome, taken in bench().items():
        cuts = statistics.quantiles(taken, n=100)
        print(
            f"plan that {outcome}: median {cuts[49] / 1000:.0f} us, p99 {cuts[98] / 1000:.0f} us, "
            f"longest {max(taken) / 1000:.0f} us, n = {len(taken)}"
        )


if __name__ == "__main__":
    main()
