"""What one can do with any cluster: run kubectl against one kubeconfig, make namespaces, act as a ServiceAccount.

The kubeconfig is always named, so no call ever falls back to the user's current context.
"""

from __future__ import annotations

import abc
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from e2e.cluster import kubeconfig as kubeconfigs
from e2e.cluster.process import wait_until
from e2e.cluster.report import HarnessError

if TYPE_CHECKING:
    from e2e.cluster.objects import Objects


@dataclass(frozen=True)
class Kubectl:
    """A kubectl bound to one kubeconfig; its discovery cache and what it writes stay in `home`."""

    program: Path
    kubeconfig: Path
    home: Path

    def __call__(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as in subprocess.run
        """Run kubectl; with `check`, a failure is an error that shows the command and what kubectl said."""
        done = subprocess.run(
            [str(self.program), f"--kubeconfig={self.kubeconfig}", *args],
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"KUBECACHEDIR": str(self.home / "kubectl-cache")},
        )
        if check and done.returncode:
            asked = f"kubectl {' '.join(args)}"
            raise HarnessError(f"{asked} failed with exit code {done.returncode}:\n{done.stderr.strip()}")
        return done

    def watch(self, kind: str, *args: str, out: TextIO) -> subprocess.Popen[str]:
        """Write every state of these objects to a file, one JSON object after the other; the caller ends it."""
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", "get", kind, *args, "--watch", "-o", "json"]
        return subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True)

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Create a namespace and return its name."""
        metadata = {"name": name, "labels": dict(labels or {})}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        self("create", "-f", "-", input=json.dumps(manifest))
        return name

    def delete_namespace(self, name: str) -> None:
        """Ask for a namespace's end and do not wait for it."""
        self("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    def service_account_kubeconfig(self, namespace: str, name: str, duration: str = "24h") -> Path:
        """Write a kubeconfig that acts as this ServiceAccount, by a token asked for as a pod's kubelet would."""
        token = self("create", "token", name, f"--namespace={namespace}", f"--duration={duration}").stdout.strip()
        view = json.loads(self("config", "view", "--raw", "--minify", "--flatten", "--output=json").stdout)
        context = f"{view['current-context']}-{namespace}-{name}"
        path = self.home / f"{namespace}-{name}.kubeconfig"
        return kubeconfigs.write(path, context, view["clusters"][0]["cluster"], {"token": token}, namespace)


class Reachable(abc.ABC):
    """What every cluster offers, whoever made it."""

    @property
    @abc.abstractmethod
    def as_admin(self) -> Kubectl:
        """The administrator's kubectl."""

    @cached_property
    def objects(self) -> Objects:
        """What there is, as the administrator reads it."""
        from e2e.cluster.objects import Objects  # the trainer's environment has no client, and makes no cluster

        return Objects(self.kubeconfig)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, with one context in it."""
        return self.as_admin.kubeconfig

    @property
    def version(self) -> str:
        """What the API server says its version is."""
        return str(json.loads(self.kubectl("version", "--output=json").stdout)["serverVersion"]["gitVersion"])

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as in subprocess.run
        """Run kubectl as the administrator."""
        return self.as_admin(*args, input=input, check=check)

    def wait_established(self, *crds: str) -> None:
        """Wait until CustomResourceDefinitions are served; `kubectl wait` fails on one that has no status yet."""

        def served(name: str) -> bool:
            said = ((self.objects.get("crd", name) or {}).get("status") or {}).get("conditions") or ()
            return any((one["type"], one["status"]) == ("Established", "True") for one in said)

        for name in crds:
            wait_until(partial(served, name), f"CRD {name} to be served", timeout=90)

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Create a namespace and return its name."""
        return self.as_admin.create_namespace(name, labels)

    def delete_namespace(self, name: str) -> None:
        """Ask for a namespace's end and do not wait for it."""
        self.as_admin.delete_namespace(name)

    def service_account_kubeconfig(self, namespace: str, name: str, duration: str = "24h") -> Path:
        """Write a kubeconfig that acts as this ServiceAccount and has no right of the administrator's."""
        return self.as_admin.service_account_kubeconfig(namespace, name, duration)
