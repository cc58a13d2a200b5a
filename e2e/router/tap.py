"""A wire that writes down what goes over it: stands between the router and an engine and changes no byte."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from e2e.engine.record import unchunked

END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass
class Line:
    """One connection: what the router said, and what the engine said."""

    asked: bytes = b""
    answered: bytes = b""
    sockets: list[socket.socket] = field(default_factory=list)


class Tap:
    """Listens on a free port of 127.0.0.1 and passes everything on to another one."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lines = list[Line]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def asked(self) -> tuple[bytes, bytes]:
        """Return head and body of the last request that was posted."""
        said = self._last().asked
        head, _, body = said[said.rindex(b"POST /") :].partition(END_OF_HEAD)
        return head, body

    def answered(self) -> bytes:
        """Return the body of the reply to it, without its framing; waits for the end of one that is in chunks."""
        until = time.monotonic() + 2
        while True:
            # a connection carries one question at a time: the reply to the last one comes last
            said = self._last().answered
            head, _, rest = said[said.rindex(b"HTTP/1.1 ") :].partition(END_OF_HEAD)
            if b"transfer-encoding: chunked" not in head.lower():
                return rest
            if rest.endswith(b"0\r\n\r\n") or time.monotonic() > until:
                return unchunked(rest)
            time.sleep(0.01)  # the router ends its own stream at [DONE], a moment before

    def connections(self) -> int:
        """Return how many connections carried a request, health aside."""
        return sum(b"POST /" in line.asked for line in self._lines)

    def cut(self) -> None:
        """Close every connection that is open, both ways; new ones are welcome."""
        for line in self._lines:
            for one in line.sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _last(self) -> Line:
        return [line for line in self._lines if b"POST /" in line.asked][-1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread that waits for a connection wakes up
        self._listener.close()
        self.cut()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                near, _ = self._listener.accept()
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        line = Line(sockets=[near, far])
        self._lines.append(line)
        for source, sink, name in ((near, far, "asked"), (far, near, "answered")):
            threading.Thread(target=_pump, args=(line, name, source, sink), daemon=True).start()


def _pump(line: Line, name: str, source: socket.socket, sink: socket.socket) -> None:
    """Pass on until one side closes, then close both ways."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            setattr(line, name, getattr(line, name) + data)
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    source.close()
