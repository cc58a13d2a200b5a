"""What the router itself says to a client: errors in OpenAI's shape, and the heads of replies."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Final

import msgspec

JSON: Final = b"application/json"
JSON_LINE: Final = b"content-type: application/json\r\n"
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CLOSE: Final = b"connection: close\r\n"
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

    def lines(self) -> bytes:
        """Return the lines of the head that go with it, that of its type included."""
        found = JSON_LINE
        if self._allow:
            found += b"allow: %b\r\n" % self._allow
        if self.retry_after is not None:
            found += b"retry-after: %d\r\n" % max(1, ceil(self.retry_after))
        return found


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """Return an error as OpenAI's clients read it."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_event(message: str) -> bytes:
    """Return the server-sent event that ends a broken stream; no [DONE] follows it."""
    return b"data: %b\n\n" % error_body(502, message, code="upstream_error")


def head(status: int, lines: bytes, *, close: bool) -> bytes:
    """Return the head of a reply; `lines` are its headers as they are sent, each with the line break that ends it."""
    return b"%b\r\n%b%b\r\n" % (_LINES.get(status) or b"HTTP/1.1 %d " % status, lines, _CLOSE if close else b"")
