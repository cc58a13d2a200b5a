"""Writes the reference page of the command line from its own parser: every command, argument and option."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from modeltiers.api.crd import HEADER
from modeltiers.cli.main import COMMANDS, main

_INTRODUCTION: Final = """\
`modeltiers` and `kubectl modeltiers` are one program ([how it is installed and used](../kubectl.md)). Options that say
where (`-n`, `--context`, `--kubeconfig`) may also stand before the command."""


def cli_page() -> str:
    """The page, as Markdown."""
    parts = [f"<!-- {HEADER} -->\n\n# Commands\n\n{_INTRODUCTION}\n"]
    with click.Context(main, info_name="modeltiers") as top:
        for name in sorted(COMMANDS):
            command = main.get_command(top, name)
            assert command is not None
            with click.Context(command, info_name=name, parent=top) as ctx:
                parts.append("\n".join(_section(command, ctx)) + "\n")
    return "\n".join(parts)


def _section(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield f"## {ctx.info_name}"
    yield ""
    yield f"`modeltiers {ctx.info_name} {' '.join(command.collect_usage_pieces(ctx))}`"
    yield ""
    yield from _text(command.help or "")
    yield ""
    shown = [one for one in command.get_params(ctx) if isinstance(one, click.Option) and "--help" not in one.opts]
    if shown:
        yield from ("| option | value | default | meaning |", "|---|---|---|---|", *map(_option, shown))


def _text(text: str) -> Iterator[str]:
    """The help as Markdown: what click must not wrap is a block of its own."""
    for number, paragraph in enumerate(click.unstyle(_dedented(text)).split("\n\n")):
        if number:
            yield ""
        if paragraph.startswith("\b\n"):
            yield from ("```text", *paragraph.removeprefix("\b\n").splitlines(), "```")
        else:
            yield " ".join(paragraph.split())


def _dedented(text: str) -> str:
    return "\n".join(
        line.removeprefix("    ") if line.startswith("    ") else line for line in text.strip().splitlines()
    )


def _option(one: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in sorted((*one.opts, *one.secondary_opts), key=len))
    value = ""
    if not one.is_flag:
        value = " or ".join(f"`{choice}`" for choice in one.type.choices) if isinstance(one.type, click.Choice) else ""
        value = value or (one.metavar or one.type.name.upper())
    default = "" if one.default in (None, "", False, ()) or callable(one.default) or one.is_flag else f"`{one.default}`"
    default = "" if "UNSET" in default.upper() else default
    more = "; can be given more than once" if one.multiple else ""
    return f"| {names} | {value} | {default} | {(one.help or '').replace('|', chr(92) + '|')}{more} |"
