"""`modeltiers why [KIND/NAME]`: the first cause in the first line, the next command in the second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from modeltiers.cli import gather, show
from modeltiers.cli.kubectl import Kubectl, reaching
from modeltiers.cli.objects import Named, ObjectName
from modeltiers.domain.why.explain import explain, findings, near
from modeltiers.domain.why.findings import Finding, headline, lines, plain
from modeltiers.domain.why.snapshot import JOB, OURS, POLICY, SHORT, TIER, Snapshot

_HELP = """Say why something does not serve, and what to run next.

The first line names the first cause, the second the next command; then comes the way from the object to the cause.
Without KIND/NAME it is the worst thing in the namespace, and a line for everything else that is wrong.

It looks at conditions, Deployments, Jobs, pods, claims, events and nodes with your own rights, and says what you may
not read. Secrets are never read.

\b
Examples:
  kubectl modeltiers why
  kubectl modeltiers why rp/support -n shop
  kubectl modeltiers why mt/large -o json
"""


@click.command(help=_HELP)
@click.argument("what", type=ObjectName(TIER, POLICY, JOB), required=False)
@show.output("text", "json", "yaml")
@reaching
def why(what: Named | None, output: str, **where: str) -> None:
    """Explain."""
    kubectl = Kubectl(**where)
    snapshot = gather.everything(kubectl)
    if what and snapshot.get(what.kind, what.name) is None:
        raise click.ClickException(nobody(snapshot, what))
    found = [one for one in [explain(snapshot, what.kind, what.name)] if one] if what else findings(snapshot)
    found = [replace(one, next=kubectl.like(one.next)) for one in found]
    if output == "text":
        _tell(snapshot, what, found)
        return
    said = {"namespace": snapshot.namespace, "findings": [as_data(one) for one in found]}
    show.data({**said, "unseen": dict(snapshot.unseen)}, output)


def as_data(finding: Finding) -> dict[str, Any]:
    """A finding for machines."""
    about = finding.about
    return {
        "kind": about.kind,
        "name": about.name,
        "level": finding.level.name.capitalize(),
        "reason": finding.reason,
        "cause": finding.says,
        "next": finding.next,
        "remedy": finding.remedy,
        "way": [{"kind": link.kind, "name": link.name, "says": link.says} for link in finding.links],
        "notes": list(finding.notes),
    }


def _tell(snapshot: Snapshot, what: Named | None, found: list[Finding]) -> None:
    if not found:
        show.line(_all_well(snapshot, what), fg="green")
    for number, line in enumerate(lines(found[0], snapshot.namespace) if found else ()):
        show.line(line, **({"bold": True} if number < 2 else {}))
    rest = found[1:]
    if rest:
        show.line(f"\nalso, in namespace {snapshot.namespace}:")
        for one in rest:
            show.line(f"  {headline(one)}")
    for line in _unseen(snapshot):
        click.echo(line, err=True)


def _all_well(snapshot: Snapshot, what: Named | None) -> str:
    if what:
        return f"{what.kind} {snapshot.namespace}/{what.name}: nothing is wrong"
    count = {kind: len(snapshot.all(kind)) for kind in OURS}
    if not any(count.values()):
        return f"namespace {snapshot.namespace} has no ModelTier, RoutingPolicy or DistillJob: try -n, or status -A"
    told = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in count.items() if number)
    return f"namespace {snapshot.namespace}: nothing is wrong ({told})"


def nobody(snapshot: Snapshot, what: Named) -> str:
    """There is no such object, and which there are."""
    if what.kind in snapshot.unseen:
        return f"{what.kind} {what.name}: {snapshot.unseen[what.kind]}"
    said = f"there is no {what.kind} {what.name} in namespace {snapshot.namespace}"
    names = ", ".join(f"{SHORT[what.kind]}/{name}" for name in near(snapshot, what.kind, what.name))
    return f"{said}; there {'are' if ',' in names else 'is'} {names}" if names else f"{said}, and no other"


def _unseen(snapshot: Snapshot) -> Iterator[str]:
    """What was not looked at, so that a cause may hide in it."""
    for kind, reason in snapshot.unseen.items():
        yield plain(f"not looked at: {kind}: {reason.splitlines()[0] if reason else 'not known why'}")
