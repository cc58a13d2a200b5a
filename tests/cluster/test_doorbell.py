"""The watches against a real API server that refuses one of them."""

from __future__ import annotations

import subprocess
import sys

from e2e.cluster import Cluster

# A program of its own, as the operator is: kopf takes signals for itself, and does not end when a loop does.
PROGRAM = """
import asyncio, logging, os, sys
from pathlib import Path
from modeltiers.controllers import doorbell
from modeltiers.controllers.store import Store
from modeltiers.kube.session import connect

async def main():
    connection, stop = await connect(Path(sys.argv[1])), asyncio.Event()
    nobody = lambda *_, **__: None
    all_kinds = dict(see_nodes=True, see_policies=True, see_distills=True)
    handlers = doorbell.registry(Store(), nobody, nobody, connection.traced, doorbell.Watches(), **all_kinds)
    watching = asyncio.create_task(doorbell.watch(handlers, [], asyncio.Event(), stop))
    await asyncio.wait_for(stop.wait(), 30)
    print("stopped", flush=True)
    os._exit(0)

logging.basicConfig(level=logging.ERROR)
doorbell.OURS = "no=selector=at=all"
asyncio.run(main())
"""


def test_a_watch_that_fails_for_good_stops_the_program(installed: Cluster) -> None:
    """At once: left to itself, kopf first ends the other watches, and nobody sees anything for minutes."""
    command = [sys.executable, "-c", PROGRAM, str(installed.kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.stdout == "stopped\n", done.stderr
    assert "a watch failed: (\"found '=', expected: ',' or 'end of string'\"" in done.stderr
