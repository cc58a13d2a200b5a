"""What the router itself says to a client: errors in OpenAI's shape, and the heads of replies."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from math import ceil
from typing import Final

import msgspec

JSON: Final = b"application/json"
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_LINES: Final = {int(status): b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus}


class Refusal(Exception):
    """A request that is answered with an error: the status, why, and which field."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        allow: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after
        self._allow = allow

    def body(self) -> bytes:
        """Return OpenAI's error object."""
        return error_body(self.status, self.message, self.param, self.code)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what goes with it."""
        found = [(b"allow", self._allow)] if self._allow else []
        if self.retry_after is not None:
            found.append((b"retry-after", b"%d" % max(1, ceil(self.retry_after))))
        return found


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """Return an error as OpenAI's clients read it."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_event(message: str) -> bytes:
    """Return the server-sent event that ends a broken stream; no [DONE] follows it."""
    return b"data: %b\n\n" % error_body(502, message, code="upstream_error")


def head(status: int, headers: Iterable[tuple[bytes, bytes]], *, close: bool) -> bytes:
    """Return the head of a reply; `headers` hold no name or value with a line break in it."""
    line = _LINES.get(status) or b"HTTP/1.1 %d " % status
    return b"\r\n".join([line, *map(b": ".join, headers), b"connection: close\r\n\r\n" if close else b"\r\n"])
