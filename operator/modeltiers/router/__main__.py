"""Runs the router: `python -m modeltiers.router --table FILE`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from modeltiers.router.admin import Admin
from modeltiers.router.keys import KeyRing
from modeltiers.router.router import Router
from modeltiers.router.server import Bounds, Server
from modeltiers.router.tables import Tables


def say(event: str, **facts: Any) -> None:
    """Write one line of the log: facts from configuration and counts, never anything of a request."""
    sys.stdout.write(msgspec.json.encode({"event": event, **facts}).decode() + "\n")
    sys.stdout.flush()


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m modeltiers.router", description="Routes requests to model tiers.")
    parser.add_argument("--table", type=Path, required=True, help="a table file, or a folder of them")
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 8080), help="HOST:PORT for clients")
    parser.add_argument("--admin", type=address, default=("127.0.0.1", 8081), help="HOST:PORT for probes and metrics")
    parser.add_argument("--keys", type=Path, help="a file with the hashes of API keys")
    parser.add_argument("--drain-seconds", type=float, default=30.0, help="how long a drain waits (%(default)s)")
    parser.add_argument(
        "--settle-seconds", type=float, default=2.0, help="how long a drain still serves who did not hear (%(default)s)"
    )
    parser.add_argument("--resolve-seconds", type=float, default=5.0, help="between two name look-ups (%(default)s)")
    for field in msgspec.structs.fields(Bounds):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=field.type, default=field.default, help="what one client may take (%(default)s)")
    return parser.parse_args(given)


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


async def serve(options: argparse.Namespace) -> int:
    """Serve until told to end; returns the exit code."""
    loop = asyncio.get_running_loop()
    tables, keys = Tables(options.table), KeyRing(options.keys)
    router = Router(tables, keys, loop, options.resolve_seconds)
    router.reload()
    for name, error in tables.errors.items():
        say("table_refused", table=name, error=error)
    bounds = Bounds(**{field: getattr(options, field) for field in Bounds.__struct_fields__})
    serving = Server(bounds, router.handle, loop)
    admin = Admin(router, serving, options.drain_seconds, options.settle_seconds)
    managing = Server(Bounds(), admin.handle, loop)
    ends = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ends.set)
    front = await loop.create_server(serving.protocol, *options.listen, backlog=1024)
    back = await loop.create_server(managing.protocol, *options.admin)
    sockets = [[*one.sockets[0].getsockname()[:2]] for one in (front, back)]
    say("listening", serving=sockets[0], admin=sockets[1], tables=sorted(tables.loaded))

    def sweep(now: float) -> None:
        serving.sweep(now)
        managing.sweep(now)

    clock = loop.create_task(router.run(sweep))
    done, _ = await asyncio.wait([clock, loop.create_task(ends.wait())], return_when=asyncio.FIRST_COMPLETED)
    if clock in done:
        clock.result()  # it never ends by itself: this raises
    left = await admin.drain(0.0 if router.refusing else options.drain_seconds)
    for exchange in list(router.exchanges):
        exchange.expire()
    await asyncio.sleep(0.05)  # the last words go out
    clock.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await clock
    front.close()
    back.close()
    say("ended", cut=left)
    return 0


def main() -> int:
    """Run the program."""
    return uvloop.run(serve(arguments()))


if __name__ == "__main__":
    sys.exit(main())
