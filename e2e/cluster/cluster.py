"""The cluster as one object: bring it up, break parts of it, take it down.

Decides the order in which things start. It refuses to keep anything in memory that `down` would need: pids, ports
and paths are read from the state directory, so any process can end a cluster that another one started.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import signal
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from e2e.cluster import binaries, kwok, layout, ports
from e2e.cluster.api import Api
from e2e.cluster.audit import Request, requests
from e2e.cluster.control_plane import APISERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, ControlPlane
from e2e.cluster.kubectl import Kubectl, Reachable
from e2e.cluster.kwok import NodePool
from e2e.cluster.layout import Layout
from e2e.cluster.process import Processes, Program, tail, wait_until
from e2e.cluster.report import HarnessError, Stopwatch
from e2e.cluster.supervisor import private

COMPONENTS = (ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER, kwok.KWOK)


class Cluster(Reachable):
    """A control plane with fake GPU nodes, in one state directory.

    `tied` clusters end with the process that brought them up, even when that is killed; others run until `down`.
    `start_delay` is how many seconds a fake pod takes to become ready.
    """

    def __init__(
        self,
        state: Path,
        *,
        name: str | None = None,
        bin_dir: Path | None = None,
        release: str | None = None,
        tied: bool = False,
        pools: Iterable[NodePool] = (),
        start_delay: float = 0,
    ) -> None:
        self.state = state.resolve()
        self.name = name or self.state.name
        self.bin_dir = bin_dir
        self.release = release or binaries.chosen_release()
        self.tied = tied
        self.pools = tuple(pools)
        self.start_delay = start_delay
        self.timing = Stopwatch()
        self._processes = Processes(self.state, self.state / "logs")

    # -- up and down ---------------------------------------------------------------------------------------------

    def up(self) -> Cluster:
        """Start whatever does not run yet and wait until the cluster serves."""
        self.timing = Stopwatch()
        layout.prepare(self.state)
        with self._alone():
            if not self._processes.supervised():
                self._lay_foundation()
            self._start(ETCD, APISERVER)
            self._wait_ready(ETCD, APISERVER)
            self.timing.mark("etcd and API server ready")
            # Not earlier: without the bootstrap roles the controller manager ends, and nothing would start it again.
            self._start(CONTROLLER_MANAGER, SCHEDULER, kwok.KWOK)
            self._create_nodes(self.pools)
            self.timing.mark("nodes created")
            self._wait_ready(CONTROLLER_MANAGER)
            self.timing.mark("ServiceAccount default exists")
            self._wait_ready(SCHEDULER, kwok.KWOK)
            self._wait_nodes(self.pools)
            self.timing.mark("scheduler and nodes ready")
        return self

    def down(self) -> tuple[str, ...]:
        """End every process of this state directory and delete what `up` made, but for the logs; say what ended."""
        if not self.state.is_dir():
            return ()
        with self._alone():
            ended = self._processes.end()
            if layout.load(self.state):
                for entry in layout.MADE_HERE:
                    path = self.state / entry
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.__dict__.pop("_layout", None)
        self.__dict__.pop("_api", None)
        return ended

    def __enter__(self) -> Cluster:
        try:
            return self.up()
        except BaseException:
            self.down()  # nobody else would: without an entered block there is no exit
            raise

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- faults --------------------------------------------------------------------------------------------------

    def stop(self, component: str, number: int = signal.SIGKILL) -> None:
        """End one component and wait until it has ended; it stays away until `start`."""
        self._processes.stop(self._known(component), number)

    def start(self, component: str) -> None:
        """Start one component and wait until it serves."""
        self._start(self._known(component))
        self._wait_ready(component)

    def restart(self, component: str) -> None:
        """End one component, start it again, wait until it serves."""
        self.stop(component)
        self.start(component)

    def kill(self, component: str, number: int = signal.SIGKILL) -> None:
        """Send one component a signal and wait for nothing; SIGSTOP and SIGCONT make a component that hangs."""
        self._processes.send(self._known(component), number)

    # -- use -----------------------------------------------------------------------------------------------------

    @property
    def context(self) -> str:
        """The name of the administrator's context."""
        return self._layout.context

    @property
    def server(self) -> str:
        """The address of the API."""
        return self._layout.server

    @property
    def audit_log(self) -> Path:
        """Every request with its user, as JSON lines."""
        return self.state / "logs" / "audit.log"

    @property
    def as_admin(self) -> Kubectl:
        """The administrator's kubectl."""
        return Kubectl(self._layout.binaries["kubectl"], self._layout.kubeconfig("admin"), self._layout.config)

    def requests(self, user: str | None = None) -> list[Request]:
        """Return the requests answered so far, from the audit log; `Request.writes` picks out the changes."""
        return requests(self.audit_log, user)

    def logs(self, component: str, lines: int = 40) -> str:
        """Return the end of one component's log."""
        return tail(self.state / "logs" / f"{self._known(component)}.log", lines)

    def status(self) -> dict[str, int | None]:
        """Return the pid of every component, None for one that does not run."""
        living = self._processes.living()
        return {name: living.get(name) for name in ("supervisor", *COMPONENTS)}

    # -- nodes ---------------------------------------------------------------------------------------------------

    def add_pool(self, pool: NodePool) -> None:
        """Add fake nodes and wait until pods can be scheduled onto them; existing ones are left alone."""
        self._create_nodes([pool])
        self._wait_nodes([pool])

    def remove_node(self, name: str) -> None:
        """Take a node away as a cloud does: its object goes, and its pods with it."""
        self.kubectl("delete", "node", name)
        self.kubectl("delete", "pods", "-A", f"--field-selector=spec.nodeName={name}", "--force", "--grace-period=0")

    def cordon(self, name: str, cordoned: bool = True) -> None:
        """Close a node for new pods, or open it again."""
        self.kubectl("cordon" if cordoned else "uncordon", name)

    def drain(self, name: str) -> None:
        """Close a node and evict its pods, obeying disruption budgets, as an administrator would."""
        self.kubectl("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")

    # -- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _layout(self) -> Layout:
        found = layout.load(self.state)
        if found is None:
            way_out = f"python -m e2e.cluster up --name {self.name}"
            raise HarnessError(f"no cluster in {self.state}; start one with `{way_out}`")
        return found

    @cached_property
    def _api(self) -> Api:
        return Api(self._layout.pki)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one `up` or `down` at a time work on a state directory."""
        with open(self.state / ".lock", "w", opener=private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _lay_foundation(self) -> None:
        """Lay out a new cluster, or one whose supervisor is gone, and start its supervisor."""
        self._processes.end()
        programs = binaries.resolve(self.release, self.bin_dir)
        self.timing.mark("programs found")
        before = layout.load(self.state)
        chosen, hold = ports.claim(before.ports.base if before else None)
        with hold:
            made = Layout(self.state, self.name, chosen, programs)
            made.save()
            self._write_credentials(made)
            self._processes.supervise(hold, self.tied)
        self.timing.mark("supervisor runs")

    def _write_credentials(self, made: Layout) -> None:
        from e2e.cluster import pki  # late: `down` and `status` need no cryptography, and its import takes a while

        pki.make(made.pki)
        self.__dict__["_layout"] = made
        self.__dict__.pop("_api", None)
        self._control_plane().write_config()
        kwok.write_stages(made, round(self.start_delay * 1000))
        self.timing.mark("certificates and kubeconfigs written")

    def _control_plane(self) -> ControlPlane:
        return ControlPlane(self._layout, self._api)

    def _program(self, component: str) -> Program:
        plane = self._control_plane()
        match component:
            case "etcd":
                return plane.etcd()
            case "kube-apiserver":
                return plane.apiserver()
            case "kube-controller-manager":
                return plane.controller_manager()
            case "kube-scheduler":
                return plane.scheduler()
            case _:
                return kwok.program(self._layout)

    def _known(self, component: str) -> str:
        if component not in COMPONENTS:
            raise HarnessError(f"no component is called {component!r}; there are {', '.join(COMPONENTS)}")
        return component

    def _start(self, *components: str) -> None:
        for component in components:
            self._processes.start(self._program(component))

    def _wait_ready(self, *components: str) -> None:
        self._processes.wait_ready(self._program(component) for component in components)

    def _create_nodes(self, pools: Iterable[NodePool]) -> None:
        wanted = [node for pool in pools for node in pool.nodes()]
        have = {node["metadata"]["name"] for node in self._nodes()} if wanted else set()
        missing = [node for node in wanted if node["metadata"]["name"] not in have]
        if missing:
            self.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": missing}))

    def _wait_nodes(self, pools: Iterable[NodePool]) -> None:
        wanted = {node["metadata"]["name"] for pool in pools for node in pool.nodes()}

        def schedulable() -> bool:
            open_nodes = {
                node["metadata"]["name"]
                for node in self._nodes()
                if not any(taint["key"].startswith("node.kubernetes.io/") for taint in node["spec"].get("taints", ()))
            }
            return wanted <= open_nodes

        if wanted:
            wait_until(schedulable, f"the nodes {', '.join(sorted(wanted))} to be ready; see {self.state / 'logs'}")

    def _nodes(self) -> list[dict[str, Any]]:
        answer = self._api.get_json(self._layout.ports.apiserver, "/api/v1/nodes")
        return answer["items"] if answer else []
