"""Say how the programs of a real node are started and when each one serves: runtime, kubelet, Services, DNS.

They run in the cluster's sandbox, so paths and addresses here are those inside it. How the sandbox is made, and the
order in which things start, is the caller's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import distribution, gate, images, sandbox
from e2e.cluster.api import Api
from e2e.cluster.control_plane import PODS
from e2e.cluster.layout import Layout
from e2e.cluster.ports import BLOCK
from e2e.cluster.process import Program
from e2e.cluster.realnode import ADDRESS, BRIDGE, DNS_SERVICE, DOMAIN, KUBELET_PORT, POLICY_QUEUE, RealNode
from e2e.cluster.supervisor import ITSELF, RECORDS, UNTIED, write_private

GATE, CONTAINERD, KUBELET, KUBE_PROXY, COREDNS = "gate", "containerd", "kubelet", "kube-proxy", "coredns"
ENFORCER = "network-policies"
PROGRAMS = (GATE, CONTAINERD, KUBELET, KUBE_PROXY, COREDNS)

RBAC, ROLE = "rbac.authorization.k8s.io", "modeltiers:real-node"
LOOKED_AT = {
    "": ["services", "pods", "namespaces"],
    "discovery.k8s.io": ["endpointslices"],
    "networking.k8s.io": ["networkpolicies"],
}
RUNTIME_SOCKET = "/run/containerd/containerd.sock"
PAUSE_NAME = "pause:1"
STORAGE_CLASS = "node-local"
# The node's own writes, seen inside where its programs look for them.
STORED = {"kubelet": "/var/lib/kubelet", "containerd": "/var/lib/containerd", "log": "/var/log"}
ENVIRONMENT = {"PATH": distribution.SEARCHED}
# Root without this capability cannot lower a score, and then no container starts; it harms nobody who has it.
CONTAINERD_CONFIG = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""
COREFILE = """\
. {{
    bind {address}
    ready 127.0.0.1:{ready}
    errors
    kubernetes {domain} in-addr.arpa {{
        kubeconfig {kubeconfig} {context}
        ttl 5
    }}
}}
"""
# Each new connection of a pod is judged. Upstream's own rules need a kernel that can queue from nftables; these do not.
# The node itself is root and passes: its kubelet probes the pods.
POLICY_RULES = """\
*mangle
:POLICIES - [0:0]
-A POLICIES -m owner --uid-owner 0 -j ACCEPT
-A POLICIES -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A POLICIES -s {pods} -j NFQUEUE --queue-num {queue}
-A POLICIES -d {pods} -j NFQUEUE --queue-num {queue}
-A POSTROUTING -j POLICIES
COMMIT
"""


def programs(node: RealNode | None) -> tuple[str, ...]:
    """Return the names of the processes that a real node adds to a cluster."""
    if node is None:
        return ()
    return (*PROGRAMS, ENFORCER) if node.enforces_policies else PROGRAMS


@dataclass(frozen=True)
class NodePrograms:
    """The programs of one cluster's real node."""

    layout: Layout
    api: Api
    node: RealNode

    # -- what they read ------------------------------------------------------------------------------------------

    def write_plan(self, overlay: Path | None) -> None:
        """Write what the sandbox is made from."""
        for name in STORED:
            (self.layout.storage / name).mkdir(parents=True, exist_ok=True)
        base, digest = self.layout.ports.base, hashlib.sha256(str(self.layout.state).encode()).hexdigest()[:8]
        plan = {
            "name": f"modeltiers-{digest}",
            "hostname": self.node.name,
            "address": ADDRESS,
            "bridge": BRIDGE,
            "overlay": str(overlay) if overlay else None,
            "binds": {target: str(self.layout.storage / name) for name, target in STORED.items()},
            "ports": list(range(base, base + BLOCK)),
        }
        write_private(self.layout.state / sandbox.PLAN, json.dumps(plan, indent=1))

    def write_config(self, overlay: Path | None) -> None:
        """Write the configuration of every program, but for the network of pods, whose range the cluster chooses."""
        config = self.layout.config
        self._networks.mkdir(exist_ok=True)
        # What is laid over the node's /usr is found there at its usual place.
        laid = [
            path for path in distribution.PLUGIN_DIRECTORIES if overlay and (overlay.parent / str(path)[1:]).is_dir()
        ]
        plugins = next(iter(laid), None) or distribution.plugins(distribution.PLUGIN_DIRECTORIES)
        write_private(
            config / "containerd.toml",
            CONTAINERD_CONFIG.format(
                socket=RUNTIME_SOCKET, pause=f"{images.PREFIX}/{PAUSE_NAME}", plugins=plugins, networks=self._networks
            ),
        )
        # Not the host's: pods ask the cluster's DNS, and the node asks nobody.
        write_private(config / "resolv.conf", f"nameserver {ADDRESS}\n")
        write_private(config / "kubelet.yaml", yaml.safe_dump(self._kubelet_config()))
        write_private(config / "kube-proxy.yaml", yaml.safe_dump(self._proxy_config()))
        corefile = COREFILE.format(
            address=ADDRESS,
            ready=self.layout.ports.dns,
            domain=DOMAIN,
            kubeconfig=self.layout.kubeconfig(COREDNS),
            context=self.layout.context,
        )
        write_private(config / "Corefile", corefile)
        write_private(config / "policy-rules", POLICY_RULES.format(pods=PODS, queue=POLICY_QUEUE))

    def write_network(self, pods: str) -> None:
        """Give pods addresses from the range that the cluster gave to this node."""
        bridge: dict[str, Any] = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,  # a pod may call the Service that it stands behind itself
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        network = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, portmap]}
        write_private(self._networks / "10-pods.conflist", json.dumps(network, indent=1))

    def objects(self) -> list[dict[str, Any]]:
        """Return what the API server must know: DNS behind its Service, its right to look, a class of local volumes."""
        dns = {"namespace": "kube-system", "name": "kube-dns"}
        ports = [{"name": f"dns-{kind}", "port": 53, "protocol": kind.upper()} for kind in ("udp", "tcp")]
        return [
            _rbac(
                "ClusterRole",
                rules=[
                    {"apiGroups": [group], "resources": kinds, "verbs": ["list", "watch"]}
                    for group, kinds in LOOKED_AT.items()
                ],
            ),
            _rbac(
                "ClusterRoleBinding",
                roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": ROLE},
                subjects=[{"apiGroup": RBAC, "kind": "User", "name": f"system:{who}"} for who in (COREDNS, ENFORCER)],
            ),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": dns,
                "spec": {"clusterIP": DNS_SERVICE, "ports": ports},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": dns | {"labels": {"kubernetes.io/service-name": "kube-dns"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [ADDRESS]}],
                "ports": ports,
            },
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": STORAGE_CLASS},
                "provisioner": "kubernetes.io/no-provisioner",
                "volumeBindingMode": "WaitForFirstConsumer",
            },
        ]

    # -- the programs --------------------------------------------------------------------------------------------

    def gate(self) -> Program:
        """Describe what makes the components answer on the host's loopback, on the same ports as inside."""
        listeners = sandbox.read_record(self.layout.state).get("listeners", {})
        targets = {handle: f"127.0.0.1:{port}" for port, handle in listeners.items()}
        argv = gate.command(gate.HERE, UNTIED, targets)
        return Program(GATE, argv, lambda: _connects(self.layout.ports.base), fds=tuple(targets))

    def containerd(self) -> Program:
        """Describe the container runtime, the distribution's own."""
        argv = ("containerd", "--config", str(self.layout.config / "containerd.toml"))
        return Program(CONTAINERD, argv, self._runtime_answers, ENVIRONMENT)

    def kubelet(self) -> Program:
        """Describe the kubelet; it registers the node with its labels and taints."""
        config = self.layout.config
        flags = {
            "config": config / "kubelet.yaml",
            "kubeconfig": self.layout.kubeconfig(KUBELET),
            "hostname-override": self.node.name,
            "node-ip": ADDRESS,
            "root-dir": STORED["kubelet"],
            "node-labels": ",".join(f"{key}={value}" for key, value in self.node.labels().items()),
        }
        if self.node.taints():
            taints = (f"{taint['key']}={taint['value']}:{taint['effect']}" for taint in self.node.taints())
            flags["register-with-taints"] = ",".join(taints)
        return Program(KUBELET, self._argv(KUBELET, flags), lambda: _healthy(self.layout.ports.kubelet), ENVIRONMENT)

    def proxy(self) -> Program:
        """Describe what writes the rules of Services."""
        flags = {"config": self.layout.config / "kube-proxy.yaml"}
        port = self.layout.ports.kube_proxy
        return Program(KUBE_PROXY, self._argv(KUBE_PROXY, flags), lambda: _healthy(port), ENVIRONMENT)

    def dns(self) -> Program:
        """Describe the cluster's DNS: a process of the node, so it needs no image and waits for no pod."""
        argv = (str(self.layout.binaries[COREDNS]), "-conf", str(self.layout.config / "Corefile"))
        return Program(COREDNS, argv, lambda: _healthy(self.layout.ports.dns, "/ready"), ENVIRONMENT)

    def enforcer(self) -> Program:
        """Describe what judges connections by NetworkPolicies; it serves once the kernel sends it packets."""
        flags = {
            "kubeconfig": self.layout.kubeconfig(ENFORCER),
            "hostname-override": self.node.name,
            "nfqueue-id": POLICY_QUEUE,
        }
        return Program(ENFORCER, self._argv(ENFORCER, flags), self._queue_is_read, ENVIRONMENT)

    def policy_rules(self) -> Program:
        """Describe the loading of the rules that send packets to the enforcer; it ends by itself."""
        argv = ("iptables-restore", "--noflush", str(self.layout.config / "policy-rules"))
        return Program("policy-rules", argv, lambda: True, ENVIRONMENT)

    def loads(self, image: Path) -> Program:
        """Describe the import of an image; it ends by itself."""
        argv = ("ctr", "--namespace", "k8s.io", "images", "import", str(image))
        return Program(f"load-{image.stem}", argv, lambda: True, ENVIRONMENT)

    def forgets(self, reference: str) -> Program:
        """Describe the removal of an image; it ends by itself, when its content is gone, too."""
        argv = ("ctr", "--namespace", "k8s.io", "images", "remove", "--sync", reference)
        return Program(f"forget-{reference.rpartition('/')[2].replace(':', '-')}", argv, lambda: True, ENVIRONMENT)

    def program(self, component: str) -> Program:
        """Describe one of `programs`."""
        return {
            GATE: self.gate,
            CONTAINERD: self.containerd,
            KUBELET: self.kubelet,
            KUBE_PROXY: self.proxy,
            COREDNS: self.dns,
            ENFORCER: self.enforcer,
        }[component]()

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _networks(self) -> Path:
        return self.layout.config / "networks"

    def _argv(self, program: str, flags: dict[str, Any]) -> tuple[str, ...]:
        return (str(self.layout.binaries[program]), *(f"--{flag}={value}" for flag, value in flags.items()))

    def _queue_is_read(self) -> bool:
        records = json.loads((self.layout.state / RECORDS).read_text())
        with contextlib.suppress(OSError, KeyError):
            queues = Path(f"/proc/{records[ITSELF]['pid']}/net/netfilter/nfnetlink_queue").read_text()
            return any(line.split()[0] == str(POLICY_QUEUE) for line in queues.splitlines())
        return False

    def _runtime_answers(self) -> bool:
        records = json.loads((self.layout.state / RECORDS).read_text())
        with contextlib.suppress(OSError, KeyError), socket.socket(socket.AF_UNIX) as wire:
            # The socket lies in a directory that only the sandbox has: reach it through the sandbox's first process.
            wire.connect(f"/proc/{records[ITSELF]['pid']}/root{RUNTIME_SOCKET}")
            return True
        return False

    def _kubelet_config(self) -> dict[str, Any]:
        pki = self.layout.pki
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": KUBELET_PORT,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self.layout.ports.kubelet,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(pki / "kubelet.key"),
            "containerRuntimeEndpoint": f"unix://{RUNTIME_SOCKET}",
            "cgroupDriver": "cgroupfs",  # there is no systemd in a sandbox
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": DOMAIN,
            "resolvConf": str(self.layout.config / "resolv.conf"),
            "volumePluginDir": f"{STORED['kubelet']}/volume-plugins",
            "evictionHard": {
                "memory.available": "100Mi",
                **{f"{place}.available": "1%" for place in ("nodefs", "imagefs")},
                **{f"{place}.inodesFree": "1%" for place in ("nodefs", "imagefs")},
            },
            "imageGCHighThresholdPercent": 100,  # never collect images that nobody can pull again
        }

    def _proxy_config(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": self.node.name,
            "healthzBindAddress": f"127.0.0.1:{self.layout.ports.kube_proxy}",
            "clientConnection": {"kubeconfig": str(self.layout.kubeconfig(KUBE_PROXY))},
            # These limits belong to the whole machine and cannot be written from a sandbox: leave them.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        }


def _rbac(kind: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": ROLE}
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, **fields}


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _healthy(port: int, path: str = "/healthz") -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as wire:
        try:
            wire.request("GET", path)
            return wire.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


def pods_range(node: dict[str, Any] | None) -> str | None:
    """Return the range of addresses that a Node object's pods get; None before it has one."""
    found = (node or {}).get("spec", {}).get("podCIDR")
    return str(found) if found else None


def is_ready(node: dict[str, Any]) -> bool:
    """Tell whether pods are scheduled onto a node: it says that it is ready, and nobody has tainted it as if not."""
    conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", ())}
    taints = [taint["key"] for taint in node.get("spec", {}).get("taints", ())]
    return conditions.get("Ready") == "True" and not any(key.startswith("node.kubernetes.io/") for key in taints)
