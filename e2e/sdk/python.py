"""Asks by OpenAI's Python SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import openai
from pydantic import BaseModel

from e2e.sdk.sdk import Asking, Fault, Seen

PREFIX: Final = "x-modeltiers-"
FOREIGN: Final = {"ignore_eos", "min_tokens", "x_note"}
"""Fields of vLLM and of nobody."""


class Answer(BaseModel):
    """What `parse` asks for."""

    answer: int


class PythonSdk:
    """A client of its own for each question."""

    name = "python"

    def ask(self, asking: Asking) -> Seen:
        """Put one question."""
        seen = Seen()
        with openai.OpenAI(
            api_key=asking.key,
            base_url=asking.base,
            max_retries=asking.retries,
            timeout=asking.seconds,
            default_headers=dict(asking.headers),
        ) as client:
            try:
                return _asked(client, asking, seen)
            except openai.APIError as error:
                return Seen(events=seen.events, headers=seen.headers, fault=_fault(error))


def _asked(client: Any, asking: Asking, seen: Seen) -> Seen:
    """Return what came; what came before an error stays in `seen`. The SDK's overloads do not fit a body in a dict."""
    if asking.endpoint == "models":
        return Seen(result={"data": [one.model_dump() for one in client.models.list()]})
    body = _arguments(asking.body)
    if asking.how == "helper":
        with client.chat.completions.stream(**body) as events:
            seen.events.extend(event.chunk.model_dump() for event in events if event.type == "chunk")
            return Seen(result=events.get_final_completion().model_dump(), events=seen.events)
    if asking.how == "parse":
        reply = client.chat.completions.parse(**body, response_format=Answer)
        parsed = reply.choices[0].message.parsed
        return Seen(result=reply.model_dump(warnings=False), parsed=parsed.model_dump() if parsed else None)
    places = {"chat": client.chat.completions, "completions": client.completions, "embeddings": client.embeddings}
    raw = places[asking.endpoint].with_raw_response.create(**body)
    seen.headers.update({name[len(PREFIX) :]: value for name, value in raw.headers.items() if name.startswith(PREFIX)})
    if not asking.body.get("stream"):
        return Seen(result=raw.parse().model_dump(warnings=False), headers=seen.headers)
    with raw.parse() as stream:
        for chunk in stream:
            seen.events.append(chunk.model_dump())
            if len(seen.events) == asking.leave_after:
                break
    return seen


def _arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body as arguments of a call; fields that are not OpenAI's own go in as the SDK has it."""
    extra = {name: value for name, value in body.items() if name in FOREIGN}
    known = {name: value for name, value in body.items() if name not in FOREIGN}
    return known | ({"extra_body": extra} if extra else {})


def _fault(error: openai.APIError) -> Fault:
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    return Fault(type(error).__name__, status, error.message, error.code, error.param, error.type)
