"""`modeltiers lint`: what in a resource or a table is allowed and hardly meant, each with its path and a way out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
import yaml

from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.parse import Fault, parse_distill, parse_policy
from modeltiers.cli import documents, tables
from modeltiers.cli.documents import Document
from modeltiers.cli.resources import read_tier
from modeltiers.domain.distill.kinship import doubts
from modeltiers.domain.policy_table import CompiledTable, TierView, compile_table
from modeltiers.domain.routing.lint import lint as find

_HELP = """Say what in policies and routing tables does nothing, never happens, or contradicts itself, and what in a
DistillJob is hardly meant: a judge that is the teacher, or of its family.

Each FILE holds resources (RoutingPolicy, DistillJob, ModelTier; others are passed over) or one table, in YAML or JSON,
or is a folder of such files; - is standard input. What a policy or a job says of ModelTiers is checked where their
files are named too. The rules of the API server are its own: kubectl apply --dry-run=server asks it.

\b
Exit codes, for CI:
  0  nothing is doubtful
  1  something is
  2  a resource or a table is invalid or unreadable

\b
Examples:
  modeltiers lint policy.yaml tiers.yaml
  modeltiers lint job.yaml tiers.yaml -o json
  kustomize build . | modeltiers lint -
  modeltiers lint --table table.yaml
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is doubtful: where it stands, the field, and what to do."""

    file: str
    path: str
    problem: str


@click.command(help=_HELP)
@click.option("-t", "--table", "always", multiple=True, metavar="FILE", help="A table, or a folder of them.")
@click.option("-f", "--filename", "more", multiple=True, metavar="FILE", help="The same as FILES.")
@click.argument("files", nargs=-1)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def lint(
    ctx: click.Context, always: tuple[str, ...], more: tuple[str, ...], files: tuple[str, ...], output: str
) -> None:
    """Say what is doubtful about resources and tables."""
    if not always and not more and not files:
        raise click.UsageError("name a file: modeltiers lint FILE")
    faults: list[str] = []
    found = list(_found(always, more + files, faults))
    if output == "table":
        for one in found:
            click.echo(f"{one.file}: {one.path}: {one.problem}")
    else:
        said = {"findings": [{"file": one.file, "path": one.path, "problem": one.problem} for one in found]}
        text = yaml.safe_dump(said, sort_keys=False, width=120, allow_unicode=True)
        click.echo(json.dumps(said, indent=2) if output == "json" else text, nl=output == "json")
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
    ctx.exit(2 if faults else int(bool(found)))


def _found(always: tuple[str, ...], given: tuple[str, ...], faults: list[str]) -> Iterator[Finding]:
    resources: list[Document] = []
    for path in tables.files(given, faults):
        read = documents.read(path)
        if any(_is_resource(one.content) for one in read):
            resources += documents.unfolded(read, faults)
        elif (table := tables.table_of(path, read, faults)) is not None:
            yield from _of_table(table)
    for table in tables.read(always, faults):
        yield from _of_table(table)
    yield from _of_resources(resources, faults)


def _is_resource(content: Any) -> bool:
    return isinstance(content, dict) and "kind" in content


def _of_table(one: tables.TableFile) -> Iterator[Finding]:
    return (Finding(one.path, each.path, each.problem) for each in find(one.table))


def _of_resources(resources: Iterable[Document], faults: list[str]) -> Iterator[Finding]:
    """What is doubtful about resources; what cannot be read goes to `faults`, other kinds are passed over."""
    by_kind: dict[str, list[Document]] = {}
    for one in resources:
        by_kind.setdefault(str(one.content.get("kind")), []).append(one)
    tiers: dict[str, dict[str, ModelTierSpec]] = {}  # by namespace and name
    for one in by_kind.get("ModelTier", ()):
        if (tier := read_tier(one, faults)) is not None:
            tiers.setdefault(_namespace(one), {})[tier[0]] = tier[1]
    for one in by_kind.get("RoutingPolicy", ()):
        yield from _of_policy(one, _near(one, tiers), faults)
    for one in by_kind.get("DistillJob", ()):
        job = parse_distill(one.content)
        if isinstance(job, Fault):
            faults.append(f"{one.where}: {job.message}")
        else:
            found = doubts(job.spec, _near(one, tiers))
            yield from (Finding(one.where, each.path, each.problem) for each in found)


def _near(one: Document, tiers: Mapping[str, Mapping[str, ModelTierSpec]]) -> dict[str, ModelTierSpec]:
    """The tiers of its namespace, by name; a file that names none may be meant for any."""
    return {**tiers.get("", {}), **tiers.get(_namespace(one), {})}


def _namespace(one: Document) -> str:
    """The namespace that a resource names, or nothing."""
    metadata = one.content.get("metadata")
    return str(metadata.get("namespace", "")) if isinstance(metadata, dict) else ""


def _of_policy(one: Document, tiers: dict[str, ModelTierSpec], faults: list[str]) -> Iterator[Finding]:
    policy = parse_policy(one.content)
    if isinstance(policy, Fault):
        faults.append(f"{one.where}: {policy.message}")
        return
    missing = [each.name for each in policy.spec.tiers if each.name not in tiers]
    if missing:
        faults.append(f"{one.where}: spec.tiers: name the file of ModelTier {', '.join(missing)} too")
        return
    views = {name: TierView.of(name, spec) for name, spec in tiers.items()}
    made = compile_table(str(policy.metadata.get("name")), policy.spec, views, _namespace(one) or "default")
    if isinstance(made, CompiledTable):
        yield from (Finding(one.where, each.path, each.message) for each in made.doubts)
    else:
        faults += [f"{one.where}: {each}" for each in made]
