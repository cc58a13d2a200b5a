"""Two tiers with their routers and a policy over them, on the real node: asked by OpenAI's SDK, answered by vLLM."""

from __future__ import annotations

import time

import pytest

from e2e.engine import ladder
from e2e.operator_pod import OperatorPod
from e2e.sdk.python import PythonSdk
from e2e.sdk.sdk import Asking, Seen
from e2e.team import MODEL, Team, restarts
from tests.node.load import EASY, HARD, TEXTS, Load, percentile
from tests.node.routers import routers

pytestmark = pytest.mark.slow

CHANGES = 100
LIVE_SECONDS = 2.0
LOST = next(answer.text for answer in ladder.SMALL if answer.asked == "lost")


def ask(team: Team, question: str, **body: object) -> Seen:
    """Ask the policy through its Service."""
    with team.gate() as gate:
        messages = [{"role": "user", "content": question}]
        seen = PythonSdk().ask(Asking(f"http://{gate.address}/v1", {"model": MODEL, "messages": messages, **body}))
    assert seen.fault is None, seen.fault
    return seen


@pytest.mark.parametrize("stream", [False, True])
def test_the_small_tier_answers_what_it_is_sure_of(served: Team, stream: bool) -> None:
    seen = ask(served, EASY, stream=stream)
    assert (seen.text, seen.finish) == (TEXTS["small"], "stop")
    assert (seen.headers["tier"], seen.headers["decision"]) == ("small", "Accepted")


@pytest.mark.parametrize("stream", [False, True])
def test_what_it_is_not_sure_of_the_large_tier_answers(served: Team, stream: bool) -> None:
    """Over a signed hop to the router of the large tier's pod."""
    seen = ask(served, HARD, stream=stream)
    assert (seen.text, seen.finish) == (TEXTS["large"], "stop")
    assert (seen.headers["tier"], seen.headers["decision"]) == ("large", "Escalated")


def test_an_answer_that_is_lost_is_given_up_before_its_end(served: Team) -> None:
    """The small tier stops working for it: of its answer it says a part only."""
    with routers(served) as found:
        small = next(one for one in found if one.tier == "small")
        before = _generated(small.metrics())
        seen = ask(served, "I am lost", stream=True)
        after = _generated(small.metrics())
    assert (seen.text, seen.headers["tier"], seen.headers["decision"]) == (TEXTS["large"], "large", "Escalated")
    whole = len(LOST) // 2  # a token is a word or a part of one; the whole answer has more than 80
    print(f"\n{after - before:.0f} tokens of the lost answer were made")
    assert 0 < after - before < 80 < whole


def _generated(text: str) -> float:
    """Tokens that an engine has made, from its own metrics."""
    lines = [line for line in text.splitlines() if line.startswith("vllm:generation_tokens_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_status_tells_where_the_table_is_live(served: Team, operator: OperatorPod) -> None:
    """The operator runs inside the cluster's network and asks the routers."""
    status = served.get("rp", "support")["status"]
    found = {one["type"]: one for one in status["conditions"]}
    assert (found["Live"]["status"], found["Live"]["reason"]) == ("True", "LiveEverywhere")
    assert found["Ready"]["status"] == "True"
    assert (status["live"], status["table"]["live"], status["table"]["pods"]) == ("2/2", 2, 2)
    with routers(served) as asked:
        assert {one.version() for one in asked} == {status["table"]["version"]}


def test_a_hundred_changes_under_load_reach_every_router_and_restart_nothing(served: Team) -> None:
    """Each change is another table; it is live when both routers say so themselves."""
    before = restarts(served.pods())
    said, since_return, since_start = set[str](), list[float](), list[float]()
    with served.gate() as gate, routers(served) as found, Load(f"http://{gate.address}") as load:
        said |= {str(one.version()) for one in found}
        for number in range(CHANGES):
            manifest = served.policy(accept={"thresholdPermille": 500 + number, "confidence": {}})
            began = time.monotonic()
            served.apply(manifest)
            applied = time.monotonic()
            versions: set[str | None] = set()
            while len(versions) != 1 or None in versions or versions & said:
                assert time.monotonic() < applied + 60, f"change {number} is not live: {versions}"
                time.sleep(0.01)
                versions = {one.version() for one in found}
            live = time.monotonic()
            said |= {str(one) for one in versions}
            since_return.append(live - applied)
            since_start.append(live - began)
    print(f"\n{CHANGES} changes, live in all routers after kubectl apply: {_told(since_return)}")
    print(f"counted from before kubectl was started: {_told(since_start)}")
    print(load.told())
    assert load.faults() == []
    assert load.lies() == []
    assert restarts(served.pods()) == before
    assert percentile(since_return, 99) <= LIVE_SECONDS


def _told(seconds: list[float]) -> str:
    parts = ", ".join(f"p{part} {percentile(seconds, part):.2f} s" for part in (50, 90, 99))
    return f"{parts}, longest {max(seconds):.2f} s"
