"""Decides, after an answer of a tier below the top was generated, whether it is good enough. Pure and total.

What was seen of the answer becomes an `Evidence` of numbers and names; `accept` turns that, and nothing else, into a
verdict. Where dear checks run and what a refused answer costs is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from modeltiers.domain.routing import validators
from modeltiers.domain.routing.answer import Answer
from modeltiers.domain.routing.confidence import FUSION, Signals, fused, hopeless, signals
from modeltiers.domain.routing.question import Question
from modeltiers.domain.routing.remarks import Result
from modeltiers.domain.routing.table import Accept, Fault, InvalidTable, Policy, Validator
from modeltiers.domain.routing.validators import Check, Ready

Reason = Literal[
    "Confident",
    "BelowThreshold",
    "LogprobsMissing",
    "SchemaFailed",
    "ToolCallWrong",
    "PatternFailed",
    "NumberWrong",
    "FormMissing",
    "OtherLanguage",
    "LengthWrong",
    "Refused",
    "Truncated",
    "CheckFailed",
    "Empty",
    "Unreadable",
    "Undecided",
]
"""Why an answer is taken or not. A closed set: a label of metrics, and the header x-modeltiers-reason."""
REASONS: Final[Mapping[Reason, str]] = {
    "Confident": "taken: the probability that it is good enough reaches the threshold",
    "BelowThreshold": "the probability that it is good enough is below the threshold",
    "LogprobsMissing": "the tier returned no logprobs, and the policy escalates then",
    "SchemaFailed": "a required check failed: the answer does not keep to the JSON schema",
    "ToolCallWrong": "a required check failed: a call of a tool is missing, unwanted or has wrong arguments",
    "PatternFailed": "a required check failed: a pattern is missing, or there and must not be",
    "NumberWrong": "a required check failed: the number is missing, or the arithmetic wrong",
    "FormMissing": "a required check failed: the answer has not the form that was asked for",
    "OtherLanguage": "a required check failed: the answer is in another language",
    "LengthWrong": "a required check failed: the answer is too short or too long",
    "Refused": "a required check failed: the answer refuses or says that it does not know",
    "Truncated": "a required check failed: the answer was ended before its end",
    "CheckFailed": "a required check could not be run, had no free worker or ran out of time",
    "Empty": "the answer says nothing",
    "Unreadable": "the reply has another shape than the API's",
    "Undecided": "nothing of it was seen yet, or not all of it was checked",
}
_OF_KIND: Final[Mapping[str, Reason]] = {
    "JSONSchema": "SchemaFailed",
    "ToolArguments": "ToolCallWrong",
    "Pattern": "PatternFailed",
    "NumericAnswer": "NumberWrong",
    "Form": "FormMissing",
    "Language": "OtherLanguage",
    "Length": "LengthWrong",
    "Refusal": "Refused",
    "Finish": "Truncated",
}
_NOT_RUN: Final = frozenset({"Crashed", "Deadline", "Busy", "SchemaRefused"})

Finish = Literal["Stop", "Length", "ToolCalls", "ContentFilter", "Other"]
_FINISHES: Final[Mapping[str, Finish]] = {
    "stop": "Stop",
    "length": "Length",
    "tool_calls": "ToolCalls",
    "function_call": "ToolCalls",
    "content_filter": "ContentFilter",
}


class Evidence(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Everything that `accept` knows of an answer: numbers and names, and none of its text."""

    fusion: str
    """Which numbers it was made for."""
    whole: bool = True
    """Whether the answer has ended."""
    readable: bool = True
    empty: bool = False
    tokens: int = 0
    thinking_tokens: int = 0
    finish: Finish | None = None
    signals: Signals | None = None
    """None: no logprobs came, or none were asked for."""
    results: tuple[Result, ...] = ()
    """In the order of the policy's validators; before the end, only failures that nothing can mend."""
    pending: tuple[str, ...] = ()
    """Validators that have not run yet: they are dear, or the answer has not ended."""


class Verdict(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Whether an answer is taken."""

    accepted: bool
    probability: float
    """That it is good enough, from 0 to 1, six decimals; 0 where a required check failed."""
    reason: Reason
    failed: tuple[str, ...] = ()
    """Validators that failed, in the policy's order."""
    lost: bool = False
    """Before the end: it may be given up, nothing to come is likely to save it."""


class CompiledAccept:
    """What a policy says of answers, made ready: patterns, schemas, weights. Immutable, shared by all requests."""

    __slots__ = ("accept", "by_name", "ready")

    def __init__(self, accept: Accept) -> None:
        """Make it ready; raises InvalidTable with every validator that cannot be used."""
        self.accept = accept
        self.by_name = {spec.name: spec for spec in accept.validators}
        made: list[Ready] = []
        faults: list[Fault] = []
        for index, spec in enumerate(accept.validators):
            try:
                made.append(Ready(spec, f"accept.validators[{index}]"))
            except InvalidTable as error:
                faults += error.faults
        if faults:
            raise InvalidTable(faults)
        self.ready = tuple(made)


def compile_accept(policy: Policy) -> CompiledAccept:
    """Return what a policy says of answers, made ready.

    Raises InvalidTable; its paths begin at the policy: accept.validators[0].patterns[1].
    """
    return CompiledAccept(policy.accept)


# --- seeing -----------------------------------------------------------------------------------------------------------


def dear(compiled: CompiledAccept, question: Question, answer: Answer) -> list[Check]:
    """Return the checks of a whole answer that must not run in the process that serves; most often none."""
    return [
        validators.check_of(ready, question, answer)
        for ready in compiled.ready
        if validators.dear(ready, question, answer)
    ]


def evidence(
    compiled: CompiledAccept,
    question: Question,
    answer: Answer,
    results: Mapping[str, Result] | None = None,
    *,
    whole: bool,
) -> Evidence:
    """Return what is seen of an answer. Runs the checks that are cheap; `results` has those of the dear ones by name.

    Before the end only what can be judged early is in it: failures for good, and the logprobs by now. Total.
    """
    known: list[Result] = []
    pending: list[str] = []
    for ready in compiled.ready:
        name = ready.spec.name
        found: Result | None
        if results is not None and name in results:
            found = results[name]
        elif not whole:
            found = validators.lost(ready, question, answer)
        elif validators.dear(ready, question, answer):
            found = None
        else:
            found = validators.checked(ready, question, answer)
        if found is None:
            pending.append(name)
        else:
            known.append(found)
    confidence = compiled.accept.confidence
    finish = answer.finish_reason
    return Evidence(
        fusion=FUSION,
        whole=whole,
        readable=answer.readable,
        empty=answer.empty,
        tokens=answer.tokens,
        thinking_tokens=answer.thinking_tokens,
        finish=None if finish is None else _FINISHES.get(finish, "Other"),
        signals=None if confidence is None else signals(confidence, answer),
        results=tuple(known),
        pending=tuple(pending),
    )


# --- deciding ---------------------------------------------------------------------------------------------------------


def accept(compiled: CompiledAccept | Accept, seen: Evidence) -> Verdict:
    """Return whether an answer is taken. Before the end: whether it would be by now, and whether it is lost.

    Raises ValueError for evidence that another program or policy made.
    """
    spec = compiled.accept if isinstance(compiled, CompiledAccept) else compiled
    if seen.fusion != FUSION:
        raise ValueError(f"the evidence was made for the fusion {seen.fusion!r}, this program has {FUSION!r}")
    by_name = compiled.by_name if isinstance(compiled, CompiledAccept) else {one.name: one for one in spec.validators}
    failed = [(_named(by_name, result.name), result) for result in seen.results if not result.passed]
    names = tuple([result.name for _, result in failed])
    if not seen.readable:
        return Verdict(accepted=False, probability=0.0, reason="Unreadable", failed=names, lost=not seen.whole)
    for one, result in failed:
        if one.required:
            reason = "CheckFailed" if result.why in _NOT_RUN else _OF_KIND[one.kind]
            return Verdict(accepted=False, probability=0.0, reason=reason, failed=names, lost=not seen.whole)
    probability = fused(spec.prior_permille, seen.signals, [one.weight_permille for one, _ in failed])
    reason, lost = _weighed(spec, seen, probability)
    return Verdict(accepted=reason == "Confident", probability=probability, reason=reason, failed=names, lost=lost)


def _weighed(spec: Accept, seen: Evidence, probability: float) -> tuple[Reason, bool]:
    """Return the reason of an answer that no required check refuses, and whether it is lost before its end."""
    missing = spec.confidence is not None and seen.signals is None and spec.confidence.missing == "Escalate"
    enough = probability * 1000 >= spec.threshold_permille
    scored = seen.signals.scored if seen.signals is not None else 0
    lost = not seen.whole and hopeless(probability, spec.threshold_permille, scored)
    if lost:
        return "BelowThreshold", True
    if seen.empty:
        return ("Empty" if seen.whole else "Undecided"), False
    if seen.whole and seen.pending:
        return "Undecided", False
    if missing:
        return "LogprobsMissing", False
    return ("Confident" if enough else "BelowThreshold"), False


def _named(by_name: Mapping[str, Validator], name: str) -> Validator:
    spec = by_name.get(name)
    if spec is None:
        raise ValueError(f"the evidence has a result of {name!r}, which the policy's validators lack")
    return spec


def judge(accept_: Accept, seen: Any) -> Verdict:
    """Return the verdict of recorded evidence, an Evidence or what JSON makes of one; raises ValueError."""
    return accept(accept_, seen if isinstance(seen, Evidence) else msgspec.convert(seen, Evidence))
