"""How a person names an object at the command line: `KIND/NAME`, with the names that kubectl knows the kinds by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from modeltiers import names
from modeltiers.cli.kubectl import proposals
from modeltiers.domain.why.snapshot import JOB, POLICY, SHORT, TIER

PLURAL: Final[Mapping[str, str]] = {
    TIER: f"modeltiers.{names.GROUP}",
    POLICY: f"routingpolicies.{names.GROUP}",
    JOB: f"distilljobs.{names.GROUP}",
}
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def kind_of(word: str) -> str | None:
    """The kind that a word stands for: `mt`, `modeltier`, `modeltiers`, `modeltiers.modeltiers.dev` and so on."""
    wanted = word.lower()
    for kind, short in SHORT.items():
        plural = PLURAL[kind].partition(".")[0]
        if wanted in (short, kind.lower(), plural, PLURAL[kind]):
            return kind
    return None


@dataclass(frozen=True, slots=True)
class Named:
    """An object."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{SHORT[self.kind]}/{self.name}"


class ObjectName(click.ParamType[Named]):
    """`KIND/NAME` of some kinds; NAME alone where there is only one kind."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        self.name = "KIND/NAME" if len(kinds) > 1 else f"{SHORT[kinds[0]]}/NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Named:
        """The kind and the name."""
        if isinstance(value, Named):
            return value
        word, slash, name = str(value).rpartition("/")
        kind = kind_of(word) if slash else self.kinds[0] if len(self.kinds) == 1 else None
        known = ", ".join(f"{SHORT[one]}/NAME" for one in self.kinds)
        if kind not in self.kinds:
            # "modeltiers why large" is what a person types first.
            said = f"{word} is not a {' or '.join(self.kinds)}" if slash else f"{value!r} says no kind"
            self.fail(f"{said}: write {known}", param, ctx)
        if not _NAME.fullmatch(name):
            self.fail(f"{name!r} is not a name that a {kind} can have", param, ctx)
        return Named(kind, name)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        """The objects that there are, as `KIND/NAME`. A cluster that does not answer completes nothing."""
        word, slash, _ = incomplete.rpartition("/")
        kinds = [kind for kind in self.kinds if not slash or kind_of(word) == kind]
        found = [f"{word if slash else SHORT[kind]}/{name}" for kind in kinds for name in there(ctx, kind)]
        return [CompletionItem(one) for one in found if one.startswith(incomplete)]


def there(ctx: click.Context, kind: str) -> list[str]:
    """Names of the objects of a kind, for completion."""
    return proposals(ctx, "get", PLURAL[kind], "--output=name", "--request-timeout=3s")
