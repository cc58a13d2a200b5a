"""A client on raw sockets: sends exactly these bytes with these pauses, and reads what comes, leniently.

It parses replies by its own few lines, so that a reply that is wrong is seen as it is, and blocks, so that a test reads
from top to bottom.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from tests import canaries

MODEL: Final = "support"
CHAT: Final = "/v1/chat/completions"
ERROR_FIELDS: Final = {"message", "type", "param", "code"}


class Cut(AssertionError):
    """A reply that ended before it was whole."""

    def __init__(self, why: str, got: bytes) -> None:
        super().__init__(f"{why}; came: {got[:300]!r}")
        self.got = got


@dataclass(frozen=True)
class Reply:
    """One reply as it came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes
    chunks: tuple[bytes, ...] = ()
    """The chunks of a chunked body."""
    seconds: float = 0.0
    """From the first byte sent to the last byte read."""
    whole: bool = True
    """False when the connection closed before the framing said so."""

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Return the error object; fails unless it has OpenAI's shape."""
        body = self.json
        assert set(body) == {"error"}, body
        assert set(body["error"]) == ERROR_FIELDS, body
        assert isinstance(body["error"]["message"], str)
        assert body["error"]["message"]
        assert self.header("content-type") == "application/json"
        found: dict[str, Any] = body["error"]
        return found

    @property
    def events(self) -> list[bytes]:
        """Return the data of each event of a stream."""
        return data_of(self.body)

    @property
    def text(self) -> str:
        """Return the answer's text, streamed or not."""
        if self.header("content-type") == "application/json":
            return str(self.json["choices"][0]["message"]["content"])
        said = [json.loads(one) for one in self.events if one != b"[DONE]"]
        deltas = [choice["delta"].get("content") or "" for one in said for choice in one.get("choices", ())]
        return "".join(deltas)


def data_of(stream: bytes) -> list[bytes]:
    """Return the data of each event, by the rules of the standard, the last one even without its blank line."""
    found, lines = [], list[bytes]()
    text = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line in [*text.split(b"\n"), b""]:
        if not line and lines:
            found.append(b"\n".join(lines))
            lines = []
        elif line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
    return found


class Wire:
    """One connection."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, timeout: float = 10.0, receive: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect((host, port))
        except OSError:
            self._socket.close()
            raise
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._began = time.monotonic()
        self.closed = False
        """Whether the other side has closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, *pieces: bytes, pause: float = 0.0, each: int = 0) -> Self:
        """Send pieces with a pause between two; `each` cuts them into so many bytes first."""
        data = b"".join(pieces)
        cut = [data[at : at + each] for at in range(0, len(data), each)] if each else list(pieces)
        self._began = time.monotonic()
        for place, piece in enumerate(cut):
            if place and pause:
                time.sleep(pause)
            self._socket.sendall(piece)
        return self

    def try_send(self, data: bytes) -> bool:
        """Send; False when the other side has closed."""
        try:
            self._socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def reset(self) -> None:
        """Leave with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def some(self, seconds: float | None = None) -> bytes:
        """Return what comes next, or nothing when the other side closed; raises TimeoutError."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return self._receive(seconds)

    def _receive(self, seconds: float | None = None) -> bytes:
        usual = self._socket.gettimeout()
        if seconds is not None:
            self._socket.settimeout(max(seconds, 0.001))
        try:
            data = self._socket.recv(262_144)
        except ConnectionError:
            data = b""
        finally:
            self._socket.settimeout(usual)
        self.closed = self.closed or not data
        return data

    def until_closed(self, seconds: float = 10.0) -> bytes:
        """Return all that comes until the other side closes; fails when it does not in time."""
        got, until = self._buffer, time.monotonic() + seconds
        self._buffer = b""
        while not self.closed:
            left = until - time.monotonic()
            try:
                got += self._receive(left) if left > 0 else b""
            except TimeoutError:
                left = 0
            if left <= 0 and not self.closed:
                raise Cut(f"still open after {seconds} s", got)
        return got

    def until_quiet(self, quiet: float = 0.3, seconds: float = 10.0) -> bytes:
        """Return all that comes until it closes, or nothing comes for so long."""
        got, until = self._buffer, time.monotonic() + seconds
        self._buffer = b""
        while not self.closed and time.monotonic() < until:
            try:
                got += self._receive(quiet)
            except TimeoutError:
                break
        return got

    def reply(self, seconds: float = 10.0, *, method: str = "GET") -> Reply:
        """Read one reply, past any 1xx; a body without a length ends with the connection."""
        until = time.monotonic() + seconds
        while True:
            head = self._take_until(b"\r\n\r\n", until)
            status, headers = parse_head(head)
            if status >= 200:
                break
        body, raw, parts, whole = self._body(status, dict(headers), method, until)
        return Reply(status, headers, body, head + raw, parts, time.monotonic() - self._began, whole)

    def _body(
        self, status: int, headers: dict[str, str], method: str, until: float
    ) -> tuple[bytes, bytes, tuple[bytes, ...], bool]:
        if method == "HEAD" or status in (204, 304):
            return b"", b"", (), True
        if "chunked" in headers.get("transfer-encoding", ""):
            return self._chunked(until)
        if (length := headers.get("content-length")) is not None:
            try:
                body = self._take(int(length), until)
            except Cut as cut:
                return cut.got, cut.got, (), False
            return body, body, (), True
        body = self.until_closed(until - time.monotonic())
        return body, body, (), True

    def _chunked(self, until: float) -> tuple[bytes, bytes, tuple[bytes, ...], bool]:
        parts, raw = list[bytes](), b""
        try:
            while True:
                line = self._take_until(b"\r\n", until)
                raw += line
                size = int(line.split(b";")[0], 16)
                data = self._take(size + 2, until)
                raw += data
                assert data.endswith(b"\r\n"), f"a chunk of {size} bytes ends with {data[-2:]!r}"
                if not size:
                    return b"".join(parts), raw, tuple(parts), True
                parts.append(data[:-2])
        except Cut as cut:
            return b"".join(parts) + cut.got, raw + cut.got, tuple(parts), False

    def _take_until(self, end: bytes, until: float) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            self._more(until)
        taken, self._buffer = self._buffer[: at + len(end)], self._buffer[at + len(end) :]
        return taken

    def _take(self, size: int, until: float) -> bytes:
        parts, length = [self._buffer], len(self._buffer)
        self._buffer = b""
        while length < size:
            try:
                self._more(until)
            except Cut as cut:
                raise Cut("cut", b"".join(parts) + cut.got) from None
            parts.append(self._buffer)
            length += len(self._buffer)
            self._buffer = b""
        data = b"".join(parts)
        self._buffer = data[size:]
        return data[:size]

    def _more(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole reply in time; came: {self._buffer[:300]!r}")
        data = self._receive(left)
        if not data:
            raise Cut("closed in the middle of a reply", self._buffer)
        self._buffer += data


def parse_head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return status and headers, names in lower case; fails for a head that is not clean HTTP/1.1."""
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    assert version == "HTTP/1.1", first
    assert "\n" not in head.decode("latin-1").replace("\r\n", ""), head
    pairs = [line.partition(":") for line in lines]
    return int(rest[:3]), tuple((name.lower(), value.strip()) for name, _, value in pairs)


def replies(data: bytes) -> list[Reply]:
    """Cut bytes into the replies they hold, leniently: the last may be cut."""
    found, rest = list[Reply](), data
    while rest.startswith(b"HTTP/1.") and b"\r\n\r\n" in rest:
        head, _, after = rest.partition(b"\r\n\r\n")
        status, headers = parse_head(head + b"\r\n\r\n")
        named = dict(headers)
        if status < 200:
            rest = after
            continue
        if "chunked" in named.get("transfer-encoding", ""):
            end = after.find(b"0\r\n\r\n")
            body, rest = (after[: end + 5], after[end + 5 :]) if end >= 0 else (after, b"")
        else:
            length = int(named.get("content-length", len(after)))
            body, rest = after[:length], after[length:]
        found.append(Reply(status, headers, body, head))
    return found


def chat_body(text: str = canaries.PROMPT, **fields: Any) -> bytes:
    """Return the body of a chat request; a field that is ... is left out. Its prompt must show nowhere."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
    return json.dumps({key: value for key, value in body.items() if value is not ...}).encode()


def request(
    body: bytes = b"",
    *lines: str,
    path: str = CHAT,
    method: str = "POST",
    host: str | None = "router.test",
    kind: str | None = "application/json",
    length: bool = True,
) -> bytes:
    """Return a request; `lines` are further headers, and the usual ones can be left out. Its cookie is nobody's."""
    head = [f"{method} {path} HTTP/1.1", f"cookie: id={canaries.COOKIE}"]
    head += [f"host: {host}"] if host is not None else []
    head += [f"content-type: {kind}"] if kind is not None and body else []
    head += [f"content-length: {len(body)}"] if length and (body or method == "POST") else []
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1") + body


def chunked(parts: Iterable[bytes], *lines: str, path: str = CHAT) -> bytes:
    """Return a request whose body goes in these chunks."""
    head = request(b"", *lines, "content-type: application/json", "transfer-encoding: chunked", path=path, length=False)
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


def ask(port: int, data: bytes | None = None, *, seconds: float = 10.0, method: str = "POST") -> Reply:
    """Send one request on a connection of its own; returns its reply."""
    with Wire(port) as wire:
        return wire.send(data if data is not None else request(chat_body())).reply(seconds, method=method)


def chat(port: int, text: str = canaries.PROMPT, *lines: str, seconds: float = 10.0, **fields: Any) -> Reply:
    """Ask for a chat completion on a connection of its own."""
    return ask(port, request(chat_body(text, **fields), *lines), seconds=seconds)


def get(port: int, path: str, *, seconds: float = 10.0) -> Reply:
    """GET on a connection of its own."""
    return ask(port, request(path=path, method="GET"), seconds=seconds)


@contextlib.contextmanager
def many(port: int, count: int, *, receive: int = 0) -> Any:
    """Open so many connections."""
    wires = list[Wire]()
    try:
        for _ in range(count):
            wires.append(Wire(port, receive=receive))
        yield wires
    finally:
        for wire in wires:
            wire.close()
