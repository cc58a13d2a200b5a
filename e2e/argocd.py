"""A real Argo CD beside a control plane: its controllers and its API as processes, a Git repository as a folder.

It runs as an administrator's Argo CD would; nothing of it runs in the cluster. It knows nothing of our resources.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import binaries, crds
from e2e.cluster import kubeconfig as kubeconfigs
from e2e.cluster.cluster import Cluster
from e2e.cluster.process import wait_until
from e2e.cluster.report import HarnessError
from e2e.cluster.supervisor import end_with

NAMESPACE = "argocd"
CRDS = ("application", "appproject", "applicationset")
PART = {"app.kubernetes.io/part-of": "argocd"}
WRAPPERS = ("git-verify-wrapper.sh", "gpg-wrapper.sh")


class GitRepository:
    """A Git repository in a folder, which Argo CD reads by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self._git("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        """What an Application says."""
        return f"file://{self.path}"

    def commit(self, files: Mapping[str, str | None], message: str = "change") -> str:
        """Write files, delete those that are None, and commit; returns the revision."""
        for name, text in files.items():
            path = self.path / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message", message)
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *args: str) -> str:
        who = {f"GIT_{role}_{what}": "tests" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *args], cwd=self.path, env=os.environ | who | own, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise HarnessError(f"git {' '.join(args)} failed: {done.stderr}")
        return done.stdout


class ArgoCD:
    """Argo CD's repo server, application controller, ApplicationSet controller and API, over one cluster."""

    def __init__(self, cluster: Cluster, home: Path, config: Mapping[str, str] | None = None) -> None:
        """`config` are further keys of the ConfigMap argocd-cm."""
        self.cluster, self.home = cluster, home
        self._config = dict(config or {})
        self._programs = binaries.argocd()
        self._module = crds.argo_cd()
        self._ports = {name: _free_port() for name in ("redis", "repo", "api", *(f"other{n}" for n in range(6)))}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> ArgoCD:
        for folder in ("home", "tmp", "bin", "logs"):
            (self.home / folder).mkdir(parents=True)
        for name in WRAPPERS:  # as they lie in Go's cache they cannot be executed
            shutil.copyfile(self._module / "hack" / name, self.home / "bin" / name)
            (self.home / "bin" / name).chmod(0o755)
        self._install()
        try:
            self._start_all()
        except BaseException:
            self.close()  # nobody else would: without an entered block there is no exit
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                continue
            process.kill()
            process.wait()

    # -- use -----------------------------------------------------------------------------------------------------

    def cli(self, *args: str, check: bool = True) -> str:
        """Run the argocd command line against this Argo CD and return what it prints; unchecked, its errors too."""
        done = self._cli(*args)
        if check and done.returncode:
            raise HarnessError(f"argocd {' '.join(args)} failed:\n{done.stderr}{done.stdout}")
        return done.stdout if check else done.stdout + done.stderr

    def app(self, name: str, *, refresh: bool = False) -> dict[str, Any]:
        """An Application as the API tells it, empty if there is none; `refresh` looks past every cache first."""
        done = self._cli("app", "get", name, "-o", "json", *(["--hard-refresh"] if refresh else []))
        if done.returncode:  # the API does not tell who may not read from what is not
            if "PermissionDenied" in done.stderr or "NotFound" in done.stderr:
                return {}
            raise HarnessError(f"argocd app get {name} failed:\n{done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def health(self, name: str) -> dict[tuple[str, str], tuple[str, str]]:
        """Health and message of everything that an Application took from Git, by kind and name."""
        listed = self.app(name).get("status", {}).get("resources") or ()
        found = {(one["kind"], one["name"]): one.get("health") or {} for one in listed}
        return {key: (said.get("status", ""), said.get("message", "")) for key, said in found.items()}

    def logs(self, name: str, lines: int = 40) -> str:
        """The end of a component's log."""
        return "\n".join((self.home / "logs" / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    # -- inside --------------------------------------------------------------------------------------------------

    def _cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        where = ("--server", f"127.0.0.1:{self._ports['api']}", "--plaintext")
        return subprocess.run(
            [self._programs["argocd"], *args, *where],
            env=self._env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            preexec_fn=end_with(os.getpid()),  # else it waits for ever for a server that is gone
        )

    def _install(self) -> None:
        for name in CRDS:
            self.cluster.kubectl("apply", "--server-side", "-f", str(self._module / f"manifests/crds/{name}-crd.yaml"))
        served = [f"{name}s.argoproj.io" for name in CRDS]
        wait_until(lambda: self._served(served), "Argo CD's kinds to be served", timeout=60, poll=0.5)
        self.cluster.create_namespace(NAMESPACE)
        key = {"server.secretkey": secrets.token_urlsafe(32)}
        objects: list[dict[str, Any]] = [
            _object("v1", "ConfigMap", "argocd-cm", data=self._config),
            _object("v1", "ConfigMap", "argocd-rbac-cm", data={}),
            _object("v1", "Secret", "argocd-secret", stringData=key),
        ]
        everywhere = {"sourceRepos": ["*"], "destinations": [{"namespace": "*", "server": "*"}]}
        everywhere |= {"clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}
        objects.append(_object("argoproj.io/v1alpha1", "AppProject", "default", spec=everywhere))
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    def _served(self, kinds: list[str]) -> bool:
        return self.cluster.kubectl("get", ",".join(kinds), "-A", check=False).returncode == 0

    def _env(self, component: str = "argocd") -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
        return kept | {
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.home / "home"),
            "TMPDIR": str(self.home / "tmp"),
            "KUBECONFIG": str(self._kubeconfig()),
            "ARGOCD_BINARY_NAME": component,
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_CONTROLLER_REPLICAS": "1",
        }

    def _kubeconfig(self) -> Path:
        path = self.home / "kubeconfig"
        if not path.exists():
            view = yaml.safe_load(self.cluster.kubeconfig.read_text())
            kubeconfigs.write(path, "argocd", view["clusters"][0]["cluster"], view["users"][0]["user"], NAMESPACE)
        return path

    def _start_all(self) -> None:
        ports = {name: str(port) for name, port in self._ports.items()}
        redis, repo = f"127.0.0.1:{ports['redis']}", f"127.0.0.1:{ports['repo']}"
        repo_server = ("--repo-server", repo, "--repo-server-plaintext")
        self._start("argocd-redis", redis, program="argocd-redis")
        self._wait("argocd-redis", "redis")
        plain = ("--disable-tls", "--client-ca-path=", "--metrics-port", ports["other0"])
        fresh = ("--revision-cache-expiration", "1s")  # a commit shall be seen at once
        self._start(
            "argocd-repo-server", "--redis", redis, "--address", "127.0.0.1", "--port", ports["repo"], *plain, *fresh
        )
        own = ("--kubeconfig", str(self._kubeconfig()), "--namespace", NAMESPACE)
        controller = ("--metrics-port", ports["other1"], "--self-heal-timeout-seconds", "1")
        self._start("argocd-application-controller", "--redis", redis, *repo_server, *own, *controller)
        here = [f"--{what}-addr=127.0.0.1:{ports[port]}" for what, port in _APPSET_PORTS]
        appset = ("--argocd-repo-server", repo, "--repo-server-plaintext", *here)
        self._start("argocd-applicationset-controller", *own, *appset)
        api = ("--port", ports["api"], "--address", "127.0.0.1", "--metrics-port", ports["other5"], "--insecure")
        self._start("argocd-server", "--redis", redis, *repo_server, *own, *api, "--disable-auth")
        self._wait("argocd-repo-server", "repo")
        self._wait("argocd-server", "api")

    def _start(self, name: str, *args: str, program: str = "argocd") -> None:
        with (self.home / "logs" / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [self._programs[program], *args],
                env=self._env(name),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 - no orphan after kill -9, no threads here
            )

    def _wait(self, name: str, port: str, timeout: float = 120) -> None:
        """Wait until a component listens."""
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._ports[port]), timeout=1):
                return
            if self._processes[name].poll() is not None or time.monotonic() > end:
                raise HarnessError(f"{name} does not listen:\n{self.logs(name)}")
            time.sleep(0.1)


_APPSET_PORTS = (("metrics", "other2"), ("probe", "other3"), ("webhook", "other4"))


def _object(version: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": PART}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
