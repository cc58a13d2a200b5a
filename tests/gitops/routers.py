"""Real routers in place of those in simulated pods, so that policies and external tiers can be what they say.

Each pod that a simulated kubelet made ready gets an address of this machine and a router with the pod's own arguments;
its files are what the pod's volumes would show, and follow the ConfigMap.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster
from e2e.cluster.supervisor import end_with
from e2e.operator_process import ROOT
from modeltiers import names

CLIENT_KEYS = ("web", "batch")
EVERY = 0.5
"""Seconds between two looks at the pods."""


class Routers:
    """The routers of one cluster."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster, self.home = cluster, home
        home.mkdir(parents=True)
        (home / "hop").write_bytes(b"k" * 40)
        (home / "key").write_text("key-0123456789")
        keys = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in CLIENT_KEYS]
        (home / "keys").write_text(json.dumps({"keys": keys}))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Routers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for process in self._running.values():
            process.kill()
            process.wait()

    def _run(self) -> None:
        while not self._over.wait(EVERY):
            pods = {pod["metadata"]["uid"]: pod for pod in self._listed("pods")}
            tables = {
                (one["metadata"]["namespace"], one["metadata"]["name"]): one for one in self._listed("configmaps")
            }
            for uid, pod in pods.items():
                if container := _router(pod):
                    self._serve(uid, pod, container, tables)
            for uid in set(self._running) - set(pods):
                process = self._running.pop(uid)
                process.kill()
                process.wait()

    def _listed(self, kind: str) -> list[dict[str, Any]]:
        which = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER}" if kind == "configmaps" else names.LABEL_NAME
        said = self.cluster.kubectl("get", kind, "-A", "-l", which, "-o", "json", check=False).stdout
        return list(json.loads(said)["items"]) if said else []

    def _serve(self, uid: str, pod: Mapping[str, Any], container: Mapping[str, Any], tables: Mapping[Any, Any]) -> None:
        folder = self.home / uid
        volume = next(one["configMap"]["name"] for one in pod["spec"]["volumes"] if one["name"] == "tables")
        found = tables.get((pod["metadata"]["namespace"], volume)) or {}
        _mirror(found.get("data") or {}, folder / "tables")
        if uid not in self._running:
            host = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"  # noqa: S311  no secret
            self._running[uid] = self._start(container["args"], host, folder)
            self._address(pod, host)

    def _start(self, args: list[str], host: str, folder: Path) -> subprocess.Popen[bytes]:
        places = {
            "--table": str(folder / "tables"),
            "--listen": f"{host}:{names.SERVING_PORT}",
            "--admin": f"{host}:{names.ADMIN_PORT}",
            "--keys": str(self.home / "keys"),
            "--hop-key": str(self.home / "hop"),
            "--external-key": str(self.home / "key"),
            "--spool": str(folder / "spool"),
        }
        (folder / "spool").mkdir()
        named = [(flag, places.get(flag, value)) for flag, _, value in (arg.partition("=") for arg in args)]
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "modeltiers.router",
                    *(f"{flag}={value}" if value else flag for flag, value in named),
                ],
                env=os.environ | {"PYTHONPATH": str(ROOT / "operator")},
                stdout=log,
                stderr=log,
                preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 - no orphan after kill -9; nothing is locked in between
            )

    def _address(self, pod: Mapping[str, Any], host: str) -> None:
        """Say where the pod is, and that it became ready there."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        conditions = [{**one, "lastTransitionTime": now} for one in pod["status"]["conditions"]]
        patch = {"status": {"podIP": host, "podIPs": [{"ip": host}], "conditions": conditions}}
        metadata = pod["metadata"]
        where = ("pod", metadata["name"], "-n", metadata["namespace"], "--subresource=status", "--type=merge")
        self.cluster.kubectl("patch", *where, "-p", json.dumps(patch), check=False)


def _router(pod: Mapping[str, Any]) -> dict[str, Any] | None:
    """The router of a ready pod."""
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
    if not ready or pod["metadata"].get("deletionTimestamp"):
        return None
    inside = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    return next((one for one in inside if one["name"] == names.ROUTER_CONTAINER), None)


def _mirror(data: Mapping[str, str], folder: Path) -> None:
    """Have a folder show what a ConfigMap holds."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in data:
            path.unlink()
    for name, text in data.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            fresh = folder.with_name(f".{name}")
            fresh.write_text(text)
            fresh.replace(path)


class _Models(BaseHTTPRequestHandler):
    """An external API as far as the operator asks it: which models there are."""

    def do_GET(self) -> None:
        """List the models of the examples."""
        models = ("gpt-5", "large", "text-embedding-3-small")
        body = json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in models]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Nothing to standard error."""


@contextlib.contextmanager
def external_api() -> Iterator[str]:
    """Run the external API; gives its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Models)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
