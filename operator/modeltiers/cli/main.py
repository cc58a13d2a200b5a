"""The `modeltiers` command, also installed as `kubectl-modeltiers`: one program, a subcommand a question.

It finds subcommands by name and loads the one that is asked for, so that it starts quickly. It decides nothing itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

import click

from modeltiers import __version__
from modeltiers.cli.kubectl import reaching

COMMANDS: Final[Mapping[str, str]] = {
    "approve": "modeltiers.cli.distill:approve",
    "completion": "modeltiers.cli.completion:completion",
    "docs": "modeltiers.cli.docs:docs",
    "generate": "modeltiers.cli.generate:generate",
    "images": "modeltiers.cli.images:images",
    "lint": "modeltiers.cli.lint:lint",
    "logs": "modeltiers.cli.logs:logs",
    "plan": "modeltiers.cli.plan:plan",
    "report": "modeltiers.cli.distill:report",
    "resume": "modeltiers.cli.distill:resume",
    "retry": "modeltiers.cli.distill:retry",
    "rollback": "modeltiers.cli.distill:rollback",
    "route": "modeltiers.cli.route:route",
    "status": "modeltiers.cli.status:status",
    "suspend": "modeltiers.cli.distill:suspend",
    "why": "modeltiers.cli.why:why",
}
"""Subcommand -> module:attribute of its click command."""


class Lazy(click.Group):
    """A group that imports a subcommand when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of all subcommands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """The subcommand of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@reaching
@click.pass_context
def main(ctx: click.Context, /, **where: str) -> None:
    """Model tiers on Kubernetes: the right request to the right model, with proof that quality holds."""
    # `kubectl modeltiers -n shop why` is as good as `kubectl modeltiers why -n shop`.
    given = {key: value for key, value in where.items() if value}
    ctx.default_map = dict.fromkeys(COMMANDS, given)


if __name__ == "__main__":
    main()
