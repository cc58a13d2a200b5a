"""The record of one request: what `choose` saw and said, each attempt, what it cost; enough to compute it all again.

No text of prompt or answer is in it. The same record has one encoding, byte for byte. Where time comes from and where
records go is not its business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from modeltiers.domain.routing import features
from modeltiers.domain.routing.accept import Evidence, Verdict
from modeltiers.domain.routing.ask import Ask
from modeltiers.domain.routing.choose import Choice, Load, choose
from modeltiers.domain.routing.revisions import is_beside
from modeltiers.domain.routing.rules import CompiledPolicy, compile_policy
from modeltiers.domain.routing.table import Accept, InvalidTable, Policy, Table, Tier

FORMAT: Final = 1
"""The format this program writes and reads."""

Outcome = Literal["Answered", "Escalated", "Abandoned", "Failed", "Rejected", "ClientLeft", "Drained"]
"""Answered: it gave the answer. Escalated: it answered and was found wanting. Abandoned: it was stopped while it
answered, as lost. Failed: no answer came. Rejected: it refused, and the client was told. Then who ended it."""


class BadRecord(ValueError):
    """A line that is no decision record; says why."""


class Usage(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Tokens as a tier counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Attempt(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One call to a tier."""

    tier: str
    outcome: Outcome
    reason: str | None = None
    """Why it did not give the answer: a failure's name, or the verdict's reason."""
    status: int | None = None
    """The HTTP status; None when no head came."""
    ms: int = 0
    usage: Usage = Usage()
    estimated: bool = False
    """The usage is ours, not the tier's: it was stopped before it said what it counted."""
    evidence: Evidence | None = None
    """What `accept` saw of the answer; None when the answer was not judged."""
    verdict: Verdict | None = None
    revision: str | None = None
    """Which revision of the tier, where it has two."""


class Cost(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What was used and paid for: by the answer that was given, and by the decision, which is all else."""

    answer: Usage = Usage()
    decision: Usage = Usage()
    answer_micros: int = 0
    """Millionths of the currency unit, rounded up for each call."""
    decision_micros: int = 0


class DecisionRecord(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One request."""

    format: Literal[1]
    id: str
    time_ms: int
    """Unix time at which the request was read, in milliseconds."""
    policy: str
    table: str
    """The version of the table in force."""
    ask: Ask
    load: Load
    choice: Choice
    attempts: tuple[Attempt, ...] = ()
    final_tier: str | None = None
    """The tier whose answer was given."""
    cost: Cost = Cost()


_NOTHING: Final = Usage()
_ENCODE: Final = msgspec.json.Encoder(order="deterministic").encode
_DECODE: Final = msgspec.json.Decoder(DecisionRecord).decode
Judge = Callable[[Accept, Evidence], Verdict]
"""From a policy's `accept` and the evidence of an attempt to its verdict."""


def encode(record: DecisionRecord) -> bytes:
    """Return the one encoding of a record: JSON on one line, keys in order, without the line's end."""
    return _ENCODE(record)


def decode(line: bytes) -> DecisionRecord:
    """Return the record of a line; raises BadRecord."""
    try:
        return _DECODE(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"is no decision record of format {FORMAT}: {error}") from None


def version_of(table: Table, content: bytes) -> str:
    """Return the version of a table: the one it states, else the hash of the file's content."""
    return table.version or hashlib.sha256(content).hexdigest()[:12]


# --- money ------------------------------------------------------------------------------------------------------------


def cost_micros(tier: Tier, usage: Usage) -> int:
    """Return what a call cost, in millionths of the currency unit, rounded up."""
    price = tier.price
    exact = (
        usage.prompt_tokens * price.input_per_million_micros + usage.completion_tokens * price.output_per_million_micros
    )
    return -(-exact // 1_000_000)


def account(tiers: Sequence[Tier], attempts: Iterable[Attempt]) -> Cost:
    """Add up what all attempts used: the one that answered for the answer, the others for the decision.

    A tier that the table lacks costs nothing.
    """
    given: list[Usage] = []
    other: list[Usage] = []
    micros = [0, 0]
    for attempt in attempts:
        answers = attempt.outcome == "Answered"
        (given if answers else other).append(attempt.usage)
        for tier in tiers:
            if tier.name == attempt.tier:
                micros[not answers] += cost_micros(tier, attempt.usage)
                break
    return Cost(_sum(given), _sum(other), micros[0], micros[1])


def _sum(usages: list[Usage]) -> Usage:
    if len(usages) == 1:
        return usages[0]
    if not usages:
        return _NOTHING
    return Usage(sum(one.prompt_tokens for one in usages), sum(one.completion_tokens for one in usages))


# --- verifying --------------------------------------------------------------------------------------------------------


def verify(record: DecisionRecord, table: Table, version: str, judge: Judge | None = None) -> list[str]:
    """Compute again what a record says and return every difference; none means that it holds byte for byte.

    `version` is the table's, see `version_of`. Without `judge`, verdicts are taken as they are.
    """
    policy = next((one for one in table.policies if one.name == record.policy), None)
    found = []
    if record.table != version:
        found.append(f"table: the record was made with version {record.table}, this table is version {version}")
    if policy is None:
        known = ", ".join(one.name for one in table.policies)
        return [*found, f"policy: the table has no {record.policy!r}, only {known}"]
    try:
        compiled = compile_policy(table, policy)
    except InvalidTable as error:
        return [*found, f"policy: {error}"]
    found += differences("choice", record.choice, decide(compiled, record))
    found += _score(record.ask)
    found += _attempts(record, policy)
    found += differences("cost", record.cost, account(table.tiers, record.attempts))
    if judge is not None:
        for index, attempt in enumerate(record.attempts):
            if attempt.evidence is not None:
                path = f"attempts[{index}].verdict"
                found += _verdict(path, attempt.verdict, attempt.evidence, policy.accept, judge)
    return found


def decide(policy: CompiledPolicy, record: DecisionRecord) -> Choice:
    """Return the choice that a record's facts lead to.

    Where another router has chosen, nothing is left to choose: the engine beside this one answers, or the first tier if
    the table knows of none.
    """
    if record.choice.reason != "Hop":
        return choose(policy, record.ask, record.load)
    near = [tier.name for tier in policy.ladder if is_beside(tier)] or list(policy.names)
    said = record.choice.tiers[:1]
    chosen = said if said and said[0] in near else (near[0],)
    return Choice(chosen, "Hop", candidates=tuple(one for one in record.choice.candidates if one in chosen))


def verify_line(line: bytes, table: Table, version: str, judge: Judge | None = None) -> list[str]:
    """Return every difference of a line of a spool, that of its own encoding included; raises BadRecord."""
    record = decode(line)
    found = verify(record, table, version, judge)
    if encode(record) != line.rstrip(b"\r\n"):
        found.append("encoding: the line is not as this program writes the record: it was changed, or has more fields")
    return found


def _score(ask: Ask) -> Iterator[str]:
    if not ask.features:
        return
    if ask.scorer != features.SCORER or len(ask.features) != len(features.FEATURES):
        yield f"ask.scorer: {len(ask.features)} features of {ask.scorer}, this program has {features.SCORER}"
        return
    yield from differences("ask.score", ask.score, features.score(ask.features))
    yield from differences("ask.task", ask.task, features.task(ask.features))


def _attempts(record: DecisionRecord, policy: Policy) -> Iterator[str]:
    for index, attempt in enumerate(record.attempts):
        if attempt.tier not in record.choice.tiers:
            chosen = ", ".join(record.choice.tiers) or "none"
            yield f"attempts[{index}].tier: {attempt.tier} is not among the tiers of the choice ({chosen})"
    if record.choice.refused is not None and record.attempts:
        yield "attempts: a refused request has none"
    answered = [attempt.tier for attempt in record.attempts if attempt.outcome == "Answered"]
    if len(answered) > 1:
        yield f"attempts: {len(answered)} of them gave the answer, one can"
    yield from differences("finalTier", record.final_tier, answered[0] if answered else None)
    if len(record.attempts) > 2 * policy.escalation.max_calls:
        # A call may be sent once more on a fresh connection, which is no call more to the tier.
        yield f"attempts: {len(record.attempts)}, the policy allows {policy.escalation.max_calls} calls"


def _verdict(path: str, recorded: Verdict | None, evidence: Evidence, accept: Accept, judge: Judge) -> Iterator[str]:
    try:
        again = judge(accept, evidence)
    except ValueError as error:
        yield f"{path}: the evidence cannot be judged: {error}"
        return
    yield from differences(path, recorded, again)


def differences(path: str, recorded: Any, computed: Any) -> Iterator[str]:
    """Yield where two values differ in their encodings, each with both values."""
    if _ENCODE(recorded) == _ENCODE(computed):
        return
    here, there = msgspec.to_builtins(recorded), msgspec.to_builtins(computed)
    if not (isinstance(here, dict) and isinstance(there, dict)):
        yield f"{path}: the record says {_ENCODE(here).decode()}, computed again it is {_ENCODE(there).decode()}"
        return
    for key in sorted(here.keys() | there.keys()):
        yield from differences(f"{path}.{key}", here.get(key), there.get(key))
