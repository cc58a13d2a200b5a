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
  kubectl modeltiers why -A
  kubectl modeltiers why mt/large -o json
"""


@click.command(help=_HELP)
@click.argument("what", type=ObjectName(TIER, POLICY, JOB), required=False)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="The worst of every namespace where one is.")
@show.output("text", "json", "yaml")
@reaching
def why(what: Named | None, output: str, *, everywhere: bool, **where: str) -> None:
    """Explain."""
    kubectl = Kubectl(**where)
    if what and everywhere:
        raise click.UsageError("an object is of one namespace: name it with -n, or leave -A out")
    looked = [_look(kubectl, what)] if not everywhere else list(_everywhere(kubectl))
    if output != "text":
        said = [_said(snapshot, found) for snapshot, found in looked]
        show.data({"namespaces": said} if everywhere else said[0], output)
        return
    if not looked:
        show.line("nothing is wrong in any namespace", fg="green")
    for number, (snapshot, found) in enumerate(looked):
        if number:
            click.echo()
        _tell(snapshot, what, found)


def _look(kubectl: Kubectl, what: Named | None) -> tuple[Snapshot, list[Finding]]:
    """What is wrong with an object, or with everything in the namespace."""
    snapshot = gather.everything(kubectl)
    if what and snapshot.get(what.kind, what.name) is None:
        raise click.ClickException(nobody(snapshot, what))
    found = [one for one in [explain(snapshot, what.kind, what.name)] if one] if what else findings(snapshot)
    return snapshot, [replace(one, next=kubectl.like(one.next)) for one in found]


def _everywhere(kubectl: Kubectl) -> Iterator[tuple[Snapshot, list[Finding]]]:
    """Those namespaces alone are looked at closely whose own conditions say that something is wrong."""
    for space, glance in gather.ladders(kubectl, everywhere=True).items():
        if findings(glance):
            yield _look(replace(kubectl, namespace=space), None)


def _said(snapshot: Snapshot, found: list[Finding]) -> dict[str, Any]:
    told = [as_data(one) for one in found]
    return {"namespace": snapshot.namespace, "findings": told, "unseen": dict(snapshot.unseen)}


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
