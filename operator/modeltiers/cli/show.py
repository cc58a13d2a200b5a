"""How commands show things: tables, JSON, YAML, and colours where a person looks at a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import click
import yaml

F = TypeVar("F", bound=Callable[..., Any])


def output(*formats: str) -> Callable[[F], F]:
    """The option -o of a command; the first format is what it does without."""
    return click.option("-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True)


def data(body: Any, how: str) -> None:
    """Show data as JSON or YAML."""
    if how == "json":
        click.echo(json.dumps(body, indent=2))
    else:
        click.echo(yaml.safe_dump(body, sort_keys=False, width=120, allow_unicode=True), nl=False)


def line(text: str, **style: Any) -> None:
    """Show one line, with a style where there are colours."""
    click.echo(click.style(text, **style) if style and coloured() else text, color=True if coloured() else None)


def coloured() -> bool:
    """Whether to use colours: on a terminal, and unless NO_COLOR says otherwise."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = (), indent: str = "") -> Iterator[str]:
    """Rows in aligned columns; the last column runs free."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=False))]
        yield f"{indent}{'  '.join([*cells, row[-1]])}".rstrip()
