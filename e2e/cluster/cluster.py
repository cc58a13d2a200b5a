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

from e2e.cluster import binaries, images, kwok, layout, node, ports, preflight, sandbox
from e2e.cluster.api import Api
from e2e.cluster.audit import Request, requests
from e2e.cluster.control_plane import APISERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, ControlPlane
from e2e.cluster.gate import Gate
from e2e.cluster.kubectl import Kubectl, Reachable
from e2e.cluster.kwok import NodePool
from e2e.cluster.layout import Layout
from e2e.cluster.node import NodePrograms
from e2e.cluster.process import Processes, Program, tail, wait_until
from e2e.cluster.realnode import RealNode
from e2e.cluster.report import HarnessError, Stopwatch
from e2e.cluster.supervisor import ITSELF, private

START_BEFORE = (node.GATE, node.CONTAINERD)
START_AFTER = (node.KUBELET, node.KUBE_PROXY)
COMPONENTS = (ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER, kwok.KWOK)


class Cluster(Reachable):
    """A control plane with fake GPU nodes, in one state directory; with `node`, also a real node that runs pods.

    `tied` clusters end with the process that brought them up, even when that is killed; others run until `down`.
    `start_delay` is how many seconds a fake pod takes to become ready. A real node takes root; see `preflight`.
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
        node: RealNode | None = None,
        start_delay: float = 0,
    ) -> None:
        self.state = state.resolve()
        self._wanted_node = node
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
            before, after = (START_BEFORE, START_AFTER) if self._real else ((), ())
            self._start(*before, ETCD, APISERVER)
            if self._real:
                self._wait_ready(*before)
                self._load_pause()
                self.timing.mark("container runtime ready")
            self._wait_ready(ETCD, APISERVER)
            self.timing.mark("etcd and API server ready")
            # Not earlier: without the bootstrap roles the controller manager ends, and nothing would start it again.
            self._start(CONTROLLER_MANAGER, SCHEDULER, kwok.KWOK, *after)
            self._create_nodes(self.pools)
            self.timing.mark("nodes created")
            self._wait_ready(CONTROLLER_MANAGER)
            self.timing.mark("ServiceAccount default exists")
            self._wait_ready(SCHEDULER, kwok.KWOK)
            self._wait_nodes(self.pools)
            self.timing.mark("scheduler and nodes ready")
            if self._real:
                self._join_real_node()
                self.timing.mark("real node, Services and DNS ready")
        return self

    def down(self) -> tuple[str, ...]:
        """End every process of this state directory and delete what `up` made, but for the logs; say what ended."""
        if not self.state.is_dir():
            return ()
        with self._alone():
            ended = self._processes.end()
            self._leave_sandbox()
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
        if component == node.KUBELET:
            self._advertise()

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

    @property
    def components(self) -> tuple[str, ...]:
        """The processes that this cluster consists of."""
        return (*COMPONENTS, *node.programs(self.node))

    def requests(self, user: str | None = None) -> list[Request]:
        """Return the requests answered so far, from the audit log; `Request.writes` picks out the changes."""
        return requests(self.audit_log, user)

    def logs(self, component: str, lines: int = 40) -> str:
        """Return the end of one component's log."""
        return tail(self.state / "logs" / f"{self._known(component)}.log", lines)

    def status(self) -> dict[str, int | None]:
        """Return the pid of every component, None for one that does not run."""
        living = self._processes.living()
        return {name: living.get(name) for name in (ITSELF, *self.components)}

    # -- the real node -------------------------------------------------------------------------------------------

    @property
    def node(self) -> RealNode | None:
        """The real node of this cluster, if it has one."""
        found = layout.load(self.state)
        return found.node if found else self._wanted_node

    def load_image(self, archive: Path, timeout: float = 300) -> None:
        """Give the real node an image, from an OCI archive; pods use it with `imagePullPolicy: IfNotPresent`."""
        self._processes.run(self._node_programs().loads(archive), timeout=timeout)

    def forget_image(self, reference: str) -> None:
        """Take an image from the real node, and its space; no pod may run it."""
        self._processes.run(self._node_programs().forgets(reference), timeout=120)

    def gate(self, target: str, port: int = 0) -> Gate:
        """Open a port of our loopback that leads to `target`, host:port as the real node reaches it; close it after."""
        return Gate(self._inside(), target, port)

    def gate_to(self, namespace: str, service: str, port: int) -> Gate:
        """Open a port of our loopback that leads to a Service, through the rules that pods go through."""
        address = self.kubectl("get", "service", service, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}").stdout
        return self.gate(f"{address}:{port}")

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
        self._leave_sandbox()
        before = layout.load(self.state)
        real = before.node if before else self._wanted_node
        overlay = preflight.prepare(self.state) if real else None
        programs = binaries.resolve(
            self.release, self.bin_dir, node=real is not None, enforcer=bool(real and real.enforces_policies)
        )
        self.timing.mark("programs found")
        chosen, hold = ports.claim(before.ports.base if before else None)
        with hold:
            made = Layout(self.state, self.name, chosen, programs, real)
            made.save()
            self._write_credentials(made)
            if real:
                self._node_programs().write_plan(overlay)
                self._node_programs().write_config(overlay)
            self._processes.supervise(hold, self.tied, sandboxed=real is not None)
        self.timing.mark("supervisor runs")

    def _leave_sandbox(self) -> None:
        """Wait until the keeper of a sandbox has cleaned up; do it in its place if it is gone."""
        wait_until(lambda: not sandbox.kept(self.state), "the sandbox's keeper to clean up", timeout=15)
        sandbox.clear(self.state)

    def _write_credentials(self, made: Layout) -> None:
        from e2e.cluster import pki  # late: `down` and `status` need no cryptography, and its import takes a while

        pki.make(made.pki)
        if made.node:
            pki.make_node(made.pki, made.node.name)
        self.__dict__["_layout"] = made
        self.__dict__.pop("_api", None)
        self._control_plane().write_config()
        kwok.write_stages(made, round(self.start_delay * 1000))
        self.timing.mark("certificates and kubeconfigs written")

    def _control_plane(self) -> ControlPlane:
        return ControlPlane(self._layout, self._api)

    def _node_programs(self) -> NodePrograms:
        real = self._layout.node
        if real is None:
            raise HarnessError(f"cluster {self.name} has no real node; make it with Cluster(..., node=RealNode())")
        return NodePrograms(self._layout, self._api, real)

    def _program(self, component: str) -> Program:
        if component in node.programs(self.node):
            return self._node_programs().program(component)
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
        if component not in self.components:
            raise HarnessError(f"no component is called {component!r}; there are {', '.join(self.components)}")
        return component

    @property
    def _real(self) -> bool:
        return self.node is not None

    def _start(self, *components: str) -> None:
        for component in components:
            self._processes.start(self._program(component))

    def _wait_ready(self, *components: str) -> None:
        self._processes.wait_ready(self._program(component) for component in components)

    # -- the real node, inside -----------------------------------------------------------------------------------

    def _inside(self) -> int:
        """Return the pid of the sandbox's first process."""
        self._node_programs()
        living = self._processes.living()
        if ITSELF not in living:
            raise HarnessError(f"cluster {self.name} does not run; start it with `up`")
        return living[ITSELF]

    def _load_pause(self) -> None:
        """Give the runtime the image that holds pods; nothing else is needed before the first pod."""
        archive = self._layout.storage / "pause.tar"
        if not archive.exists():
            holder = self._layout.storage / "pause"
            holder.mkdir(exist_ok=True)
            shutil.copy(self._layout.binaries["pause"], holder / "pause")
            (holder / "pause").chmod(0o755)
            image = images.Image(node.PAUSE_NAME, ((holder, "/"),), ("/pause",), user="65535:65535")
            self.load_image(images.write(image, archive))

    def _join_real_node(self) -> None:
        """Wait until the node has its range of addresses, give it a network, and wait until it takes pods."""
        programs = self._node_programs()
        objects = {"apiVersion": "v1", "kind": "List", "items": programs.objects()}
        self.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(objects))
        if programs.node.enforces_policies:
            self._enforce_policies()
        self._start(node.COREDNS)  # not earlier: refused what it asks for, it waits 5 s before it asks again
        name = programs.node.name

        def seen() -> dict[str, Any]:
            found = self._api.get_json(self._layout.ports.apiserver, f"/api/v1/nodes/{name}")
            return found or {}

        wait_until(lambda: node.pods_range(seen()) is not None, f"{name} to get a range of addresses for its pods")
        programs.write_network(node.pods_range(seen()) or "")
        self._wait_ready(*START_AFTER, node.COREDNS)
        self._advertise()
        wait_until(lambda: node.is_ready(seen()), f"{name} to be ready; see {self.state / 'logs'}")

    def _enforce_policies(self) -> None:
        """Let connections of pods be judged; while nobody judges, none is made."""
        self._start(node.ENFORCER)
        self._wait_ready(node.ENFORCER)
        rules = self._node_programs().policy_rules()
        if rules.name not in self._processes.exits():  # once a sandbox: they stay when the enforcer is restarted
            self._processes.run(rules)

    def _advertise(self) -> None:
        """Make the scheduler and the kubelet believe in the node's GPUs."""
        real = self._node_programs().node
        if real.gpus:
            patch = json.dumps(real.advertisement())
            self.kubectl("patch", "node", real.name, "--subresource=status", "--type=json", "-p", patch)

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
