"""Writes JSON lines to standard output without ever making a request wait for whoever reads them.

A line is put in memory and a thread writes it; when nobody reads, lines are dropped and counted. Of a request only
names from the configuration, numbers and its id are written: no text of it, no header, no URL, no key.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import select
import threading
import time
from typing import Any, Final

import msgspec
from msgspec import Struct

ATOMIC: Final = select.PIPE_BUF
"""A write to a pipe of no more than this is not mixed with another process's."""
GATHER: Final = 0.02
"""How long lines are gathered for one write after the first, in seconds."""
SPARE: Final = 100
"""Lines of room that requests do not fill, so that they do not drown what happens to the router itself."""
_SAFE: Final = re.compile(r"[A-Za-z0-9._:/@-]{0,128}")
_ENCODE: Final = msgspec.json.Encoder().encode


class Line(
    Struct, frozen=True, gc=False, rename="camel", omit_defaults=True, kw_only=True, tag_field="event", tag="request"
):
    """One request. Every text is a name from the configuration or from the code, but the id."""

    time_ms: int
    """Unix time at which it was read."""
    id: str
    policy: str
    tier: str = ""
    outcome: str
    reason: str = ""
    status: int
    ms: int
    attempts: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    stream: bool = False
    key: str = ""
    """The name of the key, never the key."""


_TEXTS: Final = ("id", "policy", "tier", "outcome", "reason", "key")


class Log:
    """The log of one process."""

    def __init__(self, descriptor: int = 1, most_lines: int = 10_000) -> None:
        self._descriptor, self._most = descriptor, most_lines
        self._lines: queue.SimpleQueue[Line | bytes | None] = queue.SimpleQueue()
        self._full = self._lost = self._told = 0
        """Lines that found no room, counted by who gives them; by the thread: without a reader, and told of."""
        self._gone = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines found no room, or no reader."""
        return self._full + self._lost

    def say(self, event: str, **facts: Any) -> None:
        """Write what happened: facts from configuration and counts, never anything of a request."""
        line = _ENCODE({"event": event, "timeMs": time.time_ns() // 1_000_000, **facts}) + b"\n"
        if len(line) > ATOMIC:
            line = _ENCODE({"event": event, "tooLong": len(line)}) + b"\n"
        self._put(line, self._most + SPARE)

    def request(self, line: Line) -> None:
        """Write one request. Never blocks and never raises."""
        self._put(line, self._most)

    def _put(self, line: Line | bytes, most: int) -> None:
        if self._lines.qsize() >= most:
            self._full += 1
        else:
            self._lines.put(line)

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits and end, within so many seconds; a reader that does not read is not waited for."""
        self._lines.put(None)
        self._thread.join(seconds)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        more = True
        while more:
            lines = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while lines[-1] is not None:
                    lines.append(self._lines.get_nowait())
            more = lines[-1] is not None
            self._write([_encoded(line) for line in lines if line is not None])
            if more:
                time.sleep(GATHER)

    def _write(self, lines: list[bytes]) -> None:
        missing = self._full - self._told
        if missing:
            self._told += missing
            lines.append(_ENCODE({"event": "log_dropped", "lines": missing}) + b"\n")
        part, size = list[bytes](), 0
        for line in lines:
            if part and size + len(line) > ATOMIC:
                self._out(part)
                part, size = [], 0
            part.append(line)
            size += len(line)
        if part:
            self._out(part)

    def _out(self, lines: list[bytes]) -> None:
        left = memoryview(b"".join(lines))
        while left and not self._gone:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # whoever made the pipe so shares it with us: it is not ours to change
                select.select([], [self._descriptor], [])
            except OSError:
                self._gone = True  # nobody can read any more
        if left:
            self._lost += len(lines)


def _encoded(line: Line | bytes) -> bytes:
    """Return a line's bytes; a text that is no name is not written, wherever it came from."""
    if isinstance(line, bytes):
        return line
    odd = {name: "?" for name in _TEXTS if not _SAFE.fullmatch(getattr(line, name))}
    return _ENCODE(msgspec.structs.replace(line, **odd) if odd else line) + b"\n"
