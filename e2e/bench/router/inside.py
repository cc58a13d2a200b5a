"""`python -m e2e.bench.router.inside`: what the router itself does for a request, in this process, without sockets.

Both sides are the router's own protocol classes on stand-ins for transports. On a machine that does other things too,
processor time is no measure: the least of many short batches comes near it, and the number of bytecodes is the same
each time. `valgrind --tool=callgrind` over `--requests` counts what C does as well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, cast

import uvloop

from e2e.bench.router import bodies, configs
from modeltiers.router.connection import Connection
from modeltiers.router.hops import HopKey
from modeltiers.router.keys import KeyRing
from modeltiers.router.limits import Gate
from modeltiers.router.logs import Log
from modeltiers.router.requests import Bounds
from modeltiers.router.router import Guards, Router
from modeltiers.router.server import Server
from modeltiers.router.spool import Spool
from modeltiers.router.tables import Tables
from modeltiers.router.workers import Workers

KINDS: Final = ("full", "plain")
"""full: all that the bench switches on. plain: one tier, no rules, keys, limits or records: passed through."""
BATCH: Final = 10
"""Requests of a batch: so few that some batches meet nothing else that the machine does."""


class Transport:
    """Takes what is written and keeps the last of it."""

    def __init__(self) -> None:
        self.last = b""

    def get_extra_info(self, _: str) -> tuple[str, int]:
        """Return the same peer each time."""
        return "127.0.0.1", 1

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.last = data

    def writelines(self, parts: list[bytes]) -> None:
        """Keep them."""
        self.last = b"".join(parts)

    def is_closing(self) -> bool:
        """Stay open."""
        return False


def router(kind: str, folder: Path, loop: asyncio.AbstractEventLoop) -> Router:
    """Return a router whose tiers are at an address that nobody asks."""
    table = configs.table(9, configs.OPTIONAL)
    if kind == "plain":
        table["tiers"] = [{"name": "small", "address": "127.0.0.1:9", "concurrency": 50_000}]
        table["policies"] = [{"name": "support", "model": "support", "tiers": ["small"], "mode": "Upfront"}]
    (folder / "table.json").write_text(json.dumps(table))
    (folder / "keys.json").write_text(json.dumps(configs.keys()))
    guards = Guards(
        keys=KeyRing(folder / "keys.json"),
        hop_key=HopKey(None),
        gate=Gate(),
        workers=Workers(1),
        log=Log(sys.stderr.fileno()),
        spool=Spool(folder / "spool", 64 * 2**20) if kind == "full" else None,
    )
    made = Router(Tables(folder / "table.json"), guards, loop, 5.0)
    made.reload()
    return made


class Inside:
    """One connection of a client and one to a tier, with nothing but the router between them."""

    def __init__(self, kind: str, size: int, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        made = router(kind, folder, loop)
        self._client, self._front = Server(Bounds(), made.handle, loop).protocol(), Transport()
        self._client.connection_made(cast(Any, self._front))
        tier = next(tier for tier in made.pools() if tier.name == "small")
        address = made.pool(tier).addresses[0]
        self._connection = Connection(address)
        self._connection.connection_made(cast(Any, Transport()))
        address.in_flight += 1
        address.release(self._connection, keep=True)
        body, self._answer = bodies.request(size), bodies.answer()
        self._request = bodies.head(len(body), "127.0.0.1:9") + body
        self._reply = (
            b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\n"
            b"content-type: application/json\r\n\r\n%b" % (len(self._answer), self._answer)
        )

    def ask(self, times: int) -> None:
        """Send so many requests and their replies through."""
        for _ in range(times):
            self._client.data_received(self._request)
            self._connection.data_received(self._reply)

    def check(self) -> None:
        """Raise where the last reply was not the tier's."""
        if not (self._front.last.startswith(b"HTTP/1.1 200 ") and self._front.last.endswith(self._answer)):
            raise SystemExit(f"no answer: {self._front.last[:500]!r}")


def microseconds(inside: Inside, batches: int) -> list[float]:
    """Return what a request took of this thread, in each batch."""
    found = []
    for _ in range(batches):
        began = time.thread_time_ns()
        inside.ask(BATCH)
        found.append((time.thread_time_ns() - began) / BATCH / 1000)
    return found


def bytecodes(inside: Inside, times: int = 100) -> Counter[CodeType]:
    """Return how many bytecodes so many requests take, by function."""
    found: Counter[CodeType] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            found[frame.f_code] += 1
        return count

    sys.settrace(count)
    inside.ask(times)
    sys.settrace(None)
    return Counter({code: round(number / times) for code, number in found.items()})


async def measure(options: argparse.Namespace) -> None:
    """Print what was asked for."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Inside(options.kind, options.size, Path(folder), asyncio.get_running_loop())
        inside.ask(300)
        inside.check()
        gc.collect()
        gc.freeze()
        if options.requests:
            inside.ask(options.requests)
            return
        took = microseconds(inside, options.batches)
        found = bytecodes(inside)
        print(f"{options.kind}, {options.size} B: least {min(took):.1f} us, median {statistics.median(took):.1f} us")
        print(f"{found.total()} bytecodes a request")
        for code, number in found.most_common(options.top):
            print(f"{number:6} {code.co_qualname} {Path(code.co_filename).name}:{code.co_firstlineno}")


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.router.inside", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="full", help="what is switched on (%(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="bytes of the body (%(default)s)")
    parser.add_argument("--batches", type=int, default=1_000, help="of 10 requests (%(default)s)")
    parser.add_argument("--top", type=int, default=0, help="functions to list by their bytecodes (%(default)s)")
    parser.add_argument("--requests", type=int, help="only send so many, for a profiler")
    options = parser.parse_args()
    uvloop.run(measure(options))


if __name__ == "__main__":
    main()
