"""The `modeltiers` command, also installed as `kubectl-modeltiers`: one program, a subcommand a question.

It finds subcommands by name and loads the one that is asked for, so that it starts quickly. It decides nothing itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

import click

COMMANDS: Final[Mapping[str, str]] = {
    "approve": "modeltiers.cli.distill:approve",
    "generate": "modeltiers.cli.generate:generate",
    "images": "modeltiers.cli.images:images",
    "lint": "modeltiers.cli.lint:lint",
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
@click.version_option(package_name="modeltiers")
def main() -> None:
    """Model tiers on Kubernetes: the right request to the right model, with proof that quality holds."""


if __name__ == "__main__":
    main()
