"""One replica that takes part in an election and writes as fast as it may. Run by `test_election.py` as a process.

It writes through the fence, one object by its own name, and says every change on standard output.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import uvloop

from modeltiers.domain.election import Config
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.election import Election
from modeltiers.kube.session import connect


def say(word: str) -> None:
    """One line with the time on a clock that all processes of a machine share."""
    sys.stdout.write(f"{word} {time.monotonic():.3f}\n")
    sys.stdout.flush()


async def tell(election: Election) -> None:
    """Say when leadership comes and goes."""
    while True:
        await election.wait_leading()
        say("leads")
        await election.wait_lost()
        say("lost")


async def write(api: Api, namespace: str, name: str) -> None:
    """Write for ever, never the same twice; say when the fence goes up."""
    fenced, number = True, 0
    while True:
        number += 1
        metadata = {"name": name, "namespace": namespace, "annotations": {"example.com/number": str(number)}}
        try:
            await api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
            fenced = False
        except errors.NotLeading:
            if not fenced:
                say("fenced")
            fenced = True
            await asyncio.sleep(0.01)
        except errors.ApiFault:
            await asyncio.sleep(0.05)


async def main(kubeconfig: str, namespace: str, name: str, lease: str, deadline: str, retry: str) -> None:
    """Run until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    connection = await connect(Path(kubeconfig))
    config = Config(float(lease), float(deadline), float(retry))
    election = Election(Api(connection), namespace, "election", name, config=config)
    tasks = [
        asyncio.create_task(tell(election)),
        asyncio.create_task(write(Api(connection, election.is_leading), namespace, name)),
    ]
    await election.run(stopping)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await connection.close()
    say("ended")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
