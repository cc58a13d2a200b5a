"""The row between stages: one conversation that ends where an answer is due, with what is known of that answer.

Messages are OpenAI's and stay as they were given; nothing is added to them, and the arguments of tool calls stay the
JSON text that they were. What cannot be learnt from or asked is refused, with the field and the way out.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

Part = Literal["Any", "RedTeam"]
ID_LENGTH: Final = 16
KEYS: Final = frozenset({"messages", "tools", "expected", "group", "slice"})
"""What a row of a source may say; other keys are left out, and named once."""
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_SLICE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_GROUP: Final = 256
DEEPEST: Final = 64
"""Levels of lists and objects in one value."""
_UNSOUND: Final = re.compile("[\x00\ud800-\udfff]")


class BadRow(ValueError):
    """A row that cannot be used: the field, and what is wrong with it."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where


@dataclass(frozen=True, slots=True)
class Row:
    """One item. `cluster` is empty until the split."""

    id: str
    messages: list[dict[str, Any]]
    group: str
    source: str
    part: Part = "Any"
    tools: list[Any] | None = None
    expected: Any = None
    recorded: str | None = None
    slice: str | None = None
    cluster: str = field(default="")

    def to_json(self) -> dict[str, Any]:
        """As a stage writes it."""
        body: dict[str, Any] = {"id": self.id, "messages": self.messages}
        for name in ("tools", "expected", "recorded"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        body |= {"group": self.group, "slice": self.slice, "source": self.source, "part": self.part}
        return {**body, "cluster": self.cluster} if self.cluster else body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Row:
        """Read what a stage wrote."""
        return cls(**body)

    def named(self) -> Row:
        """With the id that its content gives it."""
        known = {"messages": self.messages, "tools": self.tools, "expected": self.expected, "part": self.part}
        text = json.dumps(known, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        made = hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]
        return replace(self, id=made, group=self.group or made)


def parse_line(line: bytes) -> dict[str, Any]:
    """The object on a line of JSON; raises BadRow."""
    try:
        found = json.loads(line.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as fault:
        raise BadRow("", f"byte {fault.start + 1} is not UTF-8: save it as UTF-8, uncompressed") from None
    except RecursionError:
        raise BadRow("", "is nested too deeply") from None
    except ValueError as fault:
        said = fault.msg if isinstance(fault, json.JSONDecodeError) else str(fault)
        raise BadRow("", f"is not JSON ({said}): each line is one object, {{...}}") from None
    if not isinstance(found, dict):
        raise BadRow("", f"is {_kind(found)}, not an object with `messages`")
    return cast(dict[str, Any], found)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_row(body: dict[str, Any], source: str, part: Part) -> Row:
    """The row that a source's object is; raises BadRow with the field."""
    messages = _messages(body)
    recorded = None
    if messages[-1]["role"] == "assistant":
        recorded = text_in(messages.pop()) or None
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        last = f"is {messages[-1]['role']}'s" if messages else "is missing"
        raise BadRow("messages", f"the message to be answered {last}: it must be the user's or a tool's")
    expected, tools = body.get("expected"), body.get("tools")
    _sound(expected, "expected")
    if tools is not None:
        _tools(tools)
    made = Row("", messages, _group(body), source, part, tools or None, expected, recorded, _slice(body))
    return made.named()


def texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    """The texts of messages, with the calls of tools; system messages are not among them."""
    for message in messages:
        if message["role"] in ("system", "developer"):
            continue
        yield text_in(message)
        for call in message.get("tool_calls") or ():
            yield f"{call['function']['name']} {call['function']['arguments']}"


def system_of(messages: list[dict[str, Any]]) -> str:
    """The text of the system messages."""
    return "\n".join(text_in(message) for message in messages if message["role"] in ("system", "developer"))


def text_in(message: Mapping[str, Any]) -> str:
    """The text of a message."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


# --- checks -----------------------------------------------------------------------------------------------------------


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if messages is None:
        raise BadRow("messages", 'is missing: a row is {"messages": [{"role": "user", "content": "..."}], ...}')
    if not isinstance(messages, list) or not messages:
        raise BadRow("messages", f"is {_kind(messages)}, not a list with at least one message")
    for index, message in enumerate(messages):
        _message(message, f"messages[{index}]")
    return list(messages)


def _message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise BadRow(where, f'is {_kind(message)}, not {{"role": ..., "content": ...}}')
    role = message.get("role")
    if role not in _ROLES:
        raise BadRow(f"{where}.role", f"is {role!r}, not one of {', '.join(_ROLES)}")
    calls = message.get("tool_calls")
    if calls is not None and role != "assistant":
        raise BadRow(f"{where}.tool_calls", f"only the assistant calls tools, not {role}")
    for index, call in enumerate(_listed(calls, f"{where}.tool_calls")):
        _call(call, f"{where}.tool_calls[{index}]")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise BadRow(f"{where}.tool_call_id", "is missing: say which call this is the outcome of")
    _content(message, f"{where}.content", empty=bool(calls) or role == "tool")
    _sound(message, where)


def _content(message: Mapping[str, Any], where: str, *, empty: bool) -> None:
    content = message.get("content")
    if content is None and empty:
        return
    if isinstance(content, list):
        for index, part in enumerate(content):
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise BadRow(f"{where}[{index}]", 'is not {"type": "text", "text": ...}: only text is learnt from')
    elif not isinstance(content, str):
        raise BadRow(where, f"is {_kind(content)}, not a text")
    if not empty and not text_in(message).strip():
        raise BadRow(where, "is empty: remove the message, or the row")


def _call(call: Any, where: str) -> None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow(where, 'is not {"id": ..., "type": "function", "function": {"name": ..., "arguments": "..."}}')
    if not isinstance(function.get("arguments"), str):
        found = _kind(function.get("arguments"))
        raise BadRow(f"{where}.function.arguments", f"is {found}: it must be the JSON text that the API gave")


def _tools(tools: Any) -> None:
    for index, tool in enumerate(_listed(tools, "tools")):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow(f"tools[{index}]", 'is not {"type": "function", "function": {"name": ..., ...}}')
    _sound(tools, "tools")


def _listed(value: Any, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise BadRow(where, f"is {_kind(value)}, not a list")
    return value or []


def _group(body: Mapping[str, Any]) -> str:
    group = body.get("group")
    if isinstance(group, int) and not isinstance(group, bool):
        group = str(group)
    if group is None or group == "":
        return ""
    if not isinstance(group, str) or len(group) > _GROUP:
        raise BadRow("group", f"must be a text of at most {_GROUP} characters, or a whole number")
    _sound(group, "group")
    return group


def _slice(body: Mapping[str, Any]) -> str | None:
    found = body.get("slice")
    if found is None or found == "":
        return None
    if not isinstance(found, str) or _SLICE.fullmatch(found) is None:
        raise BadRow("slice", f"is {found!r}: it must be at most 63 letters, digits, '-', '_' and '.'")
    return found


def _sound(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what no file of JSON lines, and no model, can take."""
    if depth > DEEPEST:
        raise BadRow(where[:99], f"is nested more than {DEEPEST} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(where, "is a number too large for JSON")
    if isinstance(value, str):
        if (bad := _UNSOUND.search(value)) is not None:
            what = "a NUL character" if bad[0] == "\x00" else "half a character (a lone surrogate)"
            raise BadRow(where, f"has {what} at {bad.start() + 1}: remove it")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _sound(key, where)
            _sound(inner, f"{where}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _sound(inner, f"{where}[{index}]", depth + 1)


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", dict: "an object"}
    return "an empty list" if value == [] else names.get(type(value), "a list")
