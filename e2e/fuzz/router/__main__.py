"""`python -m e2e.fuzz.router`: seeded inputs against all that reads what clients and tiers send.

Exit status 1 when something did not hold, an input took too long, or memory grew.
"""

from __future__ import annotations

import argparse
import math
import sys

from e2e.fuzz.router.bodies import Bodies
from e2e.fuzz.router.replies import Replies
from e2e.fuzz.router.requests import Requests
from e2e.fuzz.router.runner import Report, resident, run
from e2e.fuzz.router.streams import Streams
from e2e.fuzz.router.target import Target

MIB = 2**20
GROWTH_MIB = 8
"""More memory than this, after the first tenth of the inputs, is a leak."""


SHARES = {"requests": 0.2, "bodies": 0.35, "streams": 0.15, "replies": 0.3}
"""Of all inputs: where one costs less, there are more."""


def targets() -> list[Target]:
    """Return every target."""
    return [Requests(), Bodies(), Streams(), Replies()]


def main(given: list[str] | None = None) -> int:
    """Run the targets and print what they showed."""
    parser = argparse.ArgumentParser(prog="python -m e2e.fuzz.router", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other inputs (%(default)s)")
    parser.add_argument("--only", choices=[target.name for target in targets()], help="this target alone")
    parser.add_argument("--at", type=int, help="this input alone; needs --only")
    options = parser.parse_args(given)
    if options.at is not None and options.only is None:
        parser.error("--at needs --only")
    chosen = [target for target in targets() if options.only in (None, target.name)]
    bad = [target.name for target in chosen if _run(target, options.seed, _numbers(target, chosen, options))]
    return 1 if bad else 0


def _numbers(target: Target, chosen: list[Target], options: argparse.Namespace) -> range:
    """Return which inputs of a target are run."""
    if options.at is not None:
        return range(options.at, options.at + 1)
    share = SHARES[target.name] / sum(SHARES[one.name] for one in chosen)
    return range(math.ceil(options.inputs * share))


def _run(target: Target, seed: int, numbers: range) -> bool:
    """Run one target: a tenth of its inputs to warm up, and the rest with an eye on memory. Whether it failed."""
    warm = max(1, len(numbers) // 10)
    first = run(target, seed, numbers[:warm])
    before = resident()
    rest = run(target, seed, numbers[warm:]) if not first.findings else Report(target.name, seen=first.seen)
    grown = (resident() - before) / MIB
    rest.inputs += first.inputs
    rest.seconds += first.seconds
    rest.slowest = max(rest.slowest, first.slowest)
    rest.findings = first.findings + rest.findings
    print(f"{rest}; memory grew by {grown:.1f} MiB (limit {GROWTH_MIB})", flush=True)
    for finding in rest.findings:
        print(finding, flush=True)
    return bool(rest.findings) or grown > GROWTH_MIB


if __name__ == "__main__":
    sys.exit(main())
