"""`modeltiers docs [TOPIC]`: what a reason means, or a field is, from what docs/reference is made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Final

import click
from click.shell_completion import CompletionItem

from modeltiers.api import reference
from modeltiers.api.crd import RESOURCES
from modeltiers.api.schema import Schema, structural
from modeltiers.api.settings import Settings
from modeltiers.cli import show
from modeltiers.cli.objects import kind_of
from modeltiers.domain.why.meanings import TABLES, meanings
from modeltiers.domain.why.snapshot import SHORT

SETTINGS: Final = "settings"
_HELP = """Say what a reason in a condition means and what to do about it, or what a field is.

TOPIC is a reason, a kind, or a kind with the path of a field; `settings` is the administrator's file. Without TOPIC
it lists what there is. Nothing is asked of a cluster.

\b
Examples:
  kubectl modeltiers docs Unschedulable
  kubectl modeltiers docs mt
  kubectl modeltiers docs mt.spec.sizing
  kubectl modeltiers docs settings.router
"""


class Topic(click.ParamType[str]):
    """A reason, a kind, or a field."""

    name = "TOPIC"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's signature
        """As it is."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - likewise
        """Reasons and kinds; fields once a kind is there."""
        head, dot, _ = incomplete.partition(".")
        if dot and (whole := _schema(head)) is not None:
            known = [f"{head}.{one.path}" for one in reference.fields(whole)]
        else:
            known = [*SHORT.values(), SETTINGS, *sorted(_reasons())]
        return [CompletionItem(one) for one in known if one.lower().startswith(incomplete.lower())]


@click.command(help=_HELP)
@click.argument("topic", type=Topic(), required=False)
def docs(topic: str | None) -> None:
    """Explain a word."""
    found = list(_index()) if topic is None else [*_reason(topic), *_field(topic)]
    if not found:
        raise click.ClickException(_unknown(str(topic)))
    for line in found:
        click.echo(line)


def _reasons() -> set[str]:
    return {one.name for table in TABLES.values() for one in table}


def _index() -> Iterator[str]:
    yield "kinds:"
    for one in RESOURCES:
        about = structural(one.model)["description"].partition("\n")[0]
        yield f"  {one.short_name}  {one.kind:<14}  {about}"
    yield f"  {SETTINGS}           the administrator's settings"
    for kind, table in TABLES.items():
        words = sorted({one.name for one in table})
        yield ""
        yield from click.wrap_text(
            f"reasons of a {kind}: {', '.join(words)}", width=118, subsequent_indent="  "
        ).splitlines()


def _reason(topic: str) -> Iterator[str]:
    for number, (kind, one) in enumerate(meanings(topic)):
        if number:
            yield ""
        yield f"{one.name}, on {one.condition} of a {kind}"
        yield f"  {one.meaning[:1].upper()}{one.meaning[1:]}"
        if one.way_out:
            yield f"  Way out: {one.way_out}"


def _schema(head: str) -> Schema | None:
    if head.lower() == SETTINGS:
        return structural(Settings)
    kind = kind_of(head)
    return next((structural(one.model) for one in RESOURCES if one.kind == kind), None)


def _field(topic: str) -> Iterator[str]:
    """A kind, or one of its fields, with the fields right below it."""
    head, _, path = topic.partition(".")
    whole = _schema(head)
    if whole is None:
        return
    every = {one.path: one for one in reference.fields(whole)}
    if path and path not in every:
        return
    if path:
        yield from _told(every[path])
    else:
        yield whole["description"]
    below = [one for one in every.values() if _is_right_below(one.path, path)]
    if not path and "spec" in every:
        below = [
            one for one in every.values() if one.path.count(".") == 1 and one.path.startswith(("spec.", "status."))
        ]
    rows = [(one.path, one.type, one.meaning.partition(". ")[0].partition("\n")[0].rstrip(".")) for one in below]
    if rows:
        yield ""
        yield from show.columns(rows, indent="  ")


def _is_right_below(one: str, path: str) -> bool:
    """Whether a field is a child of another, or of what that lists or maps."""
    if not one.startswith(path):
        return False
    rest = one.removeprefix(path)
    for item in ("[].", ".*.", ".", ""):
        if rest.startswith(item) and (item or not path):
            return bool(rest[len(item) :]) and "." not in rest[len(item) :]
    return False


def _told(one: reference.Documented) -> Iterator[str]:
    said: Mapping[str, str] = {"type": one.type, "bounds": one.bounds, "default": one.default}
    yield f"{one.path}: {'; '.join(f'{key} {value}' for key, value in said.items() if value)}"
    yield from click.wrap_text(one.meaning, width=118, initial_indent="  ", subsequent_indent="  ").splitlines()


def _unknown(topic: str) -> str:
    head, dot, path = topic.partition(".")
    whole = _schema(head)
    if whole is not None and dot:
        known = [one.path for one in reference.fields(whole)]
        ends = [one for one in known if one.rpartition(".")[2].lower() == path.rpartition(".")[2].lower()]
        close = ends or difflib.get_close_matches(path, known, 3, 0.5)
        named = ", ".join(f"{head}.{one}" for one in close[:3])
        return f"there is no field {path} of {head}{f': did you mean {named}?' if named else ''}"
    small = {word.lower(): word for word in _reasons()}
    named = ", ".join(small[one] for one in difflib.get_close_matches(topic.lower(), small, 3, 0.6))
    said = f"{topic!r} is neither a reason nor a kind"
    return f"{said}: did you mean {named}?" if named else f"{said}: modeltiers docs lists both"
