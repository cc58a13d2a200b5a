"""`modeltiers approve|rollback|retry|suspend|resume|report dj/NAME`: what a person says to a DistillJob, or reads.

They write what a user may write, with the user's own rights: an annotation with the artifact's digest, or spec.suspend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from modeltiers.cli.bundle import make
from modeltiers.cli.kubectl import Fault, Kubectl, NotFound, reaching
from modeltiers.cli.objects import PLURAL, Named, ObjectName
from modeltiers.domain.distill import wishes
from modeltiers.domain.distill.overview import overview, report_path
from modeltiers.domain.why.explain import meant
from modeltiers.domain.why.snapshot import JOB

_DRY = click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
_PROOF = """

    Whoever may change the DistillJob can do this, and who did is not proved: the cluster's audit log knows.
"""


def _digest(text: str) -> Callable[[Any], Any]:
    return click.option("--digest", metavar="DIGEST", help=text)


_READ = _digest("The artifact that you read the report of; refused when the job has another.")


@click.command(help=f"Let the packaged student of a DistillJob go live.{_PROOF}")
@click.argument("name", type=ObjectName(JOB))
@_READ
@_DRY
@reaching
def approve(name: Named, digest: str | None, *, dry_run: bool, **where: str) -> None:
    """Approve an artifact."""
    _do(Kubectl(**where), name, lambda job: wishes.approve(job, digest), dry_run=dry_run)


@click.command(help=f"Take the student of a DistillJob back: its tier serves the incumbent again.{_PROOF}")
@click.argument("name", type=ObjectName(JOB))
@_READ
@_DRY
@reaching
def rollback(name: Named, digest: str | None, *, dry_run: bool, **where: str) -> None:
    """Take an artifact back."""
    _do(Kubectl(**where), name, lambda job: wishes.rollback(job, digest), dry_run=dry_run)


@click.command(help="Run the stage of a DistillJob that failed once more.")
@click.argument("name", type=ObjectName(JOB))
@_digest("The digest of the stage that failed; refused when another did.")
@_DRY
@reaching
def retry(name: Named, digest: str | None, *, dry_run: bool, **where: str) -> None:
    """Try again."""
    _do(Kubectl(**where), name, lambda job: wishes.retry(job, digest), dry_run=dry_run)


@click.command(help="Stop a DistillJob after what is durable. Where Git holds its spec, set spec.suspend there.")
@click.argument("name", type=ObjectName(JOB))
@_DRY
@reaching
def suspend(name: Named, *, dry_run: bool, **where: str) -> None:
    """Stop for now."""
    _do(Kubectl(**where), name, wishes.suspend, dry_run=dry_run)


@click.command(help="Let a suspended DistillJob go on.")
@click.argument("name", type=ObjectName(JOB))
@_DRY
@reaching
def resume(name: Named, *, dry_run: bool, **where: str) -> None:
    """Go on."""
    _do(Kubectl(**where), name, wishes.resume, dry_run=dry_run)


@click.command()
@click.argument("name", type=ObjectName(JOB), required=False)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file.")
@click.option("--store", metavar="PATH", help="The store: a mounted volume, or s3://BUCKET/PREFIX.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.tar.gz",
    help="Write a support bundle of the namespace to this file, redacted; say what is in it.",
)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="With --bundle: of every namespace.")
@click.option("--engine-logs", is_flag=True, help="With --bundle: also of engines and stages. They may quote requests.")
@reaching
def report(
    name: Named | None,
    html: Path | None,
    store: str | None,
    bundle: Path | None,
    *,
    everywhere: bool,
    engine_logs: bool,
    **where: str,
) -> None:
    """Say how far a DistillJob is, what it found, and what to do next; or write a support bundle.

    With --html and --store it also fetches the report that the gate or the package left in the store.

    The bundle has resources, children, events, findings, logs of operator and routers, states of routers and versions.
    Secrets are not read; values of environment variables, data of ConfigMaps, texts for models and keys are redacted.
    """
    if (html is None) != (store is None):
        raise click.UsageError("--html FILE and --store PATH go together: the report lies in the store")
    if bundle is not None:
        if name is not None or html is not None:
            raise click.UsageError("--bundle is about a namespace: name no DistillJob")
        made = make(Kubectl(**where), bundle, everywhere=everywhere, engines=engine_logs)
        click.echo(f"{made.index()}\nwritten to {bundle}: read it before you send it")
        return
    if name is None:
        raise click.UsageError("name a DistillJob (dj/NAME), or write a support bundle with --bundle FILE.tar.gz")
    job = _job(Kubectl(**where), name)
    if html is None or store is None:
        click.echo(overview(job))
        return
    html.write_bytes(_stored(job, store))
    click.echo(f"written to {html}")


def _do(kubectl: Kubectl, what: Named, wish: Callable[[Mapping[str, Any]], wishes.Wish], *, dry_run: bool) -> None:
    """Look, say what is about to be written, and write it."""
    job = _job(kubectl, what)
    where = f"DistillJob {job['metadata'].get('namespace', '')}/{what.name}"
    try:
        wanted = wish(job)
    except wishes.Refused as why:
        raise click.ClickException(f"{where}: {why}") from None
    written = [f"annotation {key}={value}" for key, value in wanted.annotations.items()]
    written += [f"spec.{key}={str(value).lower()}" for key, value in wanted.spec.items()]
    click.echo(f"{where}: {wanted.says}")
    click.echo(f"{'would write' if dry_run else 'writing'} {', '.join(written)}")
    if not dry_run:
        kubectl.patch(PLURAL[JOB], what.name, wanted.patch())


def _job(kubectl: Kubectl, what: Named) -> dict[str, Any]:
    """The job, or a fault with the names that were meant."""
    try:
        return kubectl.get(PLURAL[JOB], what.name)
    except NotFound as fault:
        try:
            there, _ = kubectl.lists([PLURAL[JOB]])
        except Fault:  # whoever may read one job by its name need not be allowed to list them
            raise fault from None
        close = meant(what.name, [body["metadata"]["name"] for body in there])
        named = ", ".join(f"dj/{one}" for one in close)
        raise NotFound(
            f"{fault.message}; there {'are' if len(close) > 1 else 'is'} {named}" if named else fault.message
        ) from None


def _stored(job: Mapping[str, Any], store: str) -> bytes:
    """The report as it lies in the store."""
    path = report_path(job.get("status") or {})
    if path is None:
        raise click.ClickException("there is no report yet: the gate has not decided")
    try:
        # The data programs' packages are not what every user of this command has.
        from modeltiers.distill.faults import StageFault
        from modeltiers.distill.store import open_store
    except ImportError as missing:
        raise click.ClickException(f"reading a store needs {missing.name}: install modeltiers[distill]") from None
    root = open_store(store)
    try:
        if root.has(path):
            return root.read(path)
    except StageFault as fault:
        raise click.ClickException(str(fault)) from None
    raise click.ClickException(f"{store} has no {path}: is it the store of this job?")
