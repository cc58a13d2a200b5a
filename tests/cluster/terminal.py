"""The command line as a person runs it: its own process, the cluster's kubectl on the PATH, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster

PATIENCE = 240
"""Seconds for one command: each starts Python and several kubectl, and the machine may be busy."""
ROOT = Path(__file__).parents[2]


def project_scripts() -> dict[str, str]:
    """The console scripts that the project installs."""
    found: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return found


@dataclass(frozen=True)
class Terminal:
    """Somebody at a terminal, with a kubeconfig and a namespace; the administrator where none is given."""

    cluster: Cluster
    namespace: str
    home: Path
    kubeconfig: Path | None = None
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *args: str, where: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run the command and wait for its end."""
        config = str(self.kubeconfig or self.cluster.kubeconfig)
        options = ["--kubeconfig", config, "-n", self.namespace] if where else []
        command = [sys.executable, "-m", "modeltiers.cli.main", *args, *options]
        env = {**os.environ, "PATH": self.path, "HOME": str(self.home), **self.env}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=PATIENCE, **more)

    @property
    def path(self) -> str:
        """PATH with the cluster's kubectl, and the command as kubectl's plugin."""
        return f"{self.plugins()}:{self.cluster.as_admin.program.parent}:{os.environ['PATH']}"

    def plugins(self) -> Path:
        """A folder with the programs that an installation puts on the PATH."""
        folder = self.home / "bin"
        for name, target in project_scripts().items():
            module, _, attribute = target.partition(":")
            program = folder / name
            if not program.exists():
                folder.mkdir(parents=True, exist_ok=True)
                program.write_text(
                    f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT / 'operator')!r})\n"
                    f"from {module} import {attribute}\n{attribute}()\n"
                )
                program.chmod(0o755)
        return folder

    def __call__(self, *args: str, code: int = 0, where: bool = True) -> str:
        """Run the command; returns what it says on both streams."""
        done = self.run(*args, where=where)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def data(self, *args: str) -> Any:
        """What it says as JSON."""
        done = self.run(*args, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def shell(self, command: str, code: int = 0) -> str:
        """Run a command line that was proposed, as it stands."""
        env = {
            **os.environ,
            "PATH": self.path,
            "HOME": str(self.home),
            "EDITOR": "true",
            "KUBECONFIG": str(self.kubeconfig or self.cluster.kubeconfig),
        }
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False, env=env, timeout=PATIENCE
        )
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr
