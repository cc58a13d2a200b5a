"""Completion in shells: the scripts for `modeltiers`, and what kubectl asks its plugins.

kubectl completes a plugin by running `kubectl_complete-NAME` with the words so far: it answers a line for each
completion, and a last line that says not to complete names of files (the protocol of cobra).
"""

from __future__ import annotations

import sys
from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

PROGRAM: Final = "modeltiers"
_NO_FILES: Final = ":4"
_FILES: Final = ":0"
_HELP = f"""Print the completion script of a shell for `{PROGRAM}`.

For `kubectl modeltiers` nothing is to be set up but kubectl's own completion, with `kubectl_complete-modeltiers` on the
PATH beside `kubectl-modeltiers`. Names of objects come from the cluster, with your own rights.

\b
  bash:  source <(modeltiers completion bash)            in ~/.bashrc
  zsh:   source <(modeltiers completion zsh)             in ~/.zshrc
  fish:  modeltiers completion fish | source             in ~/.config/fish/config.fish
"""


@click.command(help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script."""
    from modeltiers.cli.main import main  # the group imports its commands

    found = get_completion_class(shell)
    assert found is not None
    # click's own source() asks the shell for its version first, to warn; a script is printed all the same.
    script = found(main, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
    click.echo(script.source_template % script.source_vars())


def kubectl() -> None:
    """What kubectl runs: the words after `kubectl modeltiers`, the last of which is not whole."""
    for line in completions(sys.argv[1:]):
        click.echo(line)


def completions(words: list[str]) -> list[str]:
    """Answers in kubectl's protocol."""
    from modeltiers.cli.main import main  # as above

    *before, incomplete = words or [""]
    shell = ShellComplete(main, {}, PROGRAM, "")
    found = shell.get_completions(before, incomplete)
    files = any(one.type in ("file", "dir") for one in found)
    told = [f"{one.value}\t{one.help}" if one.help else str(one.value) for one in found if one.type == "plain"]
    return [*told, _FILES if files else _NO_FILES]
