"""How a test reads a stream that may break, and what makes its end a truthful one."""

from __future__ import annotations

import json
import time

from tests.router.kit.client import Wire


def begun(wire: Wire, events: int = 20) -> bytes:
    """Read until so many events have come."""
    got = b""
    while got.count(b"data: ") < events:
        more = wire.some(10)
        assert more, got
        got += more
    return got


def ends_truthfully(stream: bytes) -> None:
    """Fail unless a stream that broke says so: an error of OpenAI's shape comes last, and no [DONE]."""
    assert b"[DONE]" not in stream
    last = [line for line in stream.split(b"\n") if line.startswith(b"data: ")][-1]
    assert set(json.loads(last[6:])["error"]) == {"message", "type", "param", "code"}


def rest(wire: Wire, seconds: float) -> bytes:
    """Read until the stream has ended: with an error, with [DONE], or with nothing more to come."""
    got, until = b"", time.monotonic() + seconds
    while time.monotonic() < until and b'"error"' not in got and b"[DONE]" not in got:
        try:
            more = wire.some(1.0)
        except TimeoutError:
            continue
        if not more:
            break
        got += more
    return got
