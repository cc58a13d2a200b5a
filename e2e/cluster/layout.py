"""Say where everything of one cluster lies, and remember what `up` chose. Starts nothing, decides nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import sandbox
from e2e.cluster.ports import Ports
from e2e.cluster.realnode import RealNode
from e2e.cluster.report import HarnessError
from e2e.cluster.supervisor import RECORDS, SOCKET, write_private

CHOICES = "cluster.json"
NODE = "node"
MADE_HERE = (RECORDS, SOCKET, "etcd", "pki", "config", "kubectl-cache", NODE, sandbox.PLAN, sandbox.RECORD, CHOICES)


@dataclass(frozen=True)
class Layout:
    """Paths, ports and programs of one cluster."""

    state: Path
    name: str
    ports: Ports
    binaries: dict[str, Path]
    node: RealNode | None = None

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """Files that are rewritten at every `up`."""
        return self.state / "config"

    @property
    def storage(self) -> Path:
        """What a real node writes: containers, volumes, pods' logs."""
        return self.state / NODE

    @property
    def context(self) -> str:
        """The context's name in the administrator's kubeconfig."""
        return f"modeltiers-{self.name}"

    @property
    def server(self) -> str:
        """The address of the API."""
        return f"https://127.0.0.1:{self.ports.apiserver}"

    def kubeconfig(self, client: str) -> Path:
        """The kubeconfig of one client certificate."""
        return self.config / f"{client}.kubeconfig"

    def save(self) -> None:
        """Remember the choices for other processes and for a later `up`."""
        binaries = {name: str(path) for name, path in self.binaries.items()}
        choices: dict[str, Any] = {"name": self.name, "ports": self.ports.base, "binaries": binaries}
        choices["node"] = asdict(self.node) if self.node else None
        write_private(self.state / CHOICES, json.dumps(choices, indent=1))


def load(state: Path) -> Layout | None:
    """Return what an earlier `up` chose, or None."""
    try:
        choices = json.loads((state / CHOICES).read_text())
    except FileNotFoundError:
        return None
    binaries = {name: Path(path) for name, path in choices["binaries"].items()}
    node = RealNode(**choices["node"]) if choices.get("node") else None
    return Layout(state, choices["name"], Ports(choices["ports"]), binaries, node)


def prepare(state: Path) -> None:
    """Make the state directory private; refuse one that holds something else, because `down` deletes what it finds.

    A new cluster starts with empty logs, so that a test that counts requests counts its own.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    foreign = [entry.name for entry in state.iterdir() if entry.name in MADE_HERE]
    if foreign and not (state / CHOICES).exists():
        raise HarnessError(f"{state} holds {foreign[0]} but no {CHOICES}, so it is no cluster's; name an empty --state")
    state.chmod(0o700)
    for directory in ("logs", "config"):
        (state / directory).mkdir(mode=0o700, exist_ok=True)
    if not (state / CHOICES).exists():
        for log in (state / "logs").glob("*.log"):
            log.unlink()
