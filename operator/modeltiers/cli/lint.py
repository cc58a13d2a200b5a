"""`modeltiers lint`: what in a table or a DistillJob is allowed and hardly meant, each with its path and a way out."""

from __future__ import annotations

import json

import click
import yaml

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.parse import Fault, parse, parse_distill
from modeltiers.cli import documents, tables
from modeltiers.domain.distill.kinship import doubts
from modeltiers.domain.routing.lint import lint as find

_HELP = """Say what in routing tables does nothing, never happens, or contradicts itself, and what in a DistillJob is
hardly meant: a judge that is the teacher, or of its family.

Each FILE is a table, YAML or JSON, or a folder of tables; - is standard input. DistillJobs are named with -f, and so
are the ModelTiers beside them, which say what model a tier serves.

\b
Exit codes, for CI:
  0  nothing is doubtful
  1  something is
  2  a table or a resource is invalid or unreadable

\b
Examples:
  modeltiers lint --table table.yaml
  modeltiers lint --table tables/ -o json
  modeltiers lint -f job.yaml -f tiers.yaml
"""


@click.command(help=_HELP)
@click.option("-t", "--table", "first", multiple=True, metavar="FILE", help="A table, or a folder of them.")
@click.option("-f", "--filename", "resources", multiple=True, metavar="FILE", help="DistillJobs and ModelTiers.")
@click.argument("files", nargs=-1)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def lint(
    ctx: click.Context, first: tuple[str, ...], resources: tuple[str, ...], files: tuple[str, ...], output: str
) -> None:
    """Say what is doubtful about tables and jobs."""
    if not first and not files and not resources:
        raise click.UsageError("name a table: modeltiers lint --table FILE; or a DistillJob: -f FILE")
    faults: list[str] = []
    found = _of_resources(resources, faults)
    for one in tables.read(first + files, faults):
        found += [{"file": one.path, "path": each.path, "problem": each.problem} for each in find(one.table)]
    if output == "json":
        click.echo(json.dumps({"findings": found}, indent=2))
    elif output == "yaml":
        click.echo(yaml.safe_dump({"findings": found}, sort_keys=False, width=120, allow_unicode=True), nl=False)
    else:
        for each in found:
            click.echo(f"{each['file']}: {each['path']}: {each['problem']}")
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
    if faults:
        ctx.exit(2)
    ctx.exit(1 if found else 0)


def _of_resources(paths: tuple[str, ...], faults: list[str]) -> list[dict[str, str]]:
    """What is doubtful about the DistillJobs among resources; what cannot be read goes to `faults`."""
    read = [one for path in paths for one in documents.unfolded(documents.read(path), faults)]
    tiers: dict[str, ModelTierSpec] = {}
    for one in read:
        if one.content.get("kind") == "ModelTier" and not isinstance(tier := parse(one.content), Fault):
            tiers[str(tier.metadata.get("name"))] = tier.spec
    found = []
    jobs = [one for one in read if one.content.get("kind") == "DistillJob"]
    for one in jobs:
        job = parse_distill(one.content)
        if isinstance(job, Fault):
            faults.append(f"{one.where}: {job.message}")
            continue
        found += [{"file": one.where, "path": each.path, "problem": each.problem} for each in doubts(job.spec, tiers)]
    if paths and not jobs and not faults:
        faults.append(f"{', '.join(paths)}: no DistillJob among them")
    return found
