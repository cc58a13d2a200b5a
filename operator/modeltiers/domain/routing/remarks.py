"""What a check may say of an answer: passed or failed, and why in one word out of a closed set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

Why = Literal[
    "NotAsked",
    "CannotTell",
    "OnlyCalls",
    "NotJSON",
    "SchemaMismatch",
    "SchemaRefused",
    "UnknownTool",
    "ArgumentsNotJSON",
    "ArgumentsMismatch",
    "CallMissing",
    "CallUnwanted",
    "CallUnread",
    "NotFound",
    "Found",
    "NoNumber",
    "ArithmeticWrong",
    "FormMissing",
    "OtherLanguage",
    "TooShort",
    "TooLong",
    "Refused",
    "Hedged",
    "CutAtLength",
    "ContentFilter",
    "Aborted",
    "Crashed",
    "Deadline",
    "Busy",
]
"""What a check says of an answer besides that it passed. A closed set."""
WHYS: Final[Mapping[Why, str]] = {
    "NotAsked": "passed: the request does not ask for it",
    "CannotTell": "passed: it cannot be told",
    "OnlyCalls": "passed: the answer is a call of tools and has no text",
    "NotJSON": "the answer is not JSON",
    "SchemaMismatch": "the answer does not keep to the schema",
    "SchemaRefused": "the schema cannot be used, so nothing was checked",
    "UnknownTool": "it calls a tool that the request does not offer",
    "ArgumentsNotJSON": "the arguments of a call are no JSON object",
    "ArgumentsMismatch": "the arguments of a call do not keep to the tool's schema",
    "CallMissing": "the request demands a call, and there is none",
    "CallUnwanted": "it calls a tool though the request forbids it, or another than the one demanded",
    "CallUnread": "the text holds the marks of a call that the engine did not understand",
    "NotFound": "no pattern was found",
    "Found": "a pattern was found that must be absent",
    "NoNumber": "a number was asked for, and there is none",
    "ArithmeticWrong": "a sum, difference, product or quotient in it is wrong",
    "FormMissing": "it has not the form that was asked for",
    "OtherLanguage": "it is in another language",
    "TooShort": "it is too short",
    "TooLong": "it is too long",
    "Refused": "it refuses",
    "Hedged": "it says that it does not know",
    "CutAtLength": "it was cut at the limit of tokens",
    "ContentFilter": "a content filter stopped it",
    "Aborted": "the engine ended it early",
    "Crashed": "the check failed to run",
    "Deadline": "the check ran out of time",
    "Busy": "no worker was free for the check",
}
PASSING: Final[frozenset[Why]] = frozenset({"NotAsked", "CannotTell", "OnlyCalls"})
"""What is said of an answer that passed."""


class Result(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What a check says."""

    name: str
    passed: bool
    why: Why | None = None
