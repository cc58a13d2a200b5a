"""Renders the request for a tier: a fresh head with the few headers that are passed on, and the client's own body.

Only what must change of the body is changed; a header of the client reaches a tier only by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from modeltiers.domain.routing.ask import Ask, Endpoint
from modeltiers.domain.routing.ask import Request as Fields
from modeltiers.domain.routing.choose import Choice, Load
from modeltiers.domain.routing.table import Tier
from modeltiers.router.requests import Request as HttpRequest
from modeltiers.router.routes import Route
from modeltiers.router.wire import Body

PATHS: Final[dict[Endpoint, bytes]] = {
    "chat": b"/v1/chat/completions",
    "completions": b"/v1/completions",
    "embeddings": b"/v1/embeddings",
}
TRACE: Final = (b"traceparent", b"tracestate")
_ONE_WRITE: Final = 16_384
"""Below this, head and body are joined: two writes would be two packets."""


class Accepted(Struct):
    """A request that was judged and found good: what is sent, where, and for whom."""

    http: HttpRequest
    endpoint: Endpoint
    route: Route
    body: Body
    fields: Fields
    ask: Ask
    load: Load
    choice: Choice
    changes: dict[str, bytes]
    key: str
    id: str
    """Names the decision record; ours, never the client's."""
    request_id: str
    """Passed on to the tier and back: the client's own if it gave one."""
    trace: bytes
    """Lines of its head that every tier of the cluster gets."""
    began: float
    """By the monotonic clock, in seconds."""
    time_ms: int
    """Unix time."""
    hops: int = 0
    """How many routers it came through."""


def wants_usage(fields: Fields) -> bool:
    """Whether the client asked for the usage at the end of its stream."""
    options = fields.stream_options or {}
    return "include_usage" in options and bytes(memoryview(options["include_usage"])) == b"true"


def with_usage(fields: Fields) -> bytes:
    """Return the stream's options with the usage asked for."""
    options = dict(fields.stream_options or {})
    options["include_usage"] = Raw(b"true")
    return msgspec.json.encode(options)


def render(accepted: Accepted, tier: Tier, changes: Mapping[str, bytes], hop: bytes | None) -> list[bytes]:
    """Return the bytes to send to a tier: the client's body with these changes, under a head of ours."""
    if tier.model is not None and tier.model != accepted.fields.model:
        changes = {**changes, "model": msgspec.json.encode(tier.model)}
    body = accepted.body.with_changes(changes) if changes else accepted.body.raw
    more = accepted.trace
    if tier.external is not None:
        more = passed(accepted.http.headers, (*TRACE, *(name.encode() for name in tier.external.headers)))
    if hop is not None:
        more += b"x-modeltiers-hop: %b\r\n" % hop
    head = (
        b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\nx-request-id: %b\r\n%b\r\n"
        % (PATHS[accepted.endpoint], (tier.address or "").encode(), len(body), accepted.request_id.encode(), more)
    )
    return [head + body] if len(body) < _ONE_WRITE else [head, body]


def passed(headers: Mapping[bytes, bytes], names: Iterable[bytes]) -> bytes:
    """Return the lines of those of the headers that have these names."""
    return b"".join([b"%b: %b\r\n" % (name, value) for name in names if (value := headers.get(name)) is not None])
