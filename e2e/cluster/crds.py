"""CustomResourceDefinitions of other projects, from the pinned Go modules in `e2e/tools`: nothing of them is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from e2e.cluster.binaries import TOOLS, toolchain
from e2e.cluster.report import HarnessError

GATEWAY_API = "sigs.k8s.io/gateway-api"
ARGO_CD = "github.com/argoproj/argo-cd/v3"


def argo_cd() -> Path:
    """Return the directory of Argo CD's module: CustomResourceDefinitions, and scripts that its repo server calls."""
    return module("argocd", ARGO_CD)


def http_routes() -> Path:
    """Return the file with the CustomResourceDefinition of Gateway API's HTTPRoute."""
    return module("gateway-api", GATEWAY_API) / "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"


def module(tool: str, path: str) -> Path:
    """Return the directory of a module in Go's own cache, fetched by the user's own Go if it is not there."""
    if shutil.which("go") is None:
        raise HarnessError(f"{path} comes as a Go module, and there is no Go on this machine: install Go 1.26 or later")
    found = subprocess.run(
        ["go", "mod", "download", "-json", path],
        cwd=TOOLS / tool,
        env=os.environ | {"GOTOOLCHAIN": toolchain(tool)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise HarnessError(f"cannot get {path} as pinned in {TOOLS / tool}: {found.stdout}{found.stderr}")
    return Path(json.loads(found.stdout)["Dir"])
