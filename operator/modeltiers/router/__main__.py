"""Runs the router: `python -m modeltiers.router --table FILE`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import re
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from modeltiers.domain.routing.table import External
from modeltiers.router.addresses import base_fault
from modeltiers.router.admin import Admin
from modeltiers.router.egress import Egress
from modeltiers.router.engine import Engine
from modeltiers.router.hops import HopKey
from modeltiers.router.keys import KeyRing
from modeltiers.router.limits import Gate
from modeltiers.router.logs import Log
from modeltiers.router.requests import Bounds
from modeltiers.router.router import LOGGED, Guards, Router
from modeltiers.router.server import Server
from modeltiers.router.spool import Spool
from modeltiers.router.tables import FIRST, Own, Tables
from modeltiers.router.workers import Workers

_TIER: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
LAST_WORDS: Final = 0.5
"""How long, in seconds, the end waits for who came just now, or still reads."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m modeltiers.router", description="Routes requests to model tiers.")
    parser.add_argument("--table", type=Path, required=True, help="a table file, or a folder of them")
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 8080), help="HOST:PORT for clients")
    parser.add_argument("--admin", type=address, default=("127.0.0.1", 8081), help="HOST:PORT for probes and metrics")
    behind = parser.add_mutually_exclusive_group()
    behind.add_argument(
        "--local", type=local, metavar="TIER=HOST:PORT", help="the tier whose engine is beside this router"
    )
    behind.add_argument(
        "--external", type=external, metavar="TIER=URL", help="the tier that is an API, which this router calls"
    )
    parser.add_argument("--external-key", type=absolute, help="a file with the key of that API")
    parser.add_argument("--external-model", help="the name that API has for the tier's model, looked for in its list")
    parser.add_argument("--external-private", action="store_true", help="that API may have a private address")
    parser.add_argument("--revision", default=FIRST, help="which revision of that tier it is (%(default)s)")
    parser.add_argument("--keys", type=Path, help="a file with the hashes of API keys")
    parser.add_argument("--hop-key", type=Path, help="a file with the key of forwarded requests")
    parser.add_argument("--spool", type=Path, help="a folder for decision records; none are kept without it")
    parser.add_argument("--spool-bytes", type=int, default=64 * 2**20, help="what all records may take (%(default)s)")
    parser.add_argument("--log-requests", choices=LOGGED, default="failed", help="which get a line (%(default)s)")
    parser.add_argument("--workers", type=positive, default=1, help="processes for dear checks (%(default)s)")
    parser.add_argument("--processes", type=positive, default=1, help="how many share the port (%(default)s)")
    parser.add_argument("--part", type=part, default=(0, 1), help=argparse.SUPPRESS)
    parser.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)
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


def local(text: str) -> tuple[str, str]:
    """Read TIER=HOST:PORT."""
    name, _, where = text.partition("=")
    address(where)
    if not _TIER.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{text!r} is not TIER=HOST:PORT")
    return name, where


def external(text: str) -> tuple[str, str]:
    """Read TIER=URL."""
    name, _, url = text.partition("=")
    if not _TIER.fullmatch(name) or len(url) > 500:
        raise argparse.ArgumentTypeError(f"{text!r} is not TIER=URL")
    return name, url


def absolute(text: str) -> str:
    """Read the path of a file, from the root on."""
    if not text.startswith("/") or len(text) > 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path that begins with /")
    return text


def called(options: argparse.Namespace) -> tuple[str, External]:
    """Return the tier that is an API, and how it is called; ends the program where its URL is none."""
    name, url = options.external
    found = External(base_url=url, api_key_file=options.external_key, private=options.external_private)
    if (fault := base_fault(found)) is not None:
        raise SystemExit(f"--external: {fault}")
    return name, found


def behind_it(behind: Own | None, model: str | None, loop: asyncio.AbstractEventLoop) -> Engine | Egress | None:
    """Return who watches what this router stands before, if anything."""
    if behind is None:
        return None
    name, what = behind
    return Egress(name, what, model, loop) if isinstance(what, External) else Engine(name, what, loop)


def positive(text: str) -> int:
    """Read a number of at least one."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least one")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """Read which of how many processes this is."""
    number, _, count = text.partition("/")
    return int(number), int(count)


async def serve(options: argparse.Namespace) -> int:
    """Serve until told to end; returns the exit code."""
    loop = asyncio.get_running_loop()
    log = Log()
    _, count = options.part
    guards = Guards(
        keys=KeyRing(options.keys),
        hop_key=HopKey(options.hop_key),
        gate=Gate(1 / count),
        workers=Workers(options.workers),
        log=log,
        logged=options.log_requests,
        spool=Spool(options.spool, options.spool_bytes // count) if options.spool is not None else None,
    )
    behind: Own | None = options.local if options.external is None else called(options)
    router = Router(Tables(options.table, behind, options.revision), guards, loop, options.resolve_seconds)
    router.engine = behind_it(behind, options.external_model, loop)
    router.reload()
    bounds = Bounds(**{field: getattr(options, field) for field in Bounds.__struct_fields__})
    serving = Server(bounds, router.handle, loop)
    router.metrics.clients = serving.refused
    admin = Admin(router, serving, options.drain_seconds, options.settle_seconds)
    managing = Server(Bounds(), admin.handle, loop)
    ends = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ends.set)
    front = await loop.create_server(serving.protocol, *options.listen, backlog=1024, reuse_port=count > 1)
    back = await loop.create_server(managing.protocol, *options.admin)
    sockets = [[*one.sockets[0].getsockname()[:2]] for one in (front, back)]
    gc.collect()
    gc.freeze()  # what is there now stays: no collection walks over it again
    gc.set_threshold(10_000, 20, 50)
    if options.report_fd is not None:
        with os.fdopen(options.report_fd, "wb") as pipe:
            pipe.write(msgspec.json.encode(sockets[1]) + b"\n")
    else:
        log.say("listening", serving=sockets[0], admin=sockets[1], tables=sorted(router.tables.loaded))

    def sweep(now: float) -> None:
        serving.sweep(now)
        managing.sweep(now)

    clock = loop.create_task(router.run(sweep))
    watch = loop.create_task(router.engine.run()) if router.engine is not None else None
    done, _ = await asyncio.wait([clock, loop.create_task(ends.wait())], return_when=asyncio.FIRST_COMPLETED)
    if clock in done:
        clock.result()  # it never ends by itself: this raises
    left = await admin.drain(0.0 if router.refusing else options.drain_seconds)
    for exchange in list(router.exchanges):
        exchange.expire()
    front.close()
    until = loop.time() + LAST_WORDS
    while serving.clients and loop.time() < until:  # noqa: ASYNC110  polled for a moment only
        await asyncio.sleep(0.02)
    for task in (clock, watch):
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    back.close()
    log.say("ended", cut=left)
    await router.close()
    return 0


def main() -> int:
    """Run the program."""
    given = sys.argv[1:]
    options = arguments(given)
    if options.processes == 1:
        return uvloop.run(serve(options))
    return uvloop.run(supervise(options, given))


async def supervise(options: argparse.Namespace, given: list[str]) -> int:
    """Run several processes until told to end; returns the exit code."""
    from modeltiers.router.processes import Supervisor  # one process alone needs none of it

    supervisor = Supervisor(options.processes, [*given, "--processes", "1"], options.listen, options.drain_seconds)
    return await supervisor.run(options.admin)


if __name__ == "__main__":
    sys.exit(main())
