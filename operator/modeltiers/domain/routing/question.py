"""What checks of an answer must know of the request: its tools, the form and language it asks for, a little text.

Read once, kept small, decoded only when a check asks. It judges neither the request nor the answer.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final

import msgspec
import re2
from msgspec import Raw, Struct

from modeltiers.domain.routing.ask import Message, Part, Request
from modeltiers.domain.routing.patterns import options

KEPT: Final = 2_048
"""Characters kept from each end of the last user message and from the system message's."""
_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Function(Struct, gc=False):
    name: str = ""
    parameters: Raw = Raw(b"null")


class _Tool(Struct, gc=False):
    function: _Function | None = None
    name: str = ""


class _Format(Struct, gc=False):
    schema: Raw = Raw(b"")


class _Structured(Struct, gc=False):
    json: Raw = Raw(b"")


_TOOL: Final = msgspec.json.Decoder(_Tool).decode
_FUNCTION: Final = msgspec.json.Decoder(_Function).decode


class Question:
    """A request as its answer's checks see it. Holds no message, only both ends of the last one and of the system's."""

    def __init__(self, request: Request) -> None:
        self.logprobs = request.logprobs is not None and request.logprobs is not False
        asked = request.top_logprobs if request.messages is not None else int(request.logprobs or 0)
        self.top_logprobs = asked or 0
        self._prompt = request.prompt if request.messages is None else None
        self._messages = _kept(request.messages) if request.messages else ("", "")
        self._tools, self._functions = request.tools or (), request.functions or ()
        self._choice = request.tool_choice
        self._format, self._structured = request.response_format, request.structured_outputs

    @cached_property
    def last(self) -> str:
        """Both ends of the last user message, or of the prompt."""
        if self._prompt is None:
            return self._messages[0]
        try:
            value: Any = msgspec.json.decode(self._prompt)
        except _FAULTS:
            return ""
        first = value[0] if isinstance(value, list) and value else value
        return _ends(first) if isinstance(first, str) else ""

    @property
    def system(self) -> str:
        """Both ends of the system message."""
        return self._messages[1]

    @cached_property
    def tools(self) -> dict[str, bytes]:
        """The schemas of the tools' parameters, by name; b"null" where a tool has none."""
        found: dict[str, bytes] = {}
        for raw in self._tools:
            try:
                tool = _TOOL(raw)
            except _FAULTS:
                continue
            function = tool.function or _Function(tool.name)
            found[function.name] = bytes(function.parameters)
        for raw in self._functions:
            try:
                function = _FUNCTION(raw)
            except _FAULTS:
                continue
            found[function.name] = bytes(function.parameters)
        return found

    @cached_property
    def tool_choice(self) -> str:
        """One of auto, none, required, or the name of the one tool that must be called behind an equals sign."""
        try:
            said: Any = msgspec.json.decode(self._choice) if memoryview(self._choice) else "auto"
        except _FAULTS:
            return "auto"
        if isinstance(said, dict):
            function = said.get("function", said)
            name = function.get("name") if isinstance(function, dict) else None
            return f"={name}" if isinstance(name, str) else "auto"
        return said if said in ("none", "required") else "auto"

    @property
    def json_mode(self) -> bool:
        """Whether the request demands JSON."""
        return bool(self.schema) or (self._format is not None and self._format.type in ("json_object", "json_schema"))

    @cached_property
    def schema(self) -> bytes:
        """The JSON schema that the request demands, b"" without one."""
        try:
            if self._format is not None and memoryview(self._format.json_schema):
                return _object(msgspec.json.decode(self._format.json_schema, type=_Format).schema)
            if len(memoryview(self._structured)) > 4:
                return _object(msgspec.json.decode(self._structured, type=_Structured).json)
        except _FAULTS:
            return b""
        return b""

    @cached_property
    def forms(self) -> frozenset[str]:
        """The forms that the last user message or the system message asks for."""
        text = f"{self.system}\n{self.last}"
        found = {form for form, sign in _FORMS if sign.search(text) is not None}
        if self.json_mode:
            found.add("JSON")
        if len(self.options) > 1:
            found.add("Choice")
        return frozenset(found)

    @cached_property
    def options(self) -> tuple[str, ...]:
        """The letters or numbers of the options that are offered, in order: A, B, C."""
        found = [mark.upper() for mark in _OPTION.findall(self.last)]
        for first in ("A", "1"):
            row: list[str] = []
            for mark in found:
                if mark == chr(ord(first) + len(row)):
                    row.append(mark)
            if len(row) > 1:
                return tuple(row)
        return ()


def question_of(request: Request) -> Question:
    """Return what checks need of a request. Total. Afterwards the request's messages may be dropped."""
    return Question(request)


# Signs that a form is asked for. Each looks for an order, not for the mere word: "a list of errors follows" is none.
_SIGNS: Final = {
    "JSON": r"\b(in|as|valid|return|output|only|with)( \w+){0,3} json\b|\bjson (object|array)\b",
    "List": r"\bbullet(ed)? (points?|list)|\bnumbered list|\blist (of )?(\d+|two|three|four|five|six|ten)\b"
    r"|\b(as|in|give( me)?|make|write|create) an? (\w+ )?list\b|(?m:^) ?list (the|all|some)\b",
    "Table": r"\b(as|in|into|make|create|give( me)?|show( me)?) an? (\w+ )?table\b|\bmarkdown table\b",
    "Code": r"\b(write|implement|create|give me|show me|generate)( \w+){0,5} "
    r"(code|function|script|program|query|class|regex|snippet)\b",
    "YesNo": r"\byes or no\b|\byes/no\b|\btrue or false\b|\boui ou non\b|\bja oder nein\b|\bsí o no\b",
    "Number": r"\bhow (many|much)\b|\bwhat is \d[\d .,]*[-+*/x×÷^%]|\b(calculate|compute)\b"
    r"|\b(as|with|only) (an?|the|one) (single )?(number|integer)\b|\bwie viele?\b|\bcombien\b",
}
_FORMS: Final = tuple((form, re2.compile(f"(?i){sign}", options())) for form, sign in _SIGNS.items())
_OPTION: Final = re.compile(r"(?m)^[ \t]*\(?([A-Ha-h1-8])[).:][ \t]*\S")


def _kept(messages: list[Message]) -> tuple[str, str]:
    last = next((one.content for one in reversed(messages) if one.role == "user"), None)
    system = next((one.content for one in messages if one.role in ("system", "developer")), None)
    return _ends(_text(last)), _ends(_text(system))


def _text(content: str | list[Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join([part.text for part in content if part.text])


def _ends(text: str) -> str:
    return text if len(text) <= 2 * KEPT else f"{text[:KEPT]}\n{text[-KEPT:]}"


def _object(raw: Raw) -> bytes:
    """Return a schema as it is written; some engines take it as a text."""
    value = bytes(raw)
    if value[:1] == b'"':
        value = msgspec.json.decode(value, type=str).encode()
    return value if value[:1] == b"{" else b""
