"""What the ledger costs: Generate against a bare httpx loop that asks the same server the same requests.

    python -m e2e.bench.generate

The server answers at once, with a fixed reply, from a process of its own: any real teacher is slower, and hides what
stands here. Both sides take turns, so that a machine that is busy with something else slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from modeltiers.distill.asking import Asking
from modeltiers.distill.client import Asked, Client
from modeltiers.distill.ledger import Ledger
from modeltiers.distill.store import open_store
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.plan import Target
from modeltiers.domain.distill.requests import Request, Sampling, requests_of
from modeltiers.domain.distill.spend import Cap, Purse

MODEL = "fast"
ANSWER = "word " * 60
AIM = 0.7
"""Share of the bare loop's throughput."""


def rows(count: int) -> Iterator[dict[str, object]]:
    """Prompts of a few hundred bytes."""
    for number in range(count):
        text = f"Question {number}: " + "what is to be said about this? " * 10
        yield {"id": str(number), "messages": [{"role": "user", "content": text}]}


async def serve() -> None:
    """A server that is as fast as Python is: it reads a request's length and says the same to everybody."""
    choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 80, "completion_tokens": 60, "total_tokens": 140}
    body = json.dumps({"id": "1", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage})
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    reply = (head + body).encode()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(asked.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def bare(base_url: str, requests: Sequence[Request], concurrency: int) -> None:
    """The least that a client can do: send, read, parse."""
    waiting = iter(requests)
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=base_url, limits=limits, trust_env=False) as client:

        async def work() -> None:
            for request in waiting:
                reply = await client.post(
                    "/chat/completions", content=request.body, headers={"Content-Type": "application/json"}
                )
                reply.raise_for_status()
                assert json.loads(reply.content)["choices"]

        await asyncio.gather(*(work() for _ in range(concurrency)))


async def ours(base_url: str, requests: Sequence[Request], concurrency: int, store: Path) -> None:
    """As Generate asks, with everything durable."""
    ledger = Ledger.read(open_store(str(store)), "bench", "Generate")
    asked = Asked(
        Target(base_url=base_url, model=MODEL), "the teacher", "spec.teacher", "spec.teacher.keyRef", "spec.generation"
    )
    purse = Purse(Cap(tokens=10**9), 512)
    asking = Asking(Client(asked, 60.0, concurrency), ledger, purse, Patience(), threading.Event().is_set)
    await asking.all(requests)
    assert len(ledger.replies) == len(requests)


def measure(port: int, count: int, concurrency: int, rounds: int) -> float:
    """Print both sides; returns the ratio of their medians."""
    base_url = f"http://127.0.0.1:{port}/v1"
    requests = [request for row in rows(count) for request in requests_of(MODEL, row, Sampling(0, 512), 1)]
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name, rate in rates.items():
                began = time.monotonic()
                if name == "bare":
                    asyncio.run(bare(base_url, requests, concurrency))
                else:
                    asyncio.run(ours(base_url, requests, concurrency, Path(folder) / str(turn)))
                rate.append(count / (time.monotonic() - began))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratio = medians["ours"] / medians["bare"]
    figures = f"{medians['ours']:6.0f}/s, bare httpx {medians['bare']:6.0f}/s"
    print(f"  concurrency {concurrency:3}: Generate {figures}: {ratio:.2f} of it (aim {AIM})")
    return ratio


def main(argv: Sequence[str] | None = None) -> int:
    """Measure at a few concurrencies; returns 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="be the server")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32])
    args = parser.parse_args(argv)
    if args.serve:
        asyncio.run(serve())
        return 0
    print(
        f"generate: {args.requests} requests, {args.rounds} rounds, a reply of {len(ANSWER)} characters, fsynced ledger"
    )
    command = [sys.executable, "-m", "e2e.bench.generate", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            ratios = [measure(port, args.requests, concurrency, args.rounds) for concurrency in args.concurrency]
        finally:
            server.kill()
    return int(min(ratios) < AIM)


if __name__ == "__main__":
    sys.exit(main())
