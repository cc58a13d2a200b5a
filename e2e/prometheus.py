"""A real Prometheus that scrapes what a test names, and answers queries; and promtool.

It keeps its data in a folder of the caller's and ends with this process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from e2e.ask import ask
from e2e.cluster import binaries
from e2e.cluster.report import HarnessError
from e2e.cluster.supervisor import end_with

INTERVAL = 1
"""Seconds between scrapes."""


@dataclass(frozen=True)
class Target:
    """Something to scrape: HOST:PORT and path, and the labels that a PodMonitor would add."""

    address: str
    path: str = "/metrics"
    labels: Mapping[str, str] = field(default_factory=dict)


class Prometheus:
    """A running server."""

    def __init__(self, home: Path, targets: Sequence[Target]) -> None:
        self._home, self._targets = home, targets
        home.mkdir(parents=True, exist_ok=True)
        self._log = home / "prometheus.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"

    def __enter__(self) -> Self:
        program = binaries.prometheus()["prometheus"]
        config = self._home / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        command = [str(program), f"--config.file={config}", f"--storage.tsdb.path={self._home / 'data'}"]
        command += [f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 - no orphan after kill -9, no threads here
            )
        try:
            self._until(lambda: self._get("/-/ready") is not None, "it is not ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an instant query gives; raises HarnessError when Prometheus refuses it."""
        said = self._ask("/api/v1/query", query=expression)
        result = said["result"]
        return list(result) if said["resultType"] != "scalar" else [{"metric": {}, "value": result}]

    def parse(self, expression: str) -> dict[str, Any]:
        """Return the syntax tree of an expression; raises HarnessError when it is none."""
        return dict(self._ask("/api/v1/parse_query", query=expression))

    def scraped(self, times: int, seconds: float = 60) -> None:
        """Wait until every target was scraped so many more times, and well."""
        began = time.time()

        def enough() -> bool:
            self._well()
            found = self.query(f"sum_over_time(up[{max(1, int(time.time() - began))}s])")
            return len(found) == len(self._targets) and all(float(one["value"][1]) >= times for one in found)

        self._until(enough, "not every target was scraped", seconds)

    def _well(self) -> None:
        for one in self._ask("/api/v1/targets")["activeTargets"]:
            # A name that is served twice, or a type that does not fit, is told here and nowhere else.
            if one["health"] == "down":
                raise HarnessError(f"{one['scrapeUrl']} cannot be scraped: {one['lastError']}")

    def _config(self) -> dict[str, Any]:
        jobs = [
            {
                "job_name": f"target-{number}",
                "honor_labels": True,
                "metrics_path": target.path,
                "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
            }
            for number, target in enumerate(self._targets)
        ]
        paces = {"scrape_interval": f"{INTERVAL}s", "scrape_timeout": f"{INTERVAL}s"}
        return {"global": paces, "scrape_configs": jobs}

    def _ask(self, path: str, **query: str) -> Any:
        said = self._get(path, **query)
        if said is None or said.get("status") != "success":
            raise HarnessError(f"Prometheus does not take {query}: {said}")
        return said["data"]

    def _get(self, path: str, **query: str) -> Any:
        """Ask the server; None when it does not answer, an empty dict where it says no JSON."""
        status, body = ask(f"{self.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else ""), timeout=10)
        if status not in (200, 400, 422):
            return None
        return json.loads(body) if body.startswith("{") else {}

    def _until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if self._process.poll() is not None or time.monotonic() > end:
                raise HarnessError(f"{what} within {seconds:.0f} s: {self._log.read_text()[-2000:]}")
            time.sleep(0.1)


def promtool(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool in a folder."""
    command = [str(binaries.prometheus()["promtool"]), *arguments]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, check=False, timeout=120)
