"""Short words for the tests of the charts: Helm of both majors, and what it renders."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import Cluster, binaries

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modeltiers"
CRD_CHART = ROOT / "charts" / "modeltiers-crds"
FIRST = Path(__file__).parent / "fixtures" / "charts" / "modeltiers-0.1.0.tgz"
"""The chart as it was first released; what is installed from it can be upgraded."""
NAMESPACE = "modeltiers-system"
MAJORS = (3, 4)

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Helm:
    """Helm of one major version; with a cluster it works on that, as its administrator."""

    major: int
    cluster: Cluster | None = None

    def __call__(self, *arguments: str, refused: bool = False) -> str:
        """Run it and return what it printed, or what it said when it is to refuse."""
        where = ["--kubeconfig", str(self.cluster.kubeconfig)] if self.cluster else []
        command = [str(binaries.helm(self.major)), *arguments, *where]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode != 0) == refused, f"helm {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr}"
        return done.stderr if refused else done.stdout

    def render(self, *arguments: str, chart: Path = CHART) -> list[Manifest]:
        """The objects that a chart renders to."""
        return documents(self("template", "modeltiers", str(chart), "-n", NAMESPACE, *arguments))


def documents(text: str) -> list[Manifest]:
    """The objects in a stream of YAML documents."""
    return [body for body in yaml.load_all(text, Loader=yaml.CSafeLoader) if body]


def one(found: Sequence[Manifest], kind: str, name: str = "") -> Manifest:
    """The one object of this kind, and name if it is given."""
    [body] = [body for body in found if body["kind"] == kind and name in ("", body["metadata"]["name"])]
    return body
