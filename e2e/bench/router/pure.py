"""What the decisions by themselves cost: `choose` before the answer and `accept` after it, in this process.

Processor time of this thread, the median of batches.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable

from e2e.bench.router import bodies, configs
from modeltiers.domain.routing.ask import read_request
from modeltiers.domain.routing.choose import Load, choose, compile_policy
from modeltiers.domain.routing.see import see
from modeltiers.domain.routing.table import Policy, Table, read_table

BATCHES = 40
BATCH = 50
HEADERS = {name.lower(): value for name, value in bodies.HEADERS.items()}
LOAD = Load(ready=(True, True))


def microseconds(call: Callable[[], object], batch: int = BATCH) -> float:
    """Return the microseconds of one call."""
    for _ in range(batch):
        call()
    times = []
    for _ in range(BATCHES):
        began = time.thread_time_ns()
        for _ in range(batch):
            call()
        times.append((time.thread_time_ns() - began) / batch)
    return statistics.median(times) / 1000


def table(**policy: object) -> Table:
    """Return the table of the load, its policy changed."""
    document = configs.table(1)
    document["policies"][0] |= policy
    return read_table(document)


def choosing(size: int, **policy: object) -> float:
    """Return what it takes to look at a request of this size and to choose, with the twenty rules."""
    read = table(**policy)
    compiled, request = compile_policy(read, read.policies[0]), read_request("chat", bodies.request(size))
    return microseconds(lambda: choose(compiled, see(compiled, request, HEADERS, "id-1"), LOAD))


def judged_policy() -> Policy:
    """Return a policy that asks for logprobs and has four validators."""
    accept = {
        "thresholdPermille": 600,
        "confidence": {"top": 2},
        "validators": [
            {"name": "refusal", "kind": "Refusal"},
            {"name": "finish", "kind": "Finish", "required": True},
            {"name": "length", "kind": "Length", "minChars": 10, "maxChars": 20_000},
            {"name": "names-policy", "kind": "Pattern", "patterns": [r"\b(order|refund|warranty)\b"]},
        ],
    }
    return table(mode="Cascade", accept=accept).policies[0]


def accepting(tokens: int = 300) -> tuple[float, float] | None:
    """Return what it takes to read a whole answer, and to judge it; nothing where judging is not built."""
    if importlib.util.find_spec("modeltiers.domain.routing.accept") is None:
        return None
    from modeltiers.domain.routing.accept import accept, compile_accept, evidence
    from modeltiers.domain.routing.answer import read_answer
    from modeltiers.domain.routing.question import question_of

    compiled = compile_accept(judged_policy())
    question = question_of(read_request("chat", bodies.request(1024)))
    body = bodies.answer(tokens, top=2)
    answer = read_answer("chat", body)
    reading = microseconds(lambda: read_answer("chat", body), 10)
    judging = microseconds(lambda: accept(compiled, evidence(compiled, question, answer, {}, whole=True)), 10)
    return reading, judging
