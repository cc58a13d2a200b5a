"""`python -m e2e.train`: the trainer's environment for a person at a terminal."""

from __future__ import annotations

import argparse
import subprocess
import sys

from e2e.cluster.report import HarnessError, say
from e2e.train import environment


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m e2e.train", description=sys.modules[__name__].__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install torch, transformers, TRL and PEFT into the cache, if not there")
    clean = commands.add_parser("clean", help="delete environments that other pins made")
    clean.add_argument("--all", action="store_true", help="the one in use too")
    commands.add_parser("test", help="run the trainer's tests in its environment; what follows is for pytest")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments, rest = parser().parse_known_args(argv)
    if rest and arguments.command != "test":
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if arguments.command == "install":
            print(environment.pinned().install())
        elif arguments.command == "clean":
            gone = environment.pinned().clean(everything=arguments.all)
            say("\n".join(f"deleted {path}" for path in gone) or "nothing to delete")
        else:
            command = [str(environment.python()), "-m", "pytest", *(rest or ["tests/train"])]
            return subprocess.run(command, env=environment.variables(), check=False).returncode
    except HarnessError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
