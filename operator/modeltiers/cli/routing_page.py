"""The reference page of what decides: every reason before and after an answer, and every feature of the score.

It prints the tables that the code decides by, and adds no words of its own to their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from modeltiers.api.crd import HEADER
from modeltiers.domain.routing import accept, choose, features

_INTRO: Final = """
How these work together is told in [routing](../routing.md).

## Reasons before the answer

Why the first tier is the first: the header `x-modeltiers-reason`, a label of the metrics, and in every decision record.
"""
_AFTER: Final = """
## Reasons after the answer

Why an answer of a tier below the top was taken or not, in modes Cascade and Hybrid.
"""
_SCORE: Final = """
## The score

Each feature is a count. It adds `weight x ln(1 + count / scale)`; the sum begins at {bias}, and the score is
`1 / (1 + exp(-sum))`, kept to {digits} decimals. Every weight is above 0, so more of any sign never lowers the score.
Nobody fitted the weights to outcomes: the score orders prompts, it is no probability. Records name this table
`{scorer}`.
"""


def routing_page() -> str:
    """Return the page."""
    score = _SCORE.format(bias=features.BIAS, digits=features.DIGITS, scorer=features.SCORER)
    weights = (
        (f"`{one.name}`", f"{one.weight:.2f}", f"{one.scale:g}", _sentence(one.why)) for one in features.FEATURES
    )
    lines = [
        f"<!-- {HEADER} -->",
        "",
        "# Reasons and features",
        *_INTRO.splitlines(),
        *_table(("reason", "meaning"), _reasons(choose.REASONS.items())),
        *_AFTER.splitlines(),
        *_table(("reason", "meaning"), _reasons(accept.REASONS.items())),
        *score.splitlines(),
        *_table(("feature", "weight", "scale", "what is counted"), weights),
    ]
    return "\n".join(lines) + "\n"


def _reasons(reasons: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, meaning in reasons:
        yield f"`{name}`", _sentence(meaning)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield from ("", f"| {' | '.join(head)} |", "|---" * len(head) + "|")
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
