"""Who reaches a tier, and with which key: on the real node, which enforces policies and brings Secrets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster.process import wait_until
from e2e.sdk.python import PythonSdk
from e2e.sdk.sdk import Asking, Seen
from e2e.team import MODEL, Team, restarts
from tests.node.kit import Pods
from tests.node.load import EASY, TEXTS

pytestmark = pytest.mark.slow

BROUGHT_SECONDS = 150
"""A kubelet brings a changed Secret within its sync period and its cache's time to live: a minute and a half."""
CONNECTS = """
import socket, sys
for port in (8080, 8081, 8000):
    try:
        socket.create_connection((sys.argv[1], port), 3).close()
        print(port, "open")
    except TimeoutError:
        print(port, "dropped")
    except OSError as fault:
        print(port, type(fault).__name__)
"""


@pytest.fixture
def keyed(served: Team) -> Iterator[Team]:
    """The policy asks for the key `batch`, and there is no Secret."""
    served.apply(served.policy(access={"mode": "Keys", "keys": ["batch"]}))
    yield served
    served.kubectl("delete", "secret", "modeltiers-keys", "--ignore-not-found")


def bring(team: Team, secret: str) -> None:
    """Put one client key into the namespace's Secret, as its user does."""
    keys = {"keys": [{"name": "batch", "sha256": hashlib.sha256(secret.encode()).hexdigest()}]}
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "modeltiers-keys"}}
    team.apply({**body, "data": {"keys.json": base64.b64encode(json.dumps(keys).encode()).decode()}})


def ask(team: Team, key: str) -> Seen:
    """Ask the policy with a key."""
    with team.gate() as gate:
        body = {"model": MODEL, "messages": [{"role": "user", "content": EASY}]}
        return PythonSdk().ask(Asking(f"http://{gate.address}/v1", body, key=key))


def test_a_stranger_reaches_the_serving_port_and_no_other(served: Team, pods: Pods) -> None:
    """A pod of another namespace: the admin port drops it, the engine listens on loopback only."""
    [small] = served.pods("small")
    phase, said = pods.run(CONNECTS, small["status"]["podIP"])
    assert phase == "Succeeded"
    assert said.splitlines()[0] == "8080 open"
    assert "open" not in said.splitlines()[1]
    assert "open" not in said.splitlines()[2]


def test_a_key_that_is_missing_is_told_taken_when_it_comes_and_changed_without_a_restart(keyed: Team) -> None:
    before = restarts(keyed.pods())
    wait_until(lambda: keyed.conditions("rp/support")["KeysFound"]["reason"] == "KeyMissing", "the missing key", 30)
    told = keyed.conditions("rp/support")
    assert "add it to keys.json in Secret modeltiers-keys" in told["Ready"]["message"]
    assert told["Stalled"]["status"] == "True"
    refused = ask(keyed, "sk-first")
    assert refused.fault is not None
    assert refused.fault.status == 401
    bring(keyed, "sk-first")
    wait_until(lambda: ask(keyed, "sk-first").text == TEXTS["small"], "the key to be taken", BROUGHT_SECONDS, poll=1)
    wait_until(lambda: keyed.conditions("rp/support")["Ready"]["status"] == "True", "the policy to be ready", 90)
    bring(keyed, "sk-second")
    wait_until(lambda: ask(keyed, "sk-second").text == TEXTS["small"], "the new key", BROUGHT_SECONDS, poll=1)
    old = ask(keyed, "sk-first")
    assert old.fault is not None
    assert old.fault.status == 401
    assert restarts(keyed.pods()) == before
