"""The support bundle: what helps somebody else to see why it does not work, redacted, as one archive.

It asks for everything with the user's own rights and goes on where something may not be read; the index says what is
in it and what is not. Secrets are never asked for.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import yaml

from modeltiers import __version__, names
from modeltiers.cli import gather
from modeltiers.cli.kubectl import Body, Fault, Kubectl
from modeltiers.cli.objects import PLURAL
from modeltiers.cli.why import as_data
from modeltiers.domain.why import ladder
from modeltiers.domain.why.explain import findings
from modeltiers.domain.why.findings import lines
from modeltiers.domain.why.redact import redacted, redacted_line
from modeltiers.domain.why.snapshot import OURS, Snapshot, dig, labels_of, maps, name_of, text

OF_NAMESPACE: Final = (
    *PLURAL.values(),
    *("deployments.apps", "replicasets.apps", "jobs.batch", "pods", "services", "configmaps", "serviceaccounts"),
    *("persistentvolumeclaims", "events", "resourcequotas", "limitranges", "networkpolicies.networking.k8s.io"),
    *("poddisruptionbudgets.policy", "horizontalpodautoscalers.autoscaling"),
)
_EVERYONES: Final = ("PersistentVolumeClaim", "Event", "ResourceQuota", "LimitRange", *OURS)
"""Kinds of which all objects are told, and not ours alone."""
LINES: Final = 2000
"""Lines of a log."""
PODS: Final = 40
"""Pods of a namespace whose logs and states are read."""
Step = tuple[str, Callable[[], None]]
"""What is done, in words, and the doing of it."""


@dataclass
class Bundle:
    """An archive in the making."""

    kubectl: Kubectl
    engines: bool = False
    """Also what engines and stages say: it may quote requests, where somebody had them logged."""
    files: dict[str, bytes] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """What could not be had, and why."""

    def steps(self, namespaces: Sequence[str]) -> Iterator[Step]:
        """What there is to do, one after the other."""
        yield "versions", self._versions
        yield "nodes", self._nodes
        yield "resource definitions", self._definitions
        yield "operator", self._operator
        for space in namespaces:
            yield f"namespace {space}", partial(self._namespace, space)
            yield f"logs of {space}", partial(self._logs, space)

    def write(self, path: Path) -> None:
        """Write the archive, for the user's eyes alone, and never over another file."""
        self.files["INDEX.txt"] = self.index().encode()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            root = path.name.removesuffix(".tar.gz").removesuffix(".tgz")
            for name in sorted(self.files):
                entry = tarfile.TarInfo(f"{root}/{name}")
                entry.size, entry.mode, entry.mtime = len(self.files[name]), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(self.files[name]))

    def index(self) -> str:
        """What is in it, and what is not."""
        told = ["Values of environment variables, data of ConfigMaps, texts written for models, annotations that"]
        told += ["may hold such, and whatever looks like a key are redacted. Secrets were not read.", ""]
        told += [f"{len(body):>9}  {name}" for name, body in sorted(self.files.items())]
        if self.missing:
            told += ["", "not in it:", *(f"  {what}: {redacted_line(why)}" for what, why in self.missing.items())]
        return "\n".join(told) + "\n"

    # --- the parts ----------------------------------------------------------------------------------------------------

    def _at(self, namespace: str) -> Kubectl:
        return replace(self.kubectl, namespace=namespace)

    def _versions(self) -> None:
        self._text("versions.txt", f"modeltiers {__version__}\n{self._said(self._at(''), 'version', '--output=yaml')}")

    def _nodes(self) -> None:
        self._list("cluster", self._at(""), ("nodes",))

    def _definitions(self) -> None:
        where = self._at("")
        for plural in PLURAL.values():
            said = self._said(where, "get", "customresourcedefinition", plural, "--output=json")
            if said:
                body = json.loads(said)
                versions = [
                    {key: one.get(key) for key in ("name", "served", "storage")}
                    for one in maps(body, "spec", "versions")
                ]
                told = {"metadata": body["metadata"], "versions": versions, "status": body.get("status")}
                self._yaml(f"cluster/crds/{plural}.yaml", [told])

    def _operator(self) -> None:
        where = self._at(names.OPERATOR_NAMESPACE)
        kinds = ("deployments.apps", "pods", "leases.coordination.k8s.io", "events", "configmaps")
        found = self._list("operator", where, kinds)
        pods = [one for one in found if one.get("kind") == "Pod" and _of_operator(one)]
        for pod in pods[:PODS]:
            self._log("operator", where, name_of(pod), "operator")

    def _namespace(self, space: str) -> None:
        where = self._at(space)
        self._list(space, where, OF_NAMESPACE, everyone=_EVERYONES)
        try:
            snapshot = gather.everything(where)
        except Fault as fault:
            self.missing[f"{space}/why.txt"] = fault.message
            return
        self._text(f"{space}/why.txt", "\n".join(_why(snapshot)))
        told = {kind: ladder.as_data(snapshot, kind) for kind in OURS}
        self._yaml(f"{space}/status.yaml", [{**told, "findings": [as_data(one) for one in findings(snapshot)]}])

    def _logs(self, space: str) -> None:
        where = self._at(space)
        said = self._said(where, "get", "pods", f"--selector={_SELECTOR}", "--output=json")
        pods = json.loads(said).get("items", []) if said else []
        for pod in pods[:PODS]:
            if not text(pod, "spec", "nodeName"):
                continue
            for container in _containers(pod):
                if container == names.ROUTER_CONTAINER or self.engines:
                    self._log(space, where, name_of(pod), container)
            if names.ROUTER_CONTAINER in _containers(pod):
                self._router(space, where, name_of(pod))
        if len(pods) > PODS:
            self.missing[f"{space}/logs"] = f"{len(pods) - PODS} more pods"

    def _router(self, space: str, where: Kubectl, pod: str) -> None:
        path = f"/api/v1/namespaces/{space}/pods/{pod}:{names.ADMIN_PORT}/proxy/status"
        said = self._said(where, "get", "--raw", path, what=f"{space}/routers/{pod}.yaml")
        if said:
            self._yaml(f"{space}/routers/{pod}.yaml", [json.loads(said)])

    def _log(self, place: str, where: Kubectl, pod: str, container: str) -> None:
        for suffix, more in (("", ()), ("-previous", ("--previous",))):
            name = f"{place}/logs/{pod}-{container}{suffix}.log"
            try:
                said = where.run("logs", pod, f"--container={container}", f"--tail={LINES}", *more)
            except Fault as fault:
                # A container that never ended has no run before this one: nothing is missing.
                if not suffix:
                    self.missing[name] = fault.message
                continue
            self._text(name, "\n".join(redacted_line(line) for line in said.splitlines()))

    # --- the means ----------------------------------------------------------------------------------------------------

    def _list(
        self, place: str, where: Kubectl, kinds: Iterable[str], everyone: Container[str] | None = None
    ) -> list[Body]:
        """Objects of some kinds as a file a kind. With `everyone`, of other kinds only ours are told."""
        try:
            found, refused = where.lists(kinds)
        except Fault as fault:
            self.missing[place] = fault.message
            return []
        if refused:
            self.missing[f"{place}, some kinds"] = refused
        kept = [one for one in found if everyone is None or str(one.get("kind")) in everyone or _is_ours(one)]
        for kind in sorted({str(one.get("kind")) for one in kept}):
            self._yaml(f"{place}/{kind}.yaml", [one for one in kept if one.get("kind") == kind])
        return kept

    def _said(self, where: Kubectl, *args: str, what: str = "") -> str:
        try:
            return where.run(*args)
        except Fault as fault:
            self.missing[what or " ".join(args[:3])] = fault.message
            return ""

    def _yaml(self, name: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        told = [redacted(body) for body in bodies]
        self.files[name] = yaml.safe_dump_all(told, sort_keys=False, width=120, allow_unicode=True).encode()

    def _text(self, name: str, body: str) -> None:
        self.files[name] = "\n".join(redacted_line(line) if line else "" for line in body.splitlines()).encode() + b"\n"


_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER}"


def _is_ours(body: Body) -> bool:
    owners = maps(body, "metadata", "ownerReferences")
    return labels_of(body).get(names.LABEL_MANAGED_BY) == names.FIELD_MANAGER or any(
        text(one, "kind") in (*OURS, "Deployment", "Job") for one in owners
    )


def _of_operator(body: Body) -> bool:
    return labels_of(body).get(names.LABEL_NAME) == names.OPERATOR_NAME


def _containers(pod: Body) -> list[str]:
    sidecars = [one for one in maps(pod, "spec", "initContainers") if dig(one, "restartPolicy") == "Always"]
    return [text(one, "name") for one in (*sidecars, *maps(pod, "spec", "containers"))]


def _why(snapshot: Snapshot) -> Iterator[str]:
    for number, one in enumerate(findings(snapshot)):
        if number:
            yield ""
        yield from lines(one, snapshot.namespace)


def make(kubectl: Kubectl, path: Path, *, everywhere: bool, engines: bool) -> Bundle:
    """Collect and write it, with a bar on a terminal."""
    if path.exists():
        raise click.ClickException(f"{path} is there already: give another name")
    spaces = list(gather.ladders(kubectl, everywhere=True)) if everywhere else [kubectl.where()]
    bundle = Bundle(kubectl, engines)
    steps = list(bundle.steps(spaces))
    with click.progressbar(steps, label="collecting", item_show_func=_shown, file=sys.stderr) as bar:
        for _, do in bar:
            do()
    bundle.write(path)
    return bundle


def _shown(step: Step | None) -> str:
    return step[0] if step else ""
