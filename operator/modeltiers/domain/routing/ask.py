"""What the router reads of a request: the few fields that decide, typed and strict, and `Ask`, what `choose` may know.

A field that nobody here knows is not looked at; the engine judges it. `Ask` holds numbers and names and no text of the
prompt, so that it can be kept in a record.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from modeltiers.domain.routing.census import LARGE, MOST, many_prompts, many_values
from modeltiers.domain.routing.spans import spans

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
    file: Raw = ABSENT

    def media(self) -> list[Raw]:
        """Return what may point to something that an engine would fetch, whatever type the part says it has."""
        carriers = (self.image_url, self.input_image, self.audio_url, self.video_url, self.file)
        return [raw for raw in carriers if memoryview(raw)]


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
    echo: bool | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    logprobs: bool | _Count | None = None
    top_logprobs: _Count | None = None
    min_tokens: _Count | None = None
    prompt_logprobs: _Count | None = None
    stop: str | list[str] | None = None
    tools: list[Raw] | None = None
    tool_choice: Raw = ABSENT
    functions: list[Raw] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: Raw = ABSENT
    metadata: dict[str, Raw] | None = None
    user: str | None = None
    modalities: list[str] | None = None
    prompt_embeds: Raw = ABSENT
    logits_processors: Raw = ABSENT
    vllm_xargs: Raw = ABSENT
    kv_transfer_params: Raw = ABSENT
    ec_transfer_params: Raw = ABSENT

    @property
    def endpoint(self) -> Endpoint:
        """Which endpoint it was sent to: the one whose prompt was kept."""
        if self.messages is not None:
            return "chat"
        return "completions" if memoryview(self.prompt) else "embeddings"


class Prompts(Struct, frozen=True, gc=False):
    """The prompts of a request for completions or embeddings."""

    texts: list[str]
    token_counts: list[int]
    """Of those that are lists of tokens."""

    def count(self) -> int:
        """Return how many prompts there are; each is answered by itself."""
        return len(self.texts) + len(self.token_counts)


class _Messages(Struct, gc=False):
    messages: list[Raw]


_READ: Final = msgspec.json.Decoder(Request).decode
_READ_RAW: Final = msgspec.json.Decoder(
    msgspec.defstruct("_Fields", [(name, Raw, ABSENT) for name in Request.__struct_fields__], gc=False)
).decode
_READ_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_READ_TEXTS: Final = msgspec.json.Decoder(str | list[str | int | list[int]]).decode
_NAMES: Final = (("`str`", "a string"), ("`int`", "an integer"), ("`bool`", "true or false"))
_REQUIRED: Final[dict[Endpoint, str]] = {"chat": "messages", "completions": "prompt", "embeddings": "input"}
_URLS: Final = ("url", "image_url", "file_url", "file_data")
"""Where the object that carries a medium says where it lies."""
_NUMBERS: Final = b"0123456789- \t\r\n"


def read_request(endpoint: Endpoint, body: bytes) -> Request:
    """Return the fields that decide.

    Raises BadRequest when one has the wrong type or more values than anybody means, the prompt is missing, a
    conversation is empty, or a message with media gives a field twice.
    """
    try:
        if len(body) >= LARGE:
            _check_large(body)
        request = _READ(body)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(None, f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest(None, "the body is nested too deeply") from None
    return _chat(request, body) if endpoint == "chat" else _other(endpoint, request)


def _chat(request: Request, body: bytes) -> Request:
    """Return a request for a chat, with its messages only."""
    request.prompt = request.input = ABSENT
    if not request.messages:
        problem = "is missing" if request.messages is None else "is empty: a conversation has at least one message"
        raise BadRequest("messages", f"the field messages {problem}")
    for message in request.messages:
        if type(message.content) is list and any(part.media() for part in message.content):
            _check_given_once(body)
            break
    return request


def _other(endpoint: Endpoint, request: Request) -> Request:
    """Return a request for completions or embeddings, with its own prompt only."""
    name = _REQUIRED[endpoint]
    if request.messages is not None:
        # vLLM's embeddings take a conversation too, and would fetch its media unseen.
        raise BadRequest("messages", f"there are no messages at this endpoint; send {name} alone")
    if endpoint == "completions":
        request.input = ABSENT
    else:
        request.prompt = ABSENT
    begin = bytes(memoryview(getattr(request, name))[:1])
    if begin not in (b'"', b"["):
        raise BadRequest(name, f"{name} is a text or a list" if begin else f"the field {name} is missing")
    if begin == b"[":
        read_prompts(request)
    return request


def _check_large(body: bytes) -> None:
    """Refuse a long body that would become far more in memory, before it does."""
    fields = _READ_RAW(body)
    for name in Request.__struct_fields__:
        raw = memoryview(getattr(fields, name))
        if many_prompts(raw) if name in ("prompt", "input") else many_values(raw):
            raise BadRequest(name, f"{name} holds more than {MOST} values; send fewer")


def _check_given_once(body: bytes) -> None:
    """Refuse messages that give a field twice, where media are among them: we judge the last, an engine may not."""
    try:
        for message in msgspec.json.decode(body, type=_Messages).messages:
            content = bytes(_given_once(message).get("content", ABSENT))
            for part in msgspec.json.decode(content, type=list[Raw]) if content[:1] == b"[" else ():
                for value in _given_once(part).values():
                    if bytes(memoryview(value)[:1]) == b"{":
                        _given_once(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("messages", f"the messages cannot be read: {error}") from None


def _given_once(raw: Raw) -> dict[str, Raw]:
    """Return the fields of an object; raises BadRequest when one is given twice."""
    held = bytes(raw)
    fields = _READ_OBJECT(held)
    if spans(held, fields) is None:
        raise BadRequest("messages", "a field of a message is given twice; give each once")
    return fields


# --- prompts that are no messages -------------------------------------------------------------------------------------


def read_prompts(request: Request) -> Prompts:
    """Return the prompts of a request for completions or embeddings; raises BadRequest for what is none."""
    name = "prompt" if memoryview(request.prompt) else "input"
    raw = bytes(getattr(request, name))
    if b'"' not in raw:
        return _read_tokens(name, raw)
    try:
        value = _READ_TEXTS(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_prompt(name) from None
    if isinstance(value, str):
        return Prompts([value], [])
    counts = [len(one) for one in value if isinstance(one, list)]
    loose = sum(isinstance(one, int) for one in value)
    return Prompts([one for one in value if isinstance(one, str)], counts + [loose] * (loose > 0))


def _read_tokens(name: str, raw: bytes) -> Prompts:
    """Return how many tokens each prompt has, without making numbers of them: there may be millions."""
    shape = raw.translate(None, _NUMBERS)
    if shape.strip(b"[],") or shape[:1] != b"[" or b"[[[" in shape:
        raise _no_prompt(name)
    if b"[" not in shape[1:]:
        empty = not raw[1:-1].strip()
        return Prompts([], [] if empty else [shape.count(b",") + 1])
    # Each inner list ends in a bracket; what is left of it are the commas between its tokens.
    inner = (one.rpartition(b"[")[2] for one in shape[1:-1].split(b"]")[:-1])
    return Prompts([], [one.count(b",") + 1 for one in inner])


def _no_prompt(name: str) -> BadRequest:
    return BadRequest(name, f"{name} is a text, a list of texts, or lists of tokens")


def _bad(said: str) -> BadRequest:
    """Return what a client is told about a field of the wrong type."""
    problem, where, path = said.rpartition(" - at `$")
    param = path.rstrip("`").removeprefix(".") if where else ""
    problem = problem or said
    for ours, theirs in _NAMES:
        problem = problem.replace(ours, theirs)
    return BadRequest(param or None, f"{param or 'the body'}: {problem[:1].lower()}{problem[1:]}")


# --- media ------------------------------------------------------------------------------------------------------------


def media_urls(request: Request) -> list[str]:
    """Return every URL that a prompt points to; the engine would fetch it. One that is no text comes as ""."""
    found: list[str] = []
    for message in request.messages or ():
        if type(message.content) is list:
            for part in message.content:
                for raw in part.media():
                    found += _urls(raw)
    return found


def _urls(raw: Raw) -> list[str]:
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [""]
    if isinstance(value, dict):
        if "file_id" in value and not any(key in value for key in _URLS):
            return []  # a name for what was sent before, and no address
        urls = [value[key] for key in _URLS if key in value] or [None]
    else:
        urls = [value]
    return [url if isinstance(url, str) else "" for url in urls]


Modality = Literal["Text", "Image", "Audio"]


class Ask(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Everything that `choose` uses of a request, and none of its text."""

    endpoint: Endpoint
    model: str = ""
    stream: bool = False
    n: int = 1
    """Answers generated: for each prompt the larger of `n` and `best_of`."""
    echo: bool = False
    """The prompt comes back before the answer."""
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
