"""`modeltiers logs KIND/NAME`: what engines, routers and stages say, through `kubectl logs`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

import click

from modeltiers.cli import gather, show
from modeltiers.cli.kubectl import Kubectl, reaching
from modeltiers.cli.objects import Named, ObjectName
from modeltiers.cli.why import nobody
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.why.explain import explain
from modeltiers.domain.why.findings import plain, short
from modeltiers.domain.why.snapshot import JOB, POLICY, TIER
from modeltiers.domain.why.streams import COMPONENTS, Stream, Wanted, choose

MOST: Final = 20
"""Logs read at once: each is a connection to the API server."""
_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue")
_HELP = """Read logs: of a tier its engines and routers, of a policy the routers before its entry, of a job a stage.

With more than one container each line begins with its pod and container. Where there is nothing to read, it says why.

\b
Examples:
  kubectl modeltiers logs mt/large -c engine -f
  kubectl modeltiers logs rp/support --since 10m
  kubectl modeltiers logs dj/arithmetic --stage Generate
"""


@click.command(help=_HELP)
@click.argument("what", type=ObjectName(TIER, POLICY, JOB))
@click.option("-c", "--container", type=click.Choice(COMPONENTS), help="One container alone.")
@click.option("--stage", type=click.Choice([one.value for one in Stage]), help="A stage; the present one otherwise.")
@click.option("--pod", default="", metavar="POD", help="One pod alone.")
@click.option("-f", "--follow", is_flag=True, help="Go on until it is stopped.")
@click.option("-p", "--previous", is_flag=True, help="The run before the present one.")
@click.option("--tail", type=click.IntRange(min=0), default=100, show_default=True, help="Lines of each to begin with.")
@click.option("--since", metavar="TIME", help="Newer than this: 30s, 10m, 2h.")
@reaching
def logs(what: Named, container: str | None, stage: str | None, pod: str, **options: Any) -> None:
    """Read logs."""
    kubectl = Kubectl(*(options.pop(key) for key in ("namespace", "context", "kubeconfig")))
    snapshot = gather.everything(kubectl)
    if snapshot.get(what.kind, what.name) is None:
        raise click.ClickException(nobody(snapshot, what))
    wanted = Wanted(what.kind, what.name, container or "", stage or "", pod, options["previous"])
    choice = choose(snapshot, wanted)
    for why in choice.silent:
        click.echo(plain(why), err=True)
    if not choice.streams:
        found = explain(snapshot, what.kind, what.name)
        raise click.ClickException(f"there is nothing to read{f': {short(found.says)}' if found else ''}")
    if len(choice.streams) > MOST:
        raise click.ClickException(f"these are {len(choice.streams)} logs; choose with --pod or -c: {MOST} at once")
    read(kubectl, choice.streams, _arguments(**options))


def _arguments(*, follow: bool, previous: bool, tail: int, since: str | None) -> list[str]:
    found = [f"--tail={tail}"]
    found += ["--follow"] if follow else []
    found += ["--previous"] if previous else []
    return found + ([f"--since={since}"] if since else [])


def read(kubectl: Kubectl, streams: Sequence[Stream], arguments: Sequence[str]) -> None:
    """Run a `kubectl logs` for each, and lay their lines one after the other as they come."""
    started = [
        subprocess.Popen(
            kubectl.command("logs", one.pod, f"--container={one.container}", *arguments),
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for one in streams
    ]
    lock = threading.Lock()
    readers = [
        threading.Thread(target=_copy, args=(process, _prefix(streams, number), lock), daemon=True)
        for number, process in enumerate(started)
    ]
    try:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    except KeyboardInterrupt:
        click.echo(err=True)
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
    codes = [process.wait() for process in started]
    if all(codes):
        sys.exit(1)  # kubectl has said why


def _prefix(streams: Sequence[Stream], number: int) -> str:
    if len(streams) == 1:
        return ""
    one = streams[number]
    said = f"{one.pod}/{one.container}: "
    return click.style(said, fg=_COLOURS[number % len(_COLOURS)]) if show.coloured() else said


def _copy(process: subprocess.Popen[str], prefix: str, lock: threading.Lock) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            with lock:
                try:
                    sys.stdout.write(f"{prefix}{plain(line.rstrip())}\n")
                    sys.stdout.flush()
                except BrokenPipeError:  # whoever read has seen enough
                    process.terminate()
                    return
