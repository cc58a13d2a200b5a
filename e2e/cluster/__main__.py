"""`python -m e2e.cluster`: a cluster for a person at a terminal.

Reads arguments, calls `Cluster`, says what happened; decides nothing else.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from e2e.cluster import binaries, distribution
from e2e.cluster import node as real_node
from e2e.cluster.cluster import COMPONENTS, Cluster
from e2e.cluster.kwok import NodePool
from e2e.cluster.realnode import RealNode
from e2e.cluster.report import HarnessError, say

ROOT = Path(__file__).parent.parent.parent
DEMONSTRATION = (
    NodePool("h100", 2),
    NodePool("l40s", 2, product="NVIDIA-L40S", memory_mib=46068, gpus=4, memory="1Ti"),
    NodePool("plain", 1, gpus=0),  # for routers that stand before no engine
)
GPUS = 8  # that a real node claims to have
START_DELAY = 1.5  # seconds: long enough for a person to see a pod start


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m e2e.cluster", description=sys.modules[__name__].__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, meaning in (
        ("build", "find or build the programs and say where they are"),
        ("up", "start the cluster, or what of it does not run"),
        ("down", "end the cluster and delete it; the logs stay"),
        ("status", "say what runs"),
        ("logs", "show the end of the logs"),
        ("env", "print the shell line that points kubectl at the cluster"),
    ):
        command = commands.add_parser(name, help=meaning, description=meaning)
        command.add_argument("--name", default="dev", help="the cluster's name (default: dev)")
        command.add_argument("--state", type=Path, help="its state directory (default: .state/NAME)")
        command.add_argument("--bin", type=Path, help="a directory with programs to use before building any")
        command.add_argument("--release", choices=binaries.RELEASES, default=binaries.chosen_release())
        if name in ("build", "up"):
            command.add_argument("--node", action="store_true", help="with a real node that runs pods; takes root")
        if name == "logs":
            command.add_argument("component", nargs="?", choices=(*COMPONENTS, *real_node.PROGRAMS))
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = parser().parse_args(argv)
    state = arguments.state or ROOT / ".state" / arguments.name
    cluster = Cluster(
        state,
        name=arguments.name,
        bin_dir=arguments.bin,
        release=arguments.release,
        pools=DEMONSTRATION,
        node=RealNode(gpus=GPUS) if getattr(arguments, "node", False) else None,
        start_delay=START_DELAY,
    )
    try:
        return int(COMMANDS[arguments.command](cluster, arguments) or 0)
    except HarnessError as error:
        say(f"error: {error}")
        return 1


def build(cluster: Cluster, arguments: argparse.Namespace) -> None:
    """Say where every program is, building what is missing; Helm too, which the tests of the charts want."""
    programs = binaries.resolve(cluster.release, cluster.bin_dir, node=arguments.node)
    programs |= {tool.name: binaries.helm(major) for major, tool in binaries.HELMS.items()}
    if arguments.node:
        programs |= {"packages laid over the node's /usr": overlay} if (overlay := distribution.overlay()) else {}
    for name, path in programs.items():
        print(f"{name}: {path}")


def up(cluster: Cluster, _: argparse.Namespace) -> None:
    """Start the cluster and tell a person how to use it."""
    cluster.up()
    say(f"cluster {cluster.name} runs Kubernetes {cluster.version} in {cluster.state}\n{cluster.timing.table()}")
    env(cluster, _)
    print("kubectl get nodes")


def down(cluster: Cluster, _: argparse.Namespace) -> None:
    """End the cluster."""
    ended = cluster.down()
    say(f"ended {', '.join(ended)}" if ended else f"nothing ran in {cluster.state}")


def status(cluster: Cluster, _: argparse.Namespace) -> int:
    """Say what runs; the exit code is 3 unless everything does."""
    found = cluster.status()
    for name, pid in found.items():
        print(f"{name}: {f'pid {pid}' if pid else 'not running'}")
    return 0 if all(found.values()) else 3


def logs(cluster: Cluster, arguments: argparse.Namespace) -> None:
    """Show the end of one log, or of all."""
    for component in [arguments.component] if arguments.component else cluster.components:
        print(f"==> {cluster.state / 'logs' / component}.log\n{cluster.logs(component)}")


def env(cluster: Cluster, _: argparse.Namespace) -> None:
    """Print the shell line for kubectl."""
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")


COMMANDS = {"build": build, "up": up, "down": down, "status": status, "logs": logs, "env": env}

if __name__ == "__main__":
    sys.exit(main())
