# ruff: noqa: ARG002  a listener takes what it is told
"""Target: how the router follows a stream. Events spoiled, and cut at every byte.

What must hold: the bytes come out as they went in, cut into the events that the standard's own reading gives; what is
done about them is the same however they were cut; a stream that ended without its [DONE] is never called whole.
"""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Final

from e2e.fuzz.router.doubles import Loop
from e2e.fuzz.router.target import cuts, demand, spoil
from modeltiers.domain.routing.table import Tier
from modeltiers.router import sse
from modeltiers.router.connection import Failure, Head
from modeltiers.router.metrics import Book
from modeltiers.router.reading import Metered, Reading
from modeltiers.router.upstream import Pool

WORDS: Final = (
    b"data: ",
    b"data:",
    b"data",
    b"data: [DONE]\n\n",
    b"[DONE]",
    b"event: x\n",
    b"id: 1\n",
    b": comment\n\n",
    b"retry: 1\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\r\r",
    b"\r\n",
    b"\r",
    b"\n",
    b"\n\r",
    b'{"error":{"message":"x"}}',
    b'{"choices":[]}',
    b'"usage":{"prompt_tokens":1}',
    b'"error":null',
    b"\xef\xbb\xbf",
    b"\xe2\x82\xac",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
)
_HEAD: Final = Head(200, [(b"content-type", b"text/event-stream")])
Said = list[tuple[str, bytes]]


class Listener:
    """Takes down what a reading says."""

    def __init__(self) -> None:
        self.said: Said = []

    def event(self, reading: Reading, event: bytes, payload: bytes, metered: Metered | None) -> None:
        """Keep an event and what of it was metered."""
        self.said.append(("event", event))
        if metered is not None and metered.usage is not None:
            self.said.append(("usage", b"%d" % metered.usage.prompt_tokens))

    def done(self, reading: Reading, event: bytes) -> None:
        """Keep the last event."""
        self.said.append(("done", event))

    def whole(self, reading: Reading, head: Head, body: bytes, metered: Metered) -> None:
        """Keep a whole reply."""
        self.said.append(("whole", body))

    def failed(self, reading: Reading, failure: Failure, head: Head | None, body: bytes) -> None:
        """Keep a failure."""
        self.said.append(("failed", failure.encode()))


class Streams:
    """Streams as bytes."""

    name = "streams"

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._pool = Pool(Tier(name="t", address="127.0.0.1:1"), Loop().real)

    def make(self, dice: Random) -> bytes:
        """Return a stream, spoiled."""
        end = dice.choice((b"\n", b"\n", b"\r\n", b"\r"))
        lines = [_event(dice).replace(b"\n", end) for _ in range(dice.randrange(1, 6))]
        if dice.random() < 0.8:
            lines.append((b"data: [DONE]\n\n").replace(b"\n", end))
        return spoil(b"".join(lines), dice, WORDS)

    def check(self, data: bytes, dice: Random) -> None:
        """Split it and read it, whole and cut."""
        pieces = cuts(data, dice) if data else []
        whole, cut = _split([data]), _split(pieces)
        demand(whole == cut, f"cut differently, other events: {whole} and {cut}")
        demand(data.startswith(b"".join(whole)), "the bytes of events are not the stream's")
        expected = _data_of(data)
        found = [payload for one in whole if (payload := sse.payload(one))]
        demand(found == expected[: len(found)], f"data {found}, by the standard {expected}")
        demand(len(expected) - len(found) <= 1, f"events were lost: {found}, by the standard {expected}")
        said = self._read([data])
        demand(said == self._read(pieces), f"cut differently, read differently: {said} and {self._read(pieces)}")
        self._judge(said, expected)

    def _read(self, pieces: list[bytes]) -> Said:
        listener = Listener()
        reading = Reading(listener, Book(), self._pool, [], stream=True)
        reading.upstream_head(_HEAD)
        for piece in pieces:
            reading.upstream_data(piece)
        reading.upstream_end()
        return listener.said

    def _judge(self, said: Said, expected: list[bytes]) -> None:
        ends = [kind for kind, _ in said if kind in ("done", "failed", "whole")]
        demand(ends == [said[-1][0]], f"not just one end, in the end: {said}")
        demand(ends != ["whole"], "a stream was taken for a whole reply")
        if ends == ["done"]:
            demand(sse.DONE in expected, "a stream without [DONE] was called whole")
            demand(
                any(kind == "event" and sse.payload(data) for kind, data in said),
                "a stream of nothing was called whole",
            )
        self.seen[ends[0]] += 1


def _split(pieces: list[bytes]) -> list[bytes]:
    splitter, found = sse.Splitter(), list[bytes]()
    for piece in pieces:
        found += splitter.feed(piece)
    last = splitter.last()
    return [*found, last] if last else found


def _data_of(stream: bytes) -> list[bytes]:
    """Return the data of each event by the standard's own steps, and what a last event without its blank line has."""
    found, lines = list[bytes](), list[bytes]()
    for line in [*stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), b""]:
        if not line:
            if said := b"\n".join(lines):
                found.append(said)
            lines = []
        elif line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
    return found


def _event(dice: Random) -> bytes:
    kind = dice.random()
    if kind < 0.1:
        return b": comment\n\n"
    if kind < 0.15:
        return b"event: x\nid: 7\ndata: {\ndata: }\n\n"
    text = dice.choice(("hi", "", "Grüße 你好 😀", "data: x\n\n", "[DONE]", "\\", '"error"'))
    chunk: dict[str, object] = {"choices": [{"index": 0, "delta": {"content": text}}]}
    if kind > 0.85:
        chunk["usage"] = {"prompt_tokens": dice.randrange(9), "completion_tokens": None}
    return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=kind < 0.5).encode()
