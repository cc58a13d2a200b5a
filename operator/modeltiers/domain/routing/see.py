"""Looks at a request once and returns an `Ask`: counts, estimates, which rules found their words. Keeps no text.

The text of the last user message is read only if a rule, a score or a task asks for it. Total: what cannot be counted
counts as nothing, the engine judges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from modeltiers.domain.routing.ask import ABSENT, Ask, BadRequest, Message, Modality, Part, Request, read_prompts
from modeltiers.domain.routing.features import SCORER, Shape, count, score, task
from modeltiers.domain.routing.rules import CompiledPolicy
from modeltiers.domain.routing.table import Session
from modeltiers.domain.routing.text import ends, fold, words

BYTES_PER_TOKEN: Final = 4
"""UTF-8 bytes that make a token: English has about four and a half, code three, Chinese four."""
TOKENS_PER_MESSAGE: Final = 4
"""What a chat template adds to a message."""
TOKENS_PER_MEDIUM: Final = 1_000
"""An image or a sound: models differ from 300 to 3,000."""
_SAMPLED: Final = 1_024
"""Characters by which the bytes of a text beyond ASCII are estimated."""
DRAWS: Final = 1_000_000
"""A draw is a whole number below this; a permille is this many thousandths of it."""
OVERRIDE: Final = "x-modeltiers-tier"
_ANY_SESSION: Final = Session().header
_IMAGES: Final = frozenset({"image_url", "input_image", "image_embeds", "image_pil", "video_url"})
_AUDIO: Final = frozenset({"input_audio", "audio_url", "audio_embeds"})
_TEXT: Final[tuple[Modality, ...]] = ("Text",)


class Prompt(Struct, gc=False):
    """The facts of a prompt, and its last user message."""

    chars: int = 0
    tokens: int = 0
    messages: int = 1
    last: str = ""
    tool_loop: bool = False
    images: int = 0
    audio: int = 0


def see(policy: CompiledPolicy, request: Request, headers: Mapping[str, str], request_id: str) -> Ask:
    """Return what `choose` may know of a request. Total.

    `headers` has lower-case names. The request id stands for the conversation where nothing names one.
    """
    prompt = prompt_of(request)
    form = request.response_format
    wish = request.structured_outputs
    schema = json_mode = wish is not ABSENT and len(memoryview(wish)) > 4  # null is no wish
    if form is not None:
        schema = schema or form.type not in ("text", "json_object")
        json_mode = schema or form.type != "text"
    tools, tokens = 0, prompt.tokens
    if request.tools or request.functions:
        tools, size = _tools(request)
        tokens += size // BYTES_PER_TOKEN
    several = 1 if request.n is request.best_of is None else max(request.n or 1, request.best_of or 1)
    if request.messages is None and memoryview(request.prompt):
        several *= prompt.messages  # each prompt is answered by itself
    task_ = score_ = None
    matched: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    finder = policy.finder
    echo = bool(request.echo)
    scored = policy.needs_score or ((several > 1 or echo) and policy.policy.mode == "Cascade")
    if finder.reads_text or scored:
        text = ends(prompt.last)
        folded = fold(text)
        raw = folded.encode()
        known = policy.vocabulary.intersection(words(raw))
        matched = finder.find(text, folded, raw, known, headers, request)
        if scored:
            shape = Shape(len(prompt.last), tokens, prompt.messages, tools, json_mode)
            counts = count(folded, raw, known, shape)
            score_, task_ = score(counts), task(counts)
    elif policy.policy.rules:
        matched = finder.find("", "", b"", (), headers, request)
    session, draw = conversation(policy, request, headers, request_id)
    return Ask(  # by place: msgspec looks for each name among all
        request.endpoint,
        request.model or "",
        bool(request.stream),
        several,
        echo,
        request.max_completion_tokens or request.max_tokens or 0,
        prompt.chars,
        tokens,
        prompt.messages,
        tools > 0,
        prompt.tool_loop,
        json_mode,
        schema,
        bool(request.logprobs),
        _modalities(prompt, request),
        task_,
        score_,
        SCORER if counts else None,
        counts,
        matched,
        override if (override := headers.get(OVERRIDE)) in policy.names else None,
        session,
        draw,
    )


def _tools(request: Request) -> tuple[int, int]:
    """Return how many tools may be called, and the bytes of those that are offered."""
    tools, functions = request.tools or (), request.functions or ()
    size = sum(len(memoryview(tool)) for tool in tools or functions)
    forbidden = bytes(request.tool_choice) == b'"none"'
    return 0 if forbidden else len(tools) + len(functions), size


def conversation(
    policy: CompiledPolicy, request: Request, headers: Mapping[str, str], request_id: str
) -> tuple[str | None, int]:
    """Return the digest of the conversation, if the policy keeps sessions and it has a name, and its draw."""
    session = policy.policy.session
    named = headers.get(_ANY_SESSION if session is None else session.header) or request.user
    # The policy's name is mixed in: one policy's canaries are not another's, and digests do not join across policies.
    digest = blake2b(f"{policy.policy.name}\0{named or request_id}".encode("utf-8", "replace"), digest_size=8)
    draw = int.from_bytes(digest.digest()) % DRAWS
    return (digest.hexdigest() if session is not None and named else None), draw


def prompt_of(request: Request) -> Prompt:
    """Return the facts of a prompt. Total: a prompt of completions or embeddings that is no text counts as nothing."""
    if request.messages is not None:
        return _conversation(request.messages)
    try:
        prompts = read_prompts(request)
    except BadRequest:
        return Prompt()
    texts, counts = prompts.texts, prompts.token_counts
    # Each is a prompt of its own: the longest must fit.
    return Prompt(
        chars=sum(map(len, texts)) + BYTES_PER_TOKEN * sum(counts),
        tokens=max([*map(tokens_of, texts), *counts], default=0),
        messages=max(1, prompts.count()),
        last=texts[-1] if texts else "",
    )


def _conversation(messages: list[Message]) -> Prompt:
    chars, tokens, last = 0, TOKENS_PER_MESSAGE * len(messages), ""
    found = Prompt()
    for message in messages:
        content = message.content
        text = content if isinstance(content, str) else _read_parts(content, found) if content else ""
        if text:
            chars += len(text)
            tokens += tokens_of(text)
        if message.role == "user":
            last = text
        elif message.tool_calls is not ABSENT:
            tokens += len(memoryview(message.tool_calls)) // BYTES_PER_TOKEN
    media = found.images, found.audio
    looped = messages[-1].role in ("tool", "function")
    return Prompt(chars, tokens + TOKENS_PER_MEDIUM * sum(media), len(messages), last, looped, *media)


def _read_parts(parts: list[Part], found: Prompt) -> str:
    """Return the text of a message in parts, and count what else it holds."""
    texts = []
    for part in parts:
        if part.text is not None:
            texts.append(part.text)
        elif part.type in _IMAGES:
            found.images += 1
        elif part.type in _AUDIO:
            found.audio += 1
    return "\n".join(texts)


def tokens_of(text: str) -> int:
    """Estimate the tokens of a text, by its bytes in UTF-8; of one beyond ASCII, by the bytes of its beginning."""
    size = len(text)
    if not text.isascii():
        sample = text[:_SAMPLED]
        size = size * len(sample.encode("utf-8", "replace")) // len(sample)
    return -(-size // BYTES_PER_TOKEN)


def _modalities(prompt: Prompt, request: Request) -> tuple[Modality, ...]:
    speaks = request.modalities is not None and "audio" in request.modalities
    if not (prompt.images or prompt.audio or speaks):
        return _TEXT
    images: tuple[Modality, ...] = ("Image",) if prompt.images else ()
    audio: tuple[Modality, ...] = ("Audio",) if prompt.audio or speaks else ()
    return _TEXT + images + audio
