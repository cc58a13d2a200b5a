"""A cluster that the user already has, reached by a context named on the command line and by nothing else.

There is no fallback to the current context: what the user did not name is not touched.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from e2e.cluster.kubectl import Kubectl, Reachable
from e2e.cluster.report import HarnessError
from e2e.cluster.supervisor import write_private


class ExternalCluster(Reachable):
    """The cluster behind one context of the user's kubeconfig; copies of its credentials stay in `home`."""

    def __init__(self, context: str, home: Path) -> None:
        if not context.strip():
            raise HarnessError("a context must be named with --context NAME; the current context is never used unasked")
        self.context = context
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(home / "external.kubeconfig", _extract(context))
        self._admin = Kubectl(_program(), home / "external.kubeconfig", home)

    @property
    def as_admin(self) -> Kubectl:
        """The user's own kubectl, bound to this context."""
        return self._admin


def _program() -> Path:
    found = shutil.which("kubectl")
    if found is None:
        raise HarnessError("no kubectl on PATH; an external cluster is reached by the user's own kubectl")
    return Path(found)


def _extract(context: str) -> str:
    """Return this context alone as a kubeconfig, from the user's own KUBECONFIG."""
    command = ["kubectl", "config", "view", "--raw", "--minify", "--flatten", "--output=json", f"--context={context}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"no context {context!r} in the kubeconfig: {done.stderr.strip()}")
    return done.stdout
