"""The fields of an engine's reply that are read, as types; one that nobody here needs is passed over.

Whole replies and events of streams share them. What they say of an answer is `answer`'s.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct


class Top(Struct, gc=False):
    """An alternative at a token."""

    logprob: float | None = None


class Token(Struct, gc=False):
    """A generated token."""

    token: str = ""
    logprob: float | None = None
    top_logprobs: list[Top] | None = None


class ChatLogprobs(Struct, gc=False):
    """Logprobs as chat has them: an entry for each token."""

    content: list[Token] | None = None


class Function(Struct, gc=False):
    """The function that is called, or a piece of it."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class Call(Struct, gc=False):
    """A call of a tool, or a piece of one."""

    index: int | None = None
    function: Function | None = None


class Part(Struct, gc=False):
    """A piece of a content in parts."""

    text: str | None = None


class Message(Struct, gc=False):
    """A message, or what an event adds to one."""

    content: str | list[Part] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None


class ChatChoice(Struct, gc=False):
    """One of the answers of a chat."""

    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class Details(Struct, gc=False):
    """What the tokens were used for."""

    reasoning_tokens: int | None = None


class Usage(Struct, gc=False):
    """Tokens as the engine counts them."""

    completion_tokens: int | None = None
    completion_tokens_details: Details | None = None


class Chat(Struct, gc=False):
    """A reply of chat, or an event of its stream."""

    choices: list[ChatChoice] | None = None
    usage: Usage | None = None


class TextLogprobs(Struct, gc=False):
    """Logprobs as completions have them: lists side by side."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class TextChoice(Struct, gc=False):
    """One of the completions."""

    index: int = 0
    text: str | None = None
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None


class Text(Struct, gc=False):
    """A reply of completions, or an event of its stream."""

    choices: list[TextChoice] | None = None
    usage: Usage | None = None


read_chat: Final = msgspec.json.Decoder(Chat).decode
read_text: Final = msgspec.json.Decoder(Text).decode
FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading raises for a reply of another shape."""
