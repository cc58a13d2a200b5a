"""The user's own kubectl: how commands reach a cluster, with the user's rights, contexts and ways to log in.

It is started with argument lists, and what a user gives is never the beginning of an argument, so no value is taken
for an option. Nothing here knows the operator's rights.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

KIND: Final = "distilljobs.modeltiers.dev"
_PREFIXES: Final = ("dj", "distilljob", "distilljobs", KIND)
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_LONGEST: Final = 60.0
"""Seconds for one answer; a login in a browser takes a while."""
F = TypeVar("F", bound=Callable[..., Any])


class JobName(click.ParamType[str]):
    """`dj/NAME`, or NAME alone."""

    name = "dj/NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        kind, slash, name = str(value).rpartition("/")
        if slash and kind not in _PREFIXES:
            self.fail(f"{kind} is not a DistillJob: write dj/{name}", param, ctx)
        if not _NAME.fullmatch(name):
            self.fail(f"{name!r} is not a name that a DistillJob can have", param, ctx)
        return name


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One cluster and namespace; what is empty is what kubectl is set to."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    def job(self, name: str) -> dict[str, Any]:
        """A DistillJob as it is now."""
        found: dict[str, Any] = json.loads(self._run("get", KIND, name, "--output=json"))
        return found

    def patch(self, name: str, patch: Mapping[str, Any]) -> None:
        """Change some fields of a DistillJob."""
        self._run("patch", KIND, name, "--type=merge", f"--patch={json.dumps(patch)}")

    def _run(self, *args: str) -> str:
        where = [f"--{key}={getattr(self, key)}" for key in self.__slots__ if getattr(self, key)]
        try:
            done = subprocess.run(
                ["kubectl", *where, *args], capture_output=True, text=True, check=False, timeout=_LONGEST
            )
        except FileNotFoundError:
            raise click.ClickException("kubectl is not on the PATH: it reaches the cluster with your rights") from None
        except subprocess.TimeoutExpired:
            raise click.ClickException(f"the cluster did not answer within {_LONGEST:.0f} s") from None
        if done.returncode:
            raise click.ClickException(done.stderr.strip() or f"kubectl ended with {done.returncode}")
        return done.stdout


def reaching(command: F) -> F:
    """Give a command the options that say where, as `kubectl: Kubectl`."""
    for option in (
        click.option("--kubeconfig", default="", help="As kubectl's."),
        click.option("--context", default="", help="As kubectl's."),
        click.option("-n", "--namespace", default="", help="As kubectl's."),
    ):
        command = option(command)
    return command
