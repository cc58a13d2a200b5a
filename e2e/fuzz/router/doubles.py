"""A loop and a transport without time or sockets: what asyncio does to a protocol, in an order of our choice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast


class Loop:
    """A loop that turns when it is told to; its clock stands until it is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self._soon: deque[Callable[[], object]] = deque()

    def time(self) -> float:
        """Return the time that was set."""
        return self.now

    @property
    def real(self) -> asyncio.AbstractEventLoop:
        """This loop for code that wants asyncio's; it has what that code uses."""
        return cast(asyncio.AbstractEventLoop, self)

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Keep a call for the next turn."""
        self._soon.append(lambda: callback(*args))

    def turn(self) -> None:
        """Make the calls that wait; those they bring wait for the next turn."""
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def settle(self) -> None:
        """Turn until nothing waits."""
        while self._soon:
            self.turn()


class Transport(asyncio.Transport):
    """Keeps what is written and closes as uvloop's does: the protocol hears of it one turn later."""

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop, self._protocol = loop, protocol
        self._closing = self.ended = False
        self.paused = False
        self.left = 0
        """Bytes that the other side has not taken."""
        self.written: list[bytes] = []
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Keep it; after the end it is lost, and after an announced end it is a mistake."""
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self._closing:
            self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Keep them."""
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        """Return that it can."""
        return True

    def write_eof(self) -> None:
        """Announce the end."""
        self.ended = True

    def is_closing(self) -> bool:
        """Return whether it takes nothing more."""
        return self._closing

    def close(self) -> None:
        """Close."""
        self.lose(None)

    def abort(self) -> None:
        """Close at once."""
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """Close for a reason."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, error)

    def pause_reading(self) -> None:
        """Read no more."""
        self.paused = True

    def resume_reading(self) -> None:
        """Read on."""
        self.paused = False

    def get_write_buffer_size(self) -> int:
        """Return what the other side has not taken."""
        return self.left

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the address of the other side."""
        return ("192.0.2.1", 1) if name == "peername" else default
