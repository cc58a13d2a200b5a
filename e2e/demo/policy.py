"""The second half of the tour: two tiers that answer, a policy over them, and the numbers. Their node is real."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import yaml

from e2e import team as teams
from e2e.cluster import Cluster, HarnessError
from e2e.cluster.process import wait_until
from e2e.cluster.supervisor import end_with
from e2e.demo.tour import Tour, of_here
from e2e.team import MODEL, POLICY, TIERS, Team, restarts

NAMESPACE = "team"
EASY, HARD = "six times seven?", "a hard one"
QUESTIONS = 100
HARD_EVERY = 4


def policy(tour: Tour, cluster: Cluster) -> None:
    """From `kubectl apply` of two tiers and a policy to answers and figures."""
    team = Team(cluster, NAMESPACE, teams.write_models(tour.state / "models"))
    team.create()
    _tiers(tour, team)
    _policy(tour, team)
    with _forwarded(tour, team) as url:
        _questions(tour, url)
        _figures(tour, team, url)
    _change(tour, team)


def _tiers(tour: Tour, team: Team) -> None:
    tour.chapter(
        "Two tiers that answer",
        "Real vLLM, built for the CPU, in pods of a real kubelet. The models are tiny and say what a script has them "
        "say, sometimes unsure of it; the GPUs of this node are claimed. All else is as in any cluster.",
    )
    path = tour.state / "tiers.yaml"
    path.write_text(yaml.safe_dump_all([team.tier(name) for name in TIERS], sort_keys=False))
    began = time.monotonic()
    tour.kubectl("apply", "-n", NAMESPACE, "-f", of_here(path))
    tour.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", "mt", "--all", f"--timeout={teams.READY_SECONDS}s")
    tour.say(f"both are ready after {time.monotonic() - began:.0f} s, each after its engine has said a first token")
    tour.kubectl("get", "-n", NAMESPACE, "pods")


def _policy(tour: Tour, team: Team) -> None:
    path = tour.state / "policy.yaml"
    path.write_text(yaml.safe_dump(team.policy(), sort_keys=False))
    tour.chapter("A policy over them", f"Small first; what it is not sure of goes to large. {of_here(path)}:")
    tour.show(path.read_text())
    before, began = restarts(team.pods()), time.monotonic()
    tour.kubectl("apply", "-n", NAMESPACE, "-f", of_here(path))
    tour.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", f"rp/{POLICY}", "--timeout=60s")
    tour.say(f"live in every router after {time.monotonic() - began:.1f} s; {_unmoved(team, before)}")
    # The tier that was ready first takes the requests until the lower one has been ready for a while.
    wait_until(lambda: team.entry() == TIERS[0], "requests to enter at the small tier", 60, poll=0.2)
    tour.kubectl("get", "tiering", "-n", NAMESPACE)


def _unmoved(team: Team, before: dict[str, tuple[str, int]]) -> str:
    if restarts(team.pods()) != before:
        raise HarnessError(f"a policy restarted a container: {before} became {restarts(team.pods())}")
    return "no container was restarted"


@contextlib.contextmanager
def _forwarded(tour: Tour, team: Team) -> Iterator[str]:
    """Reach the policy's Service from this machine, as on any cluster."""
    tour.chapter("Ask it", "Any client of OpenAI's API will do. Inside the cluster the URL is in the policy's status.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = ["port-forward", "-n", NAMESPACE, f"svc/{POLICY}-policy", f"{port}:80"]
    tour.show(f"$ kubectl {' '.join(args)} &")
    admin = team.cluster.as_admin
    command = [str(admin.program), f"--kubeconfig={admin.kubeconfig}", *args]
    carrier = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 - no orphan after kill -9, and no thread here yet
    )
    try:
        wait_until(lambda: _open(port), "kubectl port-forward to listen", 20)
        url = f"http://127.0.0.1:{port}/v1"
        _wait_hop(url)
        yield url
    finally:
        carrier.kill()
        carrier.wait()


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_hop(url: str) -> None:
    """Routers look up once a second who has no address yet: wait until the small tier's has found the large one's."""
    wait_until(lambda: _ask(openai.OpenAI(base_url=url, api_key="unused"), HARD)[0] == "large", "routers to meet", 20)


def _questions(tour: Tour, url: str) -> None:
    tour.say("What the small tier is sure of, it answers:")
    said = tour.python("e2e.demo.ask", url, EASY)
    _must(said, "x-modeltiers-tier: small", "x-modeltiers-decision: Accepted")
    tour.say("What it is not sure of goes to the large one; nobody sees the answer that was found wanting:")
    said = tour.python("e2e.demo.ask", url, HARD)
    _must(said, "x-modeltiers-tier: large", "x-modeltiers-decision: Escalated")
    tour.say("A stream is held for a moment until it is judged, and then flows:")
    _must(tour.python("e2e.demo.ask", "--stream", url, HARD), "x-modeltiers-decision: Escalated")


def _must(said: str, *lines: str) -> None:
    missing = [line for line in lines if line not in said]
    if missing:
        raise HarnessError(f"the answer lacks {', '.join(missing)}")


def _ask(client: openai.OpenAI, question: str) -> tuple[str, str]:
    """The tier that answered and its decision."""
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": question}]
    )
    return raw.headers["x-modeltiers-tier"], raw.headers["x-modeltiers-decision"]


def _figures(tour: Tour, team: Team, url: str) -> None:
    tour.chapter(
        "The numbers", f"{QUESTIONS} questions, every {HARD_EVERY}th a hard one, four at a time, nothing tried twice."
    )
    client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=60)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as clients:
        asked = [HARD if number % HARD_EVERY == 0 else EASY for number in range(QUESTIONS)]
        answers = list(clients.map(lambda question: _ask(client, question), asked))
    seconds = time.monotonic() - began
    tiers, decisions = (Counter(answer[place] for answer in answers) for place in (0, 1))
    shares = ", ".join(f"{name} {100 * tiers[name] // QUESTIONS}%" for name in TIERS)
    tour.say(
        f"answered by {shares}; decisions {dict(decisions)}; none failed; {QUESTIONS / seconds:.0f} requests a second"
    )
    tour.say("The operator asks the routers from time to time, and says what they counted:")
    wait_until(lambda: _counted(team) >= QUESTIONS, "the figures to be in the policy's status", 60, poll=0.5)
    tour.kubectl("get", "rp", "-n", NAMESPACE)
    tour.kubectl("get", f"rp/{POLICY}", "-n", NAMESPACE, "-o", "jsonpath={.status.traffic}")
    tour.say("Each router tells Prometheus the same:")
    pod = team.pods("small")[0]["metadata"]["name"]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8081/proxy/metrics"
    said = tour.kubectl("get", "--raw", path, show=False)
    tour.show("\n".join(line for line in said.splitlines() if line.startswith("modeltiers_router_decisions_total")))


def _counted(team: Team) -> int:
    found: int = team.get("rp", POLICY)["status"].get("traffic", {}).get("requests", 0)
    return found


def _change(tour: Tour, team: Team) -> None:
    tour.chapter("Change the policy", "A stricter threshold. Pods are touched and nothing else: no container restarts.")
    before = restarts(team.pods())
    patch = json.dumps({"spec": {"accept": {"thresholdPermille": 700}}})
    began = time.monotonic()
    tour.kubectl("patch", "-n", NAMESPACE, f"rp/{POLICY}", "--type=merge", "-p", patch)
    generation = team.get("rp", POLICY)["metadata"]["generation"]
    wait_until(lambda: _live(team, generation), "the table to be live", 30)
    tour.say(f"live in every router {time.monotonic() - began:.1f} s later; {_unmoved(team, before)}")
    tour.kubectl("get", "rp", "-n", NAMESPACE, "-o", "wide")


def _live(team: Team, generation: int) -> bool:
    status = team.get("rp", POLICY)["status"]
    live = next(one for one in status["conditions"] if one["type"] == "Live")
    return bool(live["observedGeneration"] == generation and live["status"] == "True")
