"""Find the programs of a cluster, or build them from the pinned Go modules in `e2e/tools`.

The order is: a directory the user names, then the cache, then a build into the cache. Nothing is ever downloaded but
Go modules, by the user's own Go and its own settings. Knows how the programs are called, not what they do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.report import HarnessError, say

TOOLS = Path(__file__).parent.parent / "tools"
RELEASES = {"pinned": "kubernetes", "floor": "kubernetes-floor"}
RELEASE_VARIABLE = "MODELTIERS_KUBERNETES"
DIRECTORY_VARIABLES = ("MODELTIERS_BIN", "KUBEBUILDER_ASSETS")
PROGRESS_EVERY = 15.0


@dataclass(frozen=True)
class Tool:
    """One program: which module pins it, which package it is, and how long a first build takes on two cores."""

    name: str
    module: str
    package: str
    minutes: str
    pin: str = ""  # the module whose version this is, for a program whose main package is ours


def tools(release: str = "pinned") -> tuple[Tool, ...]:
    """Return the programs a cluster of this release consists of."""
    if release not in RELEASES:
        raise HarnessError(f"no Kubernetes release {release!r} is pinned; choose one of {', '.join(RELEASES)}")
    kubernetes, commands = RELEASES[release], "k8s.io/kubernetes/cmd"
    return (
        Tool("kube-apiserver", kubernetes, f"{commands}/kube-apiserver", "3 to 5 min"),
        Tool("kube-controller-manager", kubernetes, f"{commands}/kube-controller-manager", "1 to 2 min"),
        Tool("kube-scheduler", kubernetes, f"{commands}/kube-scheduler", "10 s"),
        Tool("kubectl", kubernetes, f"{commands}/kubectl", "20 s"),
        Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", "25 s"),
        Tool("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", "1 min"),
    )


OURS = "."
PAUSE = Tool("pause", "pause", OURS, "5 s")
"""What holds a pod's namespaces while its containers come and go."""

ENFORCER = Tool("network-policies", "network-policies", OURS, "10 s to 2 min", pin="sigs.k8s.io/kube-network-policies")

HELMS = {
    4: Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm", "2 min"),
    3: Tool("helm3", "helm3", "helm.sh/helm/v3/cmd/helm", "2 min"),
}
"""By major version. Not part of a cluster: the tests of the charts want them."""


PROMETHEUS = tuple(
    Tool(name, "prometheus", f"github.com/prometheus/prometheus/cmd/{name}", "2 to 3 min")
    for name in ("prometheus", "promtool")
)
"""Not part of a cluster: the tests of dashboards and alerts want them. Without the clouds' service discovery."""


def prometheus() -> dict[str, Path]:
    """Return Prometheus and promtool, from a directory that the user names, the cache, or a build."""
    directories = user_directories(None, os.environ)
    return {tool.name: find(tool, directories) or build(tool) for tool in PROMETHEUS}


ACTIONLINT = Tool("actionlint", "actionlint", "github.com/rhysd/actionlint/cmd/actionlint", "30 s")
"""Reads the workflow files."""


def actionlint() -> Path:
    """Return actionlint, from a directory that the user names, the cache, or a build."""
    return find(ACTIONLINT, user_directories(None, os.environ)) or build(ACTIONLINT)


ARGOCD = (
    Tool("argocd", "argocd", "github.com/argoproj/argo-cd/v3/cmd", "5 to 10 min"),
    Tool("argocd-redis", "argocd-redis", OURS, "5 s", pin="github.com/alicebob/miniredis/v2"),
)
"""Every component of Argo CD in one program, and the cache between them: the tests of GitOps want them."""


def argocd() -> dict[str, Path]:
    """Return Argo CD and its cache, from a directory that the user names, the cache, or a build."""
    directories = user_directories(None, os.environ)
    return {tool.name: find(tool, directories) or build(tool) for tool in ARGOCD}


SYFT = Tool("syft", "syft", "github.com/anchore/syft/cmd/syft", "5 to 10 min")
"""Writes what images consist of."""


def syft() -> Path:
    """Return syft, from a directory that the user names, the cache, or a build."""
    return find(SYFT, user_directories(None, os.environ)) or build(SYFT)


ORAS = Tool("oras", "oras", "oras.land/oras/cmd/oras", "1 min")
"""Brings images to a registry."""


def oras() -> Path:
    """Return oras, from a directory that the user names, the cache, or a build."""
    return find(ORAS, user_directories(None, os.environ)) or build(ORAS)


def helm(major: int = 4) -> Path:
    """Return Helm, from a directory that the user names, the cache, or a build."""
    return find(HELMS[major], user_directories(None, os.environ)) or build(HELMS[major])


S3 = Tool("versitygw", "s3", "github.com/versity/versitygw/cmd/versitygw", "1 to 2 min")
"""An S3 server over a folder: the tests of stores want it."""


def s3_server() -> Path:
    """Return the S3 server, from a directory that the user names, the cache, or a build."""
    return find(S3, user_directories(None, os.environ)) or build(S3)


def node_tools(release: str = "pinned", *, enforcer: bool = False) -> tuple[Tool, ...]:
    """Return the programs that a real node takes beyond those of the distribution."""
    kubernetes, commands = RELEASES[release], "k8s.io/kubernetes/cmd"
    return (
        Tool("kubelet", kubernetes, f"{commands}/kubelet", "20 s to 1 min"),
        Tool("kube-proxy", kubernetes, f"{commands}/kube-proxy", "10 s"),
        Tool("coredns", "coredns", OURS, "40 s to 1 min", pin="github.com/coredns/coredns"),
        PAUSE,
    ) + ((ENFORCER,) if enforcer else ())


def chosen_release() -> str:
    """Return the release the environment asks for: the pinned one, or the oldest that is supported."""
    return os.environ.get(RELEASE_VARIABLE, "pinned")


def resolve(
    release: str = "pinned", named: Path | None = None, *, node: bool = False, enforcer: bool = False
) -> dict[str, Path]:
    """Return the path of every program, a real node's too if asked, building what is found nowhere."""
    directories = user_directories(named, os.environ)
    wanted = tools(release) + (node_tools(release, enforcer=enforcer) if node else ())
    found = {tool.name: find(tool, directories) or build(tool) for tool in wanted}
    _warn_of_skew(found, directories)
    return found


def user_directories(named: Path | None, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the directories the user names, first the one on the command line; a wrong one is an error.

    KUBEBUILDER_ASSETS is set for other projects too, so there a missing directory is passed over.
    """
    candidates = [("--bin", named)] if named else []
    candidates += [(name, Path(environment[name])) for name in DIRECTORY_VARIABLES if environment.get(name)]
    for source, directory in candidates:
        if not directory.is_dir() and source != "KUBEBUILDER_ASSETS":
            raise HarnessError(f"{source} names {directory}, which is not a directory")
    return tuple(directory for _, directory in candidates if directory.is_dir())


def find(tool: Tool, directories: tuple[Path, ...]) -> Path | None:
    """Return where a program is without building it: in a named directory, else in the cache."""
    for path in (*(directory / tool.name for directory in directories), cached(tool)):
        if os.access(path, os.X_OK) and path.is_file():
            return path.resolve()
    return None


def cached(tool: Tool) -> Path:
    """Return where the cache holds this program; another pin or other flags are another place."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256()
    for file in sorted((TOOLS / tool.module).iterdir()):
        if file.name in ("go.mod", "go.sum") or (tool.package == OURS and file.suffix == ".go"):
            digest.update(file.read_bytes())
    digest.update("\0".join(flags(tool)).encode())
    return root / "modeltiers" / "tools" / f"{tool.module}-{digest.hexdigest()[:12]}" / tool.name


def version(tool: Tool) -> str:
    """Return the version that the tool's go.mod pins; a program that is all ours has none."""
    if tool.package == OURS and not tool.pin:
        return "of this project"
    text = (TOOLS / tool.module / "go.mod").read_text()
    for path, pinned in re.findall(r"^require (\S+) (v\S+)$", text, re.MULTILINE):
        if f"{tool.pin or tool.package}/".startswith(f"{path}/"):
            return str(pinned)
    raise HarnessError(f"{TOOLS / tool.module / 'go.mod'} does not require the module of {tool.package}")


def flags(tool: Tool) -> tuple[str, ...]:
    """Return the build flags: reproducible, small, and telling the right version.

    The version variables are what a Kubernetes release build sets; without them `/version` says v0.0.0.
    """
    pinned = version(tool)
    stamped: dict[str, str] = {}
    if tool.package.startswith("k8s.io/kubernetes/"):
        major, minor, _ = pinned.removeprefix("v").split(".", 2)
        facts = {"gitVersion": pinned, "gitMajor": major, "gitMinor": minor, "gitCommit": ""}
        facts |= {"gitTreeState": "archive", "buildDate": "1970-01-01T00:00:00Z"}
        packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        stamped = {f"{package}.{name}": fact for package in packages for name, fact in facts.items()}
    if tool.name == "argocd":
        stamped = {"github.com/argoproj/argo-cd/v3/common.version": pinned.removeprefix("v")}
    if tool in HELMS.values():
        stamped = {f"{tool.package.removesuffix('cmd/helm')}internal/version.version": pinned}
    if tool.name == "helm3":  # without it, `helm template` takes the cluster for Kubernetes 1.20
        [minor] = re.findall(r"k8s.io/client-go v0\.(\d+)", (TOOLS / tool.module / "go.mod").read_text())
        for package in ("chartutil", "lint/rules"):
            stamped[f"helm.sh/helm/v3/pkg/{package}.k8sVersionMajor"] = "1"
            stamped[f"helm.sh/helm/v3/pkg/{package}.k8sVersionMinor"] = minor
    if tool == SYFT:
        stamped = {"main.version": pinned.removeprefix("v")}
    if tool.name == "kwok":
        stamped = {"sigs.k8s.io/kwok/pkg/consts.Version": pinned}
    tags = ("-tags", "remove_all_sd,netgo") if tool.module == "prometheus" else ()
    return (
        *tags,
        "-trimpath",
        "-ldflags",
        " ".join(["-s -w", *(f"-X {key}={value}" for key, value in stamped.items())]),
    )


def toolchain(module: str) -> str:
    """Return which Go builds the module: the one at hand, unless its go.mod names a newer one.

    `local` is the rule because a Go that is too old shall say so instead of fetching another one.
    """
    named = re.search(r"^toolchain (\S+)$", (TOOLS / module / "go.mod").read_text(), re.MULTILINE)
    return named.group(1) if named else "local"


def build(tool: Tool) -> Path:
    """Build one program into the cache; of two processes that want it, one builds and the other waits."""
    target = cached(tool)
    if shutil.which("go") is None:
        raise HarnessError(
            f"{tool.name} is not on this machine and neither is Go. Three ways out: install Go "
            f"{_go_version(tool)} or later and run `python -m e2e.cluster build`; name a directory that holds the "
            f"programs with --bin DIR or MODELTIERS_BIN; or set KUBEBUILDER_ASSETS to what envtest has installed"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with exclusively(target.parent, tool.module):
        if not target.exists():
            _build_to(tool, target)
    return target


def _build_to(tool: Tool, target: Path) -> None:
    what = f"building {tool.name} {version(tool)} from source (once, about {tool.minutes} on 2 cores)"
    fresh = target.with_name(f".{tool.name}.{os.getpid()}")
    log = target.with_name(f"{tool.name}.log")
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": toolchain(tool.module)}
    command = ["go", "build", *flags(tool), "-o", str(fresh), tool.package]
    began = said = time.monotonic()
    say(what)
    with log.open("wb") as output:
        builder = subprocess.Popen(
            command, cwd=TOOLS / tool.module, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        with builder:
            while builder.poll() is None:
                if time.monotonic() - said >= PROGRESS_EVERY:
                    said = time.monotonic()
                    say(f"{what} ... {said - began:.0f} s")
                time.sleep(0.1)
    if builder.returncode:
        fresh.unlink(missing_ok=True)
        raise HarnessError(f"cannot build {tool.name} in {TOOLS / tool.module}; {log} ends:\n{log.read_text()[-2000:]}")
    fresh.replace(target)
    log.unlink()
    say(f"built {tool.name} {version(tool)} in {time.monotonic() - began:.0f} s")


@contextmanager
def exclusively(place: Path, what: str) -> Iterator[None]:
    """Let one process at a time make what comes to lie at `place`; whoever has waited shall look again."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds {what}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go_version(tool: Tool) -> str:
    found = re.search(r"^go (\d+\.\d+)", (TOOLS / tool.module / "go.mod").read_text(), re.MULTILINE)
    return found.group(1) if found else "1.26"


def _warn_of_skew(found: Mapping[str, Path], directories: tuple[Path, ...]) -> None:
    """Say when the user's kube-apiserver meets controllers of another release: Kubernetes does not support that."""
    apiserver, manager = found["kube-apiserver"], found["kube-controller-manager"]
    if not directories or apiserver.parent == manager.parent:
        return
    first, second = (_said_version(path) for path in (apiserver, manager))
    if first.rpartition(".")[0] != second.rpartition(".")[0]:
        say(f"warning: kube-apiserver is {first} ({apiserver}), the controller manager {second} ({manager})")


def _said_version(program: Path) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.split()[-1] if said.split() else "unknown"
