"""The watches run as a user that nobody knows: images say a number, and a cluster may choose another."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, getpass, kopf
from modeltiers.controllers import doorbell

def unknown():
    raise KeyError("uid not found: 10001")

getpass.getuser = unknown
asyncio.run(doorbell.watch(kopf.OperatorRegistry(), [], asyncio.Event(), asyncio.Event()))
"""


def test_the_watches_do_not_ask_for_the_users_name() -> None:
    """kopf does, for an identity that only its peering wants. They come as far as the cluster, which is not there."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert "kopf._cogs.structs.credentials.LoginError" in done.stderr
    assert "uid not found" not in done.stderr
