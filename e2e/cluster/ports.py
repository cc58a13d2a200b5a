"""Choose loopback ports for one cluster, so that clusters started in the same second never meet.

A block of ports is claimed by binding an abstract socket named after it: one owner at a time, freed by the kernel
with its last holder, no file to clean. Blocks lie below the ports that the kernel hands to outgoing connections.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from e2e.cluster.report import HarnessError

BLOCK = 16
BLOCKS = range(20000, 30000, BLOCK)


@dataclass(frozen=True)
class Ports:
    """The ports of one cluster, counted from the first of its block."""

    base: int

    @property
    def etcd(self) -> int:
        """Clients of etcd: the API server."""
        return self.base

    @property
    def etcd_peer(self) -> int:
        """etcd insists on a peer address, also alone."""
        return self.base + 1

    @property
    def apiserver(self) -> int:
        """The Kubernetes API."""
        return self.base + 2

    @property
    def controller_manager(self) -> int:
        """Health of the controller manager."""
        return self.base + 3

    @property
    def scheduler(self) -> int:
        """Health of the scheduler."""
        return self.base + 4

    @property
    def kwok(self) -> int:
        """Health of kwok."""
        return self.base + 5

    @property
    def kubelet(self) -> int:
        """Health of a real node's kubelet."""
        return self.base + 6

    @property
    def kube_proxy(self) -> int:
        """Health of a real node's Service rules."""
        return self.base + 7

    @property
    def dns(self) -> int:
        """Readiness of the cluster's DNS."""
        return self.base + 8


def claim(preferred: int | None = None) -> tuple[Ports, socket.socket]:
    """Claim a free block, the preferred one if it can be had; it is held while the returned socket is open."""
    order = random.SystemRandom().sample(BLOCKS, len(BLOCKS))
    for base in ([preferred] if preferred else []) + order:
        holder = _hold(base)
        if holder is None:
            continue
        if _all_free(range(base, base + BLOCK)):
            return Ports(base), holder
        holder.close()
    raise HarnessError(f"no block of {BLOCK} free ports between {BLOCKS.start} and {BLOCKS.stop} on 127.0.0.1")


def _hold(base: int) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0modeltiers-ports-{base}")
    except OSError:
        holder.close()
        return None
    return holder


def _all_free(ports: Iterable[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            # As Go's listeners do: a connection of an earlier owner in TIME_WAIT is no obstacle, a listener is.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
