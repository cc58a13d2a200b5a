"""A real Kubernetes control plane in one command, without a container engine.

`Cluster` starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok as plain processes, and with a
`RealNode` also kubelet, containerd, kube-proxy and DNS, in namespaces that take everything along when they end;
`ExternalCluster` is a cluster the user already has. Neither knows anything of modeltiers.
"""

from e2e.cluster.cluster import Cluster
from e2e.cluster.external import ExternalCluster
from e2e.cluster.kwok import NodePool
from e2e.cluster.realnode import RealNode
from e2e.cluster.report import HarnessError

__all__ = ["Cluster", "ExternalCluster", "NodePool", "RealNode", "HarnessError"]
