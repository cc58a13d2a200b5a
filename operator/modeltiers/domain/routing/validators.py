"""The checks of an answer, one for each kind a table may name: each passes or fails, and says why in one word.

A check that would cost more than a millisecond is `dear` and is described by a `Check`, which a worker process can run;
where and for how long is not decided here. One that throws has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from modeltiers.domain.routing import forms, language, schema
from modeltiers.domain.routing.answer import Answer, ToolCall
from modeltiers.domain.routing.arithmetic import false_statement, has_number
from modeltiers.domain.routing.remarks import PASSING, Result, Why
from modeltiers.domain.routing.rules import compile_pattern
from modeltiers.domain.routing.schema import BadSchema, Checker
from modeltiers.domain.routing.table import Fault, InvalidTable, Validator

__all__ = ["Check", "Ready", "Result", "Wish", "check_of", "checked", "dear", "lost", "run_check"]

CHARS: Final = 16_384
"""The longest text that checks read in this process."""
STEPS: Final = 90_000
"""Bytes of text by steps of an RE2 program: the worst pattern takes 11 ns for each, so this many take a millisecond."""
VISITS: Final = 20_000
"""Subschemas by values that may meet in this process, at 50 ns each."""
SCHEMA_BYTES: Final = 4_096
"""The longest schema of a client that is made ready in this process."""
SUBSCHEMAS: Final = 1_000
"""The most subschemas of one; a pattern counts for many."""
CALLS: Final = 8
"""The most calls of tools in one answer whose arguments are checked in this process."""


class Asked(Protocol):
    """What checks know of a request; `Question` is one."""

    @property
    def tools(self) -> dict[str, bytes]: ...
    @property
    def tool_choice(self) -> str: ...
    @property
    def schema(self) -> bytes: ...
    @property
    def forms(self) -> frozenset[str]: ...
    @property
    def options(self) -> tuple[str, ...]: ...
    @property
    def last(self) -> str: ...
    @property
    def system(self) -> str: ...


class Wish(Struct, frozen=True, gc=False):
    """A request as a check in another process sees it: what the check's kind needs and no more."""

    tools: dict[str, bytes] = {}
    tool_choice: str = "auto"
    schema: bytes = b""
    forms: frozenset[str] = frozenset()
    options: tuple[str, ...] = ()
    last: str = ""
    system: str = ""


class Check(Struct, frozen=True, gc=False):
    """A check to be run elsewhere: all that it needs, as plain data."""

    spec: Validator
    wish: Wish
    text: str
    calls: tuple[ToolCall, ...] = ()

    @property
    def name(self) -> str:
        """The validator's name."""
        return self.spec.name

    @property
    def deadline_ms(self) -> int:
        """How long it may run, in milliseconds."""
        return self.spec.deadline_ms


class Ready:
    """A validator of a policy, made ready. Immutable."""

    __slots__ = ("checker", "patterns", "program", "run", "spec")

    def __init__(self, spec: Validator, path: str) -> None:
        """Make it ready; raises InvalidTable with the path of what cannot be used."""
        self.spec = spec
        self.run = _RUN[spec.kind]
        places = [f"{path}.patterns[{index}]" for index in range(len(spec.patterns))]
        self.patterns = tuple(map(compile_pattern, spec.patterns, places))
        self.program = sum(pattern.programsize for pattern in self.patterns)
        self.checker: Checker | None = None
        if spec.schema is not None:
            try:
                self.checker = Checker(spec.schema)
            except (BadSchema, RecursionError) as error:
                raise InvalidTable([Fault(f"{path}.schema", f"cannot be used: {error}")]) from None


def checked(ready: Ready, asked: Asked, answer: Answer) -> Result:
    """Run a check. Total: one that throws has failed as Crashed."""
    try:
        why = ready.run(ready, asked, answer)
    except Exception:  # whatever it is, it is the check's failure, recorded with its own reason
        why = "Crashed"
    return Result(ready.spec.name, why is None or why in PASSING, why)


def lost(ready: Ready, asked: Asked, answer: Answer) -> Result | None:
    """Return the failure of a check that no further text can mend; None while there is none. Total."""
    early = _EARLY.get(ready.spec.kind)
    if early is None or dear(ready, asked, answer):
        return None
    try:
        why = early(ready, asked, answer)
    except Exception:  # the whole answer will be checked again, and then it counts
        return None
    return Result(ready.spec.name, passed=False, why=why) if why is not None else None


def dear(ready: Ready, asked: Asked, answer: Answer) -> bool:
    """Whether a check of this answer could take more than a millisecond. Total."""
    kind, size = ready.spec.kind, len(answer.text)
    if not size and kind != "ToolArguments":
        return False
    if kind == "Pattern":
        return bool(ready.program * (size if answer.text.isascii() else 4 * size) > STEPS)
    if kind in ("NumericAnswer", "Form"):
        return size > CHARS
    if kind == "JSONSchema":
        if ready.checker is not None:
            return _heavy(ready.checker.cost, size)
        return _heavy_schema(asked.schema, size)
    if kind == "ToolArguments":
        if len(answer.tool_calls) > CALLS:
            return True
        return any(_heavy_schema(asked.tools.get(one.name, b""), len(one.arguments)) for one in answer.tool_calls)
    return False


def _heavy_schema(written: bytes, size: int) -> bool:
    if not written or written == b"null":
        return size > CHARS
    if len(written) > SCHEMA_BYTES:
        return True
    cost = schema.cost_of(written)
    return cost > SUBSCHEMAS or _heavy(cost, size)


def _heavy(cost: int, size: int) -> bool:
    return size > CHARS or cost * (size // 8 + 1) > VISITS


def check_of(ready: Ready, asked: Asked, answer: Answer) -> Check:
    """Return a check as plain data."""
    spec = ready.spec
    calls = tuple([ToolCall(one.name, "") for one in answer.tool_calls])  # that there are some, not what they say
    if spec.kind == "ToolArguments":
        called = {one.name for one in answer.tool_calls}
        tools = {name: asked.tools[name] if name in called else b"null" for name in asked.tools}
        return Check(spec, Wish(tools=tools, tool_choice=asked.tool_choice), answer.text[:CHARS], answer.tool_calls)
    if spec.kind == "JSONSchema":
        return Check(spec, Wish(schema=asked.schema), answer.text, calls)
    if spec.kind == "Form":
        return Check(spec, Wish(forms=asked.forms, options=asked.options), answer.text, calls)
    return Check(spec, Wish(forms=asked.forms), answer.text, calls)


def run_check(check: Check) -> Result:
    """Run a check that came as plain data. Total: one that cannot be run has failed as Crashed."""
    try:
        ready = _ready(msgspec.json.encode(check.spec))
    except InvalidTable:
        return Result(check.name, passed=False, why="Crashed")
    return checked(ready, check.wish, Answer(text=check.text, tool_calls=check.calls))


@lru_cache(maxsize=64)
def _ready(spec: bytes) -> Ready:
    validator = msgspec.json.decode(spec, type=Validator)
    return Ready(validator, validator.name)


# --- the kinds --------------------------------------------------------------------------------------------------------

Run = Callable[[Ready, Asked, Answer], Why | None]


def _only_calls(answer: Answer) -> bool:
    return bool(answer.tool_calls) and not answer.text.strip()


def _json_schema(ready: Ready, asked: Asked, answer: Answer) -> Why | None:
    if _only_calls(answer):
        return "OnlyCalls"
    checker = ready.checker
    if checker is None:
        if not asked.schema:
            return "NotAsked"
        try:
            checker = schema.checker(asked.schema)
        except BadSchema:
            return "SchemaRefused"
    try:
        value: Any = msgspec.json.decode(answer.text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "NotJSON"
    return None if checker.takes(value) else "SchemaMismatch"


_UNREAD: Final = ("<tool_call>", "[TOOL_CALLS]", "<|tool_call", "<function=", "<|python_tag|>")


def _tool_arguments(_: Ready, asked: Asked, answer: Answer) -> Why | None:
    choice = asked.tool_choice
    if not answer.tool_calls:
        if choice == "required" or choice[:1] == "=":
            return "CallMissing"
        if not asked.tools:
            return "NotAsked"
        return "CallUnread" if any(mark in answer.text for mark in _UNREAD) else None
    if choice == "none" or (choice[:1] == "=" and any(one.name != choice[1:] for one in answer.tool_calls)):
        return "CallUnwanted"
    for call in answer.tool_calls:
        why = _call(call, asked.tools)
        if why is not None:
            return why
    return None


def _call(call: ToolCall, tools: dict[str, bytes]) -> Why | None:
    written = tools.get(call.name)
    if written is None:
        return "UnknownTool"
    try:
        # A tool without arguments is often called with none at all.
        value: Any = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "ArgumentsNotJSON"
    if not isinstance(value, dict):
        return "ArgumentsNotJSON"
    if written in (b"null", b""):
        return None
    try:
        return None if schema.checker(written).takes(value) else "ArgumentsMismatch"
    except BadSchema:
        return "SchemaRefused"


def _pattern(ready: Ready, _: Asked, answer: Answer) -> Why | None:
    if _only_calls(answer):
        return "OnlyCalls"
    raw = answer.text.encode("utf-8", "replace")
    found = any(pattern.search(raw) is not None for pattern in ready.patterns)
    if found == ready.spec.absent:
        return "Found" if found else "NotFound"
    return None


def _numeric_answer(_: Ready, asked: Asked, answer: Answer) -> Why | None:
    if _only_calls(answer):
        return "OnlyCalls"
    if false_statement(answer.text):
        return "ArithmeticWrong"
    if "Number" in asked.forms:
        return None if has_number(answer.text) else "NoNumber"
    return "NotAsked"


def _form(ready: Ready, asked: Asked, answer: Answer) -> Why | None:
    form = ready.spec.form or ""
    if _only_calls(answer):
        return "OnlyCalls"
    if form not in asked.forms:
        return "NotAsked"
    return None if forms.has_form(form, answer.text, asked.options) else "FormMissing"


def _language(ready: Ready, asked: Asked, answer: Answer) -> Why | None:
    if _only_calls(answer):
        return "OnlyCalls"
    if ready.spec.language is not None:
        wanted = frozenset({ready.spec.language})
    else:
        wanted = language.wanted(asked.last, asked.system)
    found = language.languages(answer.text)
    if not found or not wanted or wanted.isdisjoint(language.KNOWN):
        return "CannotTell"
    return None if not wanted.isdisjoint(found) else "OtherLanguage"


def _length(ready: Ready, _: Asked, answer: Answer) -> Why | None:
    if _only_calls(answer):
        return "OnlyCalls"
    size, spec = len(answer.text), ready.spec
    if spec.min_chars is not None and size < spec.min_chars:
        return "TooShort"
    return "TooLong" if spec.max_chars is not None and size > spec.max_chars else None


def _refusal(_: Ready, __: Asked, answer: Answer) -> Why | None:
    if answer.refusal or forms.refuses(answer.text):
        return "Refused"
    return "Hedged" if forms.hedges(answer.text) else None


def _finish(_: Ready, __: Asked, answer: Answer) -> Why | None:
    return _ENDS.get(answer.finish_reason or "")


_ENDS: Final[dict[str, Why]] = {
    "length": "CutAtLength",
    "content_filter": "ContentFilter",
    "abort": "Aborted",
    "error": "Aborted",
}
_RUN: Final[dict[str, Run]] = {
    "JSONSchema": _json_schema,
    "ToolArguments": _tool_arguments,
    "Pattern": _pattern,
    "NumericAnswer": _numeric_answer,
    "Form": _form,
    "Language": _language,
    "Length": _length,
    "Refusal": _refusal,
    "Finish": _finish,
}


# --- what is lost before the end --------------------------------------------------------------------------------------


def _early_json(ready: Ready, asked: Asked, answer: Answer) -> Why | None:
    """No text behind it makes JSON of an answer that begins with another sign."""
    begin = answer.text.lstrip()[:1]
    demanded = ready.checker is not None or bool(asked.schema)
    return "NotJSON" if demanded and begin and begin not in '{["-0123456789tfn' else None


def _early_pattern(ready: Ready, _: Asked, answer: Answer) -> Why | None:
    """A pattern that must be absent and was found is there to stay, unless its end could see what comes next."""
    if not ready.spec.absent:
        return None
    raw = answer.text.encode("utf-8", "replace")
    for pattern in ready.patterns:
        found = pattern.search(raw)
        if found is not None and found.end() < len(raw):
            return "Found"
    return None


def _early_length(ready: Ready, _: Asked, answer: Answer) -> Why | None:
    most = ready.spec.max_chars
    return "TooLong" if most is not None and len(answer.text) > most else None


def _early_refusal(_: Ready, __: Asked, answer: Answer) -> Why | None:
    if answer.refusal:
        return "Refused"
    # The last word may not be whole yet.
    return "Refused" if forms.refuses(answer.text.rpartition(" ")[0]) else None


_EARLY: Final[dict[str, Run]] = {
    "JSONSchema": _early_json,
    "Pattern": _early_pattern,
    "Length": _early_length,
    "Refusal": _early_refusal,
    "Finish": _finish,
}
