"""`modeltiers status`: the ladder of a namespace, or of all, at a glance; what is wrong comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from modeltiers.cli import gather, show
from modeltiers.cli.kubectl import Kubectl, reaching
from modeltiers.cli.why import as_data
from modeltiers.domain.why import ladder
from modeltiers.domain.why.explain import findings
from modeltiers.domain.why.findings import Finding, Level, headline, plain
from modeltiers.domain.why.snapshot import OURS, Snapshot

_MARKS: Mapping[Level, tuple[str, str]] = {
    Level.BROKEN: ("broken", "red"),
    Level.WAITING: ("on the way", "yellow"),
    Level.ASKED: ("waits for you", "cyan"),
    Level.DOUBTFUL: ("look at it", "yellow"),
}
_MOST = 20
"""Findings that fit before the tables."""

_HELP = """Show tiers, policies and distillations, and what is wrong with them first.

Everything comes from status and conditions; `-` is what is not known. `why` looks deeper, at pods, events and nodes.

\b
Examples:
  kubectl modeltiers status
  kubectl modeltiers status -A -o wide
  kubectl modeltiers status -n shop -o json
"""


@click.command(help=_HELP)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Every namespace.")
@show.output("table", "wide", "json", "yaml")
@reaching
def status(everywhere: bool, output: str, **where: str) -> None:
    """Show the ladder."""
    kubectl = Kubectl(**where)
    snapshots = gather.ladders(kubectl, everywhere=everywhere)
    if output in ("json", "yaml"):
        show.data({"namespaces": [_data(one) for one in snapshots.values()]}, output)
        return
    if not snapshots:
        named = "any namespace" if everywhere else f"namespace {kubectl.where()}"
        click.echo(f"no ModelTier, RoutingPolicy or DistillJob in {named}", err=True)
    for number, snapshot in enumerate(snapshots.values()):
        if number:
            click.echo()
        _show(snapshot, wide=output == "wide", titled=everywhere)


def _show(snapshot: Snapshot, *, wide: bool, titled: bool) -> None:
    if titled:
        show.line(f"namespace {snapshot.namespace}", bold=True)
    wrong = findings(snapshot)
    _wrong(wrong, snapshot.namespace)
    for number, kind in enumerate(kind for kind in OURS if snapshot.all(kind)):
        if number or wrong:
            click.echo()
        _table(snapshot, kind, wide=wide)
    for kind, why in snapshot.unseen.items():
        click.echo(plain(f"not shown: {kind}: {why}"), err=True)


def _wrong(wrong: Sequence[Finding], namespace: str) -> None:
    width = max((len(mark) for mark, _ in _MARKS.values()), default=0)
    for one in wrong[:_MOST]:
        mark, colour = _MARKS[one.level]
        show.line(f"{mark:<{width}}  {headline(one)}", fg=colour)
    if len(wrong) > _MOST:
        click.echo(f"and {len(wrong) - _MOST} more")
    if wrong:
        click.echo(f"next: kubectl modeltiers why -n {namespace}")


def _table(snapshot: Snapshot, kind: str, *, wide: bool) -> None:
    columns = ladder.COLUMNS[kind]
    shown = [number for number, column in enumerate(columns) if wide or not column.wide]
    found = [[column.title for column in columns], *ladder.rows(snapshot, kind)]
    right = [place for place, number in enumerate(shown) if columns[number].right]
    for row in show.columns([[row[number] for number in shown] for row in found], right=right):
        click.echo(plain(row))


def _data(snapshot: Snapshot) -> dict[str, object]:
    return {
        "namespace": snapshot.namespace,
        "wrong": [as_data(one) for one in findings(snapshot)],
        "tiers": ladder.as_data(snapshot, "ModelTier"),
        "policies": ladder.as_data(snapshot, "RoutingPolicy"),
        "distillJobs": ladder.as_data(snapshot, "DistillJob"),
        "unseen": dict(snapshot.unseen),
    }
