"""`python -m e2e.engine`: real tiers for a person at a terminal. Reads arguments and says what happened."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.report import HarnessError, say
from e2e.engine import environment, ladder, record
from e2e.engine.server import Engine, started

HELP = """
The router, in another terminal:
  python -m modeltiers.router --table {table}
A question the small tier is sure of, one it is not ("hard", "fade"), and a tier alone:
  curl -N http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "support", "messages": [{{"role": "user", "content": "six times seven?"}}]}}'
  curl -N http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "support", "stream": true, "messages": [{{"role": "user", "content": "a hard one"}}]}}'
  curl {small}/v1/models
Logs: {logs}. Ctrl-C ends both."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m e2e.engine", description=sys.modules[__name__].__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start two tiers, small and large, until Ctrl-C")
    up.add_argument("--dir", type=Path, help="where models, logs and the table go, and stay (default: a temporary one)")
    up.add_argument("--nonsense", action="store_true", help="random models, unsure and sure, instead of scripted ones")
    up.add_argument("--ports", type=int, nargs=2, default=(0, 0), metavar=("SMALL", "LARGE"), help="default: free ones")
    commands.add_parser("install", help="install vLLM for the CPU into the cache, if it is not there")
    clean = commands.add_parser("clean", help="delete environments that other pins made")
    clean.add_argument("--all", action="store_true", help="the one in use too")
    take = commands.add_parser("record", help="record what the engine sends, for the router's tests")
    take.add_argument("names", nargs="*", metavar="NAME", help="these captures only (default: all)")
    return top


def up(arguments: argparse.Namespace) -> None:
    """Start both tiers and wait for Ctrl-C."""
    folder: Path = (arguments.dir or Path(tempfile.mkdtemp(prefix="modeltiers-engines-"))).absolute()
    try:
        began = time.monotonic()
        pair = ladder.tiers(folder, nonsense=arguments.nonsense, ports=tuple(arguments.ports))
        with contextlib.ExitStack() as stack:
            for engine in started(pair):
                stack.callback(engine.stop)
            text, path = ladder.table(*pair), folder / "table.yaml"
            path.write_text(text)
            say(f"both tiers answer after {time.monotonic() - began:.0f} s; the table {path}:\n")
            print(text, flush=True)
            logs = ", ".join(str(engine.log) for engine in pair)
            say(HELP.format(table=path, small=pair[0].url, logs=logs))
            _hold(pair)
    finally:
        if not arguments.dir:
            shutil.rmtree(folder, ignore_errors=True)


def _hold(engines: Sequence[Engine]) -> None:
    """Wait for Ctrl-C; an engine that ends by itself is an error."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            for engine in engines:
                if not engine.running():
                    raise HarnessError(f"engine {engine.name} ended by itself; its log ends:\n{engine.tail()}")
    say("ending both")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started ends
    try:
        if arguments.command == "up":
            up(arguments)
        elif arguments.command == "install":
            print(environment.install())
        elif arguments.command == "clean":
            gone = environment.clean(everything=arguments.all)
            say("\n".join(f"deleted {path}" for path in gone) or "nothing to delete")
        else:
            record.main(arguments.names)
    except HarnessError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
