"""The user's own kubectl: how commands reach a cluster, with the user's rights, contexts and ways to log in.

It is started with argument lists, and what a user gives is never the beginning of an argument, so no value is taken
for an option. Nothing here knows the operator's rights. Faults are told in a sentence with the way out.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from modeltiers import names

_LONGEST: Final = 60.0
"""Seconds for one answer; a login in a browser takes a while."""
_COMPLETION: Final = 3.0
"""Seconds that a person waits for names at most."""
_NOISE: Final = re.compile(r"^[EWI]\d{4} ")  # kubectl's own log lines
F = TypeVar("F", bound=Callable[..., Any])
Body = dict[str, Any]


class Fault(click.ClickException):
    """The cluster was not reached, or did not do what was asked."""


class Forbidden(Fault):
    """The user may not."""


class NotFound(Fault):
    """There is no such object."""


class NotInstalled(Fault):
    """The cluster does not know the kinds."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One cluster and namespace; what is empty is what kubectl is set to."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    def get(self, kind: str, name: str) -> Body:
        """An object as it is now."""
        found: Body = json.loads(self.run("get", kind, name, "--output=json"))
        return found

    def patch(self, kind: str, name: str, patch: Mapping[str, Any]) -> None:
        """Change some fields of an object."""
        self.run("patch", kind, name, "--type=merge", f"--patch={json.dumps(patch)}")

    def lists(self, kinds: Iterable[str], *more: str) -> tuple[list[Body], str]:
        """All objects of these kinds that may be read, and what kubectl says of the others."""
        done = self._start("get", ",".join(kinds), "--output=json", *more)
        said = _quiet(done.stderr)
        if done.returncode and not (done.stdout.strip() and "(Forbidden)" in said):
            raise fault(said, done.returncode)
        found: list[Body] = json.loads(done.stdout).get("items", [])
        return found, said if done.returncode else ""

    def run(self, *args: str) -> str:
        """What kubectl says; raises a `Fault` where it fails."""
        done = self._start(*args)
        if done.returncode:
            raise fault(_quiet(done.stderr), done.returncode)
        return done.stdout

    def where(self) -> str:
        """The namespace that commands without one are about."""
        if self.namespace:
            return self.namespace
        config = json.loads(self.run("config", "view", "--minify", "--output=json"))
        contexts = config.get("contexts") or [{}]
        return str((contexts[0].get("context") or {}).get("namespace") or "default")

    def like(self, command: str) -> str:
        """A command line for this cluster: with the context and the kubeconfig that were given."""
        given = [
            f"--{key}={shlex.quote(getattr(self, key))}" for key in ("context", "kubeconfig") if getattr(self, key)
        ]
        first, pipe, rest = command.partition(" | ")
        # kubectl takes no options before the name of a plugin.
        plugin = first.startswith("kubectl modeltiers ")
        words = [first, *given] if plugin else ["kubectl", *given, first.removeprefix("kubectl ")]
        return " ".join(words) + pipe + rest

    def command(self, *args: str) -> list[str]:
        """The whole command line."""
        return ["kubectl", *(f"--{key}={getattr(self, key)}" for key in self.__slots__ if getattr(self, key)), *args]

    def _start(self, *args: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                self.command(*args), capture_output=True, text=True, check=False, timeout=_LONGEST, errors="replace"
            )
        except FileNotFoundError:
            raise Fault("kubectl is not on the PATH: it reaches the cluster with your rights") from None
        except subprocess.TimeoutExpired:
            raise Fault(f"the cluster did not answer within {_LONGEST:.0f} s") from None


def _quiet(stderr: str) -> str:
    return "\n".join(line for line in stderr.splitlines() if not _NOISE.match(line)).strip()


_MISSING: Final = (
    f"this cluster does not know {names.GROUP}: install the operator (helm install, or kubectl apply -k manifests), or"
    " choose another --context"
)
_FAULTS: Final[tuple[tuple[re.Pattern[str], type[Fault], str], ...]] = (
    (re.compile(r"doesn't have a resource type|no matches for kind"), NotInstalled, _MISSING),
    (re.compile(r"\(NotFound\)"), NotFound, "{said}"),
    (re.compile(r"\(Forbidden\)"), Forbidden, "{said}\nask whoever runs the cluster for that right"),
    (re.compile(r"stat .{1,1024}: no such file"), Fault, "{said}\ngive another --kubeconfig"),
    (
        re.compile(r"localhost:8080 was refused|current-context (must exist|is not set)"),
        Fault,
        "kubectl knows of no cluster: set KUBECONFIG, or give --kubeconfig or --context",
    ),
    (
        # What the server says of its own ways, to a kubelet for one, is not about ours.
        re.compile(
            r"\A(?!Error from server:)[\s\S]*(was refused|no such host|i/o timeout|no route to host"
            r"|TLS handshake timeout|deadline exceeded)"
        ),
        Fault,
        "{said}\nthe API server is not reached: is the cluster up, and is it the right --context?",
    ),
    (
        re.compile(r"Unauthorized|must be logged in|asked for the client to provide credentials"),
        Fault,
        "{said}\nthe API server does not know you: log in again, or choose another --context",
    ),
    (re.compile(r"x509|certificate"), Fault, "{said}\nthe API server's certificate is not the one of the kubeconfig"),
    (
        re.compile(r"context was not found|context .{1,200} does not exist"),
        Fault,
        "{said}\nkubectl config get-contexts lists those that there are",
    ),
)


def fault(said: str, code: int) -> Fault:
    """What kubectl says, as a fault with the way out."""
    for pattern, kind, way_out in _FAULTS:
        if pattern.search(said):
            return kind(way_out.replace("{said}", said))
    return Fault(said or f"kubectl ended with {code}")


def reaching(command: F) -> F:
    """Give a command the options that say where, as fields of `Kubectl`."""
    for option in (
        click.option("--kubeconfig", default="", metavar="FILE", help="As kubectl's.", type=click.Path()),
        click.option("--context", default="", help="As kubectl's.", shell_complete=_contexts),
        click.option("-n", "--namespace", default="", help="As kubectl's.", shell_complete=_namespaces),
    ):
        command = option(command)
    return command


def proposals(ctx: click.Context, *args: str) -> list[str]:
    """What `kubectl ... --output=name` lists, for completion; a cluster that does not answer completes nothing."""
    given = {key: str(ctx.params.get(key) or "") for key in Kubectl.__slots__}
    asked = Kubectl(**given).command(*args)
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_COMPLETION)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.rpartition("/")[2] for line in done.stdout.split()]


def _namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    found = proposals(ctx, "get", "namespaces", "--output=name", f"--request-timeout={_COMPLETION:.0f}s")
    return [one for one in found if one.startswith(incomplete)]


def _contexts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - likewise
    return [one for one in proposals(ctx, "config", "get-contexts", "--output=name") if one.startswith(incomplete)]
