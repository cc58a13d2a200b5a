"""`modeltiers lint`: what in a routing table is allowed and hardly meant, each with its path and a way out."""

from __future__ import annotations

import json

import click
import yaml

from modeltiers.cli import tables
from modeltiers.domain.routing.lint import lint as find

_HELP = """Say what in routing tables does nothing, never happens, or contradicts itself.

Each FILE is a table, YAML or JSON, or a folder of tables; - is standard input.

\b
Exit codes, for CI:
  0  nothing is doubtful
  1  something is
  2  a table is invalid or unreadable

\b
Examples:
  modeltiers lint --table table.yaml
  modeltiers lint --table tables/ -o json
"""


@click.command(help=_HELP)
@click.option("-t", "--table", "first", multiple=True, metavar="FILE", help="A table, or a folder of them.")
@click.argument("files", nargs=-1)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def lint(ctx: click.Context, first: tuple[str, ...], files: tuple[str, ...], output: str) -> None:
    """Say what is doubtful about tables."""
    if not first and not files:
        raise click.UsageError("name a table: modeltiers lint --table FILE")
    faults: list[str] = []
    found = []
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
