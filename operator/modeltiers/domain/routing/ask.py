"""What the router reads of a request: the few fields that decide, typed and strict, and `Ask`, what `choose` may know.

A field that nobody here knows is not looked at; the engine judges it. `Ask` holds numbers and names and no text of the
prompt, so that it can be kept in a record.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

Endpoint = Literal["chat", "completions", "embeddings"]
ABSENT: Final = Raw()
"""A field that the body does not have."""
_Count = Annotated[int, Meta(ge=0, le=10**9)]


class BadRequest(ValueError):
    """A field of a request that cannot be meant; `param` names it as OpenAI's errors do."""

    def __init__(self, param: str | None, message: str) -> None:
        super().__init__(message)
        self.param, self.message = param, message


class Part(Struct, gc=False):
    """One part of a message's content: a text, or media by the field that carries it."""

    type: str = "text"
    text: str | None = None
    image_url: Raw = ABSENT
    input_image: Raw = ABSENT
    audio_url: Raw = ABSENT
    video_url: Raw = ABSENT


class Message(Struct, gc=False):
    """One message of a conversation, as far as it is looked at."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: Raw = ABSENT


class ResponseFormat(Struct, gc=False):
    """The form that the answer shall have."""

    type: str = "text"
    json_schema: Raw = ABSENT


class Request(Struct, gc=False):
    """The fields of a body that decide something; each may be left out. Exactly one of the prompts is kept."""

    model: str | None = None
    messages: list[Message] | None = None
    prompt: Raw = ABSENT
    input: Raw = ABSENT
    stream: bool | None = None
    stream_options: dict[str, Raw] | None = None
    n: _Count | None = None
    best_of: _Count | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    logprobs: bool | _Count | None = None
    top_logprobs: _Count | None = None
    stop: str | list[str] | None = None
    tools: list[Raw] | None = None
    tool_choice: Raw = ABSENT
    functions: list[Raw] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: Raw = ABSENT
    metadata: dict[str, Raw] | None = None
    user: str | None = None
    modalities: list[str] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Which endpoint it was sent to: the one whose prompt was kept."""
        if self.messages is not None:
            return "chat"
        return "completions" if memoryview(self.prompt) else "embeddings"


_READ: Final = msgspec.json.Decoder(Request).decode
_NAMES: Final = (("`str`", "a string"), ("`int`", "an integer"), ("`bool`", "true or false"))
_REQUIRED: Final[dict[Endpoint, str]] = {"chat": "messages", "completions": "prompt", "embeddings": "input"}


def read_request(endpoint: Endpoint, body: bytes) -> Request:
    """Return the fields that decide.

    Raises BadRequest when one has the wrong type, the prompt is missing or a conversation is empty.
    """
    try:
        request = _READ(body)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(None, f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest(None, "the body is nested too deeply") from None
    if endpoint == "chat":
        request.prompt = request.input = ABSENT
        if request.messages:
            return request
        problem = "is missing" if request.messages is None else "is empty: a conversation has at least one message"
        raise BadRequest("messages", f"the field messages {problem}")
    request.messages = None
    raw = request.prompt if endpoint == "completions" else request.input
    if endpoint == "completions":
        request.input = ABSENT
    else:
        request.prompt = ABSENT
    if (begin := bytes(memoryview(raw)[:1])) not in (b'"', b"["):
        name = _REQUIRED[endpoint]
        raise BadRequest(name, f"{name} is a text or a list" if begin else f"the field {name} is missing")
    return request


def _bad(said: str) -> BadRequest:
    """Return what a client is told about a field of the wrong type."""
    problem, _, path = said.rpartition(" - at `$")
    param = path.rstrip("`").removeprefix(".")
    problem = problem or said
    for ours, theirs in _NAMES:
        problem = problem.replace(ours, theirs)
    return BadRequest(param or None, f"{param or 'the body'}: {problem[:1].lower()}{problem[1:]}")


def media_urls(request: Request) -> list[str]:
    """Return every URL that a prompt points to; the engine would fetch it. One that is no text comes as ""."""
    found: list[str] = []
    for message in request.messages or ():
        if type(message.content) is list:
            for part in message.content:
                carriers = (part.image_url, part.input_image, part.audio_url, part.video_url)
                found += [_url(raw) for raw in carriers if memoryview(raw)]
    return found


def _url(raw: Raw) -> str:
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    url = value.get("url", value.get("image_url")) if isinstance(value, dict) else value
    return url if isinstance(url, str) else ""


Modality = Literal["Text", "Image", "Audio"]


class Ask(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Everything that `choose` uses of a request, and none of its text."""

    endpoint: Endpoint
    model: str = ""
    stream: bool = False
    n: int = 1
    """Answers generated: the larger of `n` and `best_of`."""
    max_tokens: int = 0
    """What the request asks for at most; 0 when it leaves it open."""
    prompt_chars: int = 0
    """Characters of the text of all messages."""
    prompt_tokens: int = 0
    """An estimate, see `see.tokens_of`; of several prompts in one request, of the longest."""
    messages: int = 1
    tools: bool = False
    """Tools are offered and not forbidden by tool_choice "none"."""
    tool_loop: bool = False
    """The last message is a tool's result."""
    json_mode: bool = False
    json_schema: bool = False
    logprobs: bool = False
    modalities: tuple[Modality, ...] = ("Text",)
    task: str | None = None
    """None: nobody asked for it, so the text was not read. So for `score`, and `features` is empty then."""
    score: float | None = None
    scorer: str | None = None
    features: tuple[int, ...] = ()
    matched: tuple[str, ...] = ()
    """Rules that look at text, headers or metadata, and found there what they look for."""
    override: str | None = None
    session: str | None = None
    draw: int = 0
    """A number below a million, the same for every request of a conversation."""
