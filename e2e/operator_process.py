"""Runs the operator as its own program against a cluster, under its own ServiceAccount, never as admin.

For the demo, the tests on a control plane and the benchmark. The process ends with its parent.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from e2e.ask import ask
from e2e.cluster.report import HarnessError
from e2e.cluster.supervisor import end_with

ROOT = Path(__file__).parents[1]
NAMESPACE = "modeltiers-system"
ACCOUNT = "modeltiers-operator"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
CRDS = tuple(f"{plural}.modeltiers.dev" for plural in ("modeltiers", "routingpolicies", "distilljobs"))


class Reaches(Protocol):
    """The part of a cluster that is needed here; our own and a user's both have it."""

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:  # noqa: A002  as in subprocess.run
        """Run kubectl as the administrator."""
        ...

    def wait_established(self, *crds: str) -> None:
        """Wait until CustomResourceDefinitions are served."""
        ...

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig of a ServiceAccount."""
        ...


def install(cluster: Reaches, *, namespaced: bool = False) -> None:
    """Apply the CRDs and the operator's ServiceAccount and rights, as a user would."""
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.wait_established(*CRDS)
    if not namespaced:
        cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests/rbac.yaml"))


class OperatorProcess:
    """One replica of the operator."""

    def __init__(
        self,
        cluster: Reaches,
        home: Path,
        *,
        name: str = "operator-0",
        settings: Mapping[str, Any] | None = None,
        kubeconfig: Path | None = None,
        namespace: str = NAMESPACE,
    ) -> None:
        self.name = name
        self.port = _free_port()
        self.log = home / f"{name}.log"
        home.mkdir(parents=True, exist_ok=True)
        self._env = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'operator'}",
            "MODELTIERS_KUBECONFIG": str(kubeconfig or cluster.service_account_kubeconfig(namespace, ACCOUNT)),
            "MODELTIERS_IDENTITY": name,
            "MODELTIERS_NAMESPACE": namespace,
            "MODELTIERS_PORT": str(self.port),
        }
        if settings is not None:
            path = home / f"{name}-settings.yaml"
            path.write_text(yaml.safe_dump(dict(settings)))
            self._env["MODELTIERS_SETTINGS"] = str(path)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True, tied: bool = True) -> OperatorProcess:
        """Start the program and wait until it has the whole picture; tied, it ends with this process."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "modeltiers.controllers"]
            self._process = subprocess.Popen(
                command,
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=not tied,
                preexec_fn=end_with(os.getpid()) if tied else None,  # noqa: PLW1509 - no orphan after kill -9, no threads here
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout: float = 30) -> None:
        """Wait for /readyz."""
        end = time.monotonic() + timeout
        while self.get("/readyz")[0] != 200:
            if self.process.poll() is not None:
                raise HarnessError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > end:
                raise HarnessError(f"{self.name} is not ready: {self.get('/readyz')[1]}\n{self.tail()}")
            time.sleep(0.05)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    def get(self, path: str) -> tuple[int, str]:
        """Ask the health server; status 0 when it does not answer."""
        return ask(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def rss_mib(self) -> float:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, timeout: float = 15) -> float:
        """Ask it to end; returns the seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise HarnessError(f"{self.name} did not end within {timeout} s of SIGTERM:\n{self.tail()}") from None
        return time.monotonic() - began

    def kill(self) -> None:
        """End it at once, as a node that dies would."""
        self.process.kill()
        self.process.wait()

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> OperatorProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it if it still runs: politely, then not."""
        if self._process and self._process.poll() is None:
            self.signal(signal.SIGCONT)  # a sleeper does not hear the rest
            with contextlib.suppress(HarnessError):
                self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
