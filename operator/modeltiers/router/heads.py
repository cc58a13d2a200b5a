"""What a request's head says to the router: which endpoint, which id, what is passed on, whose key.

All of it is worked out once for a head, however many requests of a connection have it. What a head says that holds only
for a while, a hop's signature, is not kept.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from modeltiers.domain.routing.ask import Endpoint
from modeltiers.router.keys import KeyRing
from modeltiers.router.outgoing import PATHS, TRACE, passed
from modeltiers.router.replies import JSON, Refusal
from modeltiers.router.requests import Request

ENDPOINTS: Final[dict[bytes, Endpoint]] = {path: endpoint for endpoint, path in PATHS.items()}
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Facts(Struct):
    """What a head says. Read it, but for the key, which `key_of` finds."""

    endpoint: Endpoint
    texts: dict[str, str]
    """The headers as text."""
    request_id: str
    """The client's own, if it has one that is safe to repeat."""
    trace: bytes
    """The lines that every tier of the cluster gets."""
    key: str = ""
    keys: int = -1
    """The generation of keys among which the key was found."""

    def key_of(self, keys: KeyRing, authorization: bytes | None) -> str:
        """Return the name of the key that the head shows; raises Refusal."""
        if self.keys != keys.generation:
            self.key = keys.check(authorization)
            self.keys = keys.generation
        return self.key


def read_head(request: Request) -> Facts:
    """Return what the head of a request to one of the endpoints says; raises Refusal for what is not served."""
    endpoint, headers = ENDPOINTS.get(request.target), request.headers
    if endpoint is None:
        raise Refusal(
            404, "there is nothing here; see /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings"
        )
    if request.method != b"POST":
        raise Refusal(405, "use POST", allow=b"POST")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Refusal(415, "send the body as it is, without content-encoding")
    kind = headers.get(b"content-type", JSON)
    if kind != JSON and kind.partition(b";")[0].strip().lower() != JSON:
        raise Refusal(415, "send the header content-type: application/json")
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    return Facts(endpoint, texts, _request_id(headers.get(b"x-request-id")), passed(headers, TRACE))


def _request_id(said: bytes | None) -> str:
    text = said.decode("latin-1") if said is not None else ""
    return text if _ID.fullmatch(text) else ""
