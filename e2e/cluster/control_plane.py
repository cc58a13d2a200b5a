"""Say how etcd and the three Kubernetes control plane programs are started, and when each one serves.

Everything listens on 127.0.0.1 and speaks TLS. The switches are the ones a kubeadm cluster has, plus an audit log of
every request; starting them in the right order is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml

from e2e.cluster import kubeconfig as kubeconfigs
from e2e.cluster.api import Api
from e2e.cluster.layout import Layout
from e2e.cluster.process import Program
from e2e.cluster.realnode import ADDRESS
from e2e.cluster.supervisor import write_private

ETCD, APISERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
PROGRAMS = (ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER)

# No host listens there (TEST-NET-1): endpoints refuse a loopback address, and fake nodes call nobody.
ADVERTISED = "192.0.2.1"
SERVICES = "10.96.0.0/16"
PODS = "10.128.0.0/9"  # room for 32,768 nodes of 254 pods, so that scale tests do not run out

AUDIT_POLICY = MappingProxyType(
    {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }
)


@dataclass(frozen=True)
class ControlPlane:
    """The programs of one cluster's control plane."""

    layout: Layout
    api: Api

    def write_config(self) -> None:
        """Write what the programs read: kubeconfigs and the audit policy."""
        layout = self.layout
        cluster = {
            "server": layout.server,
            "certificate-authority-data": kubeconfigs.encoded(layout.pki / "ca.crt"),
        }
        of_node = ("kubelet", "kube-proxy", "coredns", "network-policies") if layout.node else ()
        for client in ("admin", CONTROLLER_MANAGER, SCHEDULER, "kwok", *of_node):
            user = kubeconfigs.by_certificate(layout.pki, client)
            kubeconfigs.write(layout.kubeconfig(client), layout.context, cluster, user)
        write_private(layout.config / "audit-policy.yaml", yaml.safe_dump(dict(AUDIT_POLICY)))

    def etcd(self) -> Program:
        """Describe the store. It does not sync to disk: a test cluster's data need not survive a power cut."""
        ports, pki = self.layout.ports, self.layout.pki
        client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
        flags = {
            "data-dir": self.layout.state / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "warn",
        }
        for prefix in ("", "peer-"):
            flags |= {
                f"{prefix}cert-file": pki / "etcd.crt",
                f"{prefix}key-file": pki / "etcd.key",
                f"{prefix}trusted-ca-file": pki / "ca.crt",
                f"{prefix}client-cert-auth": "true",
            }
        argv = self._argv(ETCD, flags, "--unsafe-no-fsync")
        return Program(ETCD, argv, lambda: self.api.answers(ports.etcd, "/health"))

    def apiserver(self) -> Program:
        """Describe the API server: authorization by Node and RBAC, default admission, an audit log as JSON lines."""
        ports = self.layout.ports
        flags = {
            "secure-port": ports.apiserver,
            **self._reachable(),
            "service-cluster-ip-range": SERVICES,
            "authorization-mode": "Node,RBAC",
            # The second is OpenShift's: who names an owner that a child holds back must have rights on the owner.
            "enable-admission-plugins": "NodeRestriction,OwnerReferencesPermissionEnforcement",
            "allow-privileged": "true",
            **self._apiserver_identity(),
            **self._audit(),
        }
        argv = self._argv(APISERVER, flags)
        return Program(APISERVER, argv, lambda: self.api.answers(ports.apiserver, "/readyz"))

    def controller_manager(self) -> Program:
        """Describe the controller manager with all its default controllers, each under its own ServiceAccount."""
        ports, pki = self.layout.ports, self.layout.pki
        flags = {
            **self._component(CONTROLLER_MANAGER, ports.controller_manager),
            "use-service-account-credentials": "true",
            "service-account-private-key-file": pki / "service-accounts.key",
            "root-ca-file": pki / "ca.crt",
            "cluster-signing-cert-file": pki / "ca.crt",
            "cluster-signing-key-file": pki / "ca.key",
            "allocate-node-cidrs": "true",
            "cluster-cidr": PODS,
            "service-cluster-ip-range": SERVICES,
            "controller-start-interval": "0s",
            # Each of some fifty controllers first asks for a token; at the default 20 a second that takes seconds.
            "kube-api-qps": 500,
            "kube-api-burst": 1000,
        }
        argv = self._argv(CONTROLLER_MANAGER, flags)
        return Program(CONTROLLER_MANAGER, argv, self._service_accounts_appear)

    def scheduler(self) -> Program:
        """Describe the scheduler with its default profile."""
        port = self.layout.ports.scheduler
        argv = self._argv(SCHEDULER, self._component(SCHEDULER, port))
        return Program(SCHEDULER, argv, lambda: self.api.answers(port, "/readyz"))

    def _service_accounts_appear(self) -> bool:
        ports = self.layout.ports
        return self.api.answers(ports.controller_manager, "/healthz") and self.api.answers(
            ports.apiserver, "/api/v1/namespaces/default/serviceaccounts/default"
        )

    def _argv(self, program: str, flags: Mapping[str, Any], *switches: str) -> tuple[str, ...]:
        return (str(self.layout.binaries[program]), *switches, *(f"--{flag}={value}" for flag, value in flags.items()))

    def _component(self, program: str, port: int) -> dict[str, Any]:
        kubeconfig, pki = self.layout.kubeconfig(program), self.layout.pki
        return {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "secure-port": port,
            "tls-cert-file": pki / "server.crt",
            "tls-private-key-file": pki / "server.key",
            "leader-elect": "false",
        }

    def _apiserver_identity(self) -> dict[str, Any]:
        pki = self.layout.pki
        return {
            "etcd-servers": f"https://127.0.0.1:{self.layout.ports.etcd}",
            "etcd-cafile": pki / "ca.crt",
            "etcd-certfile": pki / "etcd-client.crt",
            "etcd-keyfile": pki / "etcd-client.key",
            "client-ca-file": pki / "ca.crt",
            "tls-cert-file": pki / "server.crt",
            "tls-private-key-file": pki / "server.key",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": pki / "service-accounts.pub",
            "service-account-signing-key-file": pki / "service-accounts.key",
            "requestheader-client-ca-file": pki / "front-proxy-ca.crt",
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": pki / "front-proxy-client.crt",
            "proxy-client-key-file": pki / "front-proxy-client.key",
        }

    def _reachable(self) -> dict[str, Any]:
        """Say where the API server is reached, and how it reaches kubelets: in a sandbox, pods and kubelet call it."""
        if not self.layout.node:
            return {
                "bind-address": "127.0.0.1",
                "advertise-address": ADVERTISED,
                "endpoint-reconciler-type": "none",
            }
        pki = self.layout.pki
        return {
            "bind-address": "0.0.0.0",  # noqa: S104 - of the sandbox, which has no way out
            "advertise-address": ADDRESS,
            "kubelet-client-certificate": pki / "kubelet-client.crt",
            "kubelet-client-key": pki / "kubelet-client.key",
            "kubelet-certificate-authority": pki / "ca.crt",
            "kubelet-preferred-address-types": "InternalIP",
        }

    def _audit(self) -> dict[str, Any]:
        return {
            "audit-policy-file": self.layout.config / "audit-policy.yaml",
            "audit-log-path": self.layout.state / "logs" / "audit.log",
            "audit-log-format": "json",
            "audit-log-maxsize": 10_000,  # MB: a rotated log would hide writes from a test that counts them
        }
