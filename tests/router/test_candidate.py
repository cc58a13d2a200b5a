"""Two revisions of one tier side by side: the share is of conversations, whatever the pods, and nobody is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from modeltiers.domain.routing.record import decode
from tests.router.kit.client import Reply, chat
from tests.router.kit.router import Router, spooled
from tests.router.kit.upstream import Refusing, Upstream, answer, fails

KEY = b"k" * 32
SHARE = 300


def table(first: int, second: int, share: int = SHARE, **policy: Any) -> dict[str, Any]:
    """One tier with routers at these ports, the second of which is the candidate's."""
    candidate = {"revision": "r2", "address": f"127.0.0.1:{second}", "hop": True, "sharePermille": share}
    small = {"name": "small", "address": f"127.0.0.1:{first}", "hop": True, "candidate": candidate}
    made = {"name": "support", "model": "support", "tiers": ["small"], **policy}
    return {"formatVersion": 1, "version": f"s{share}", "tiers": [small], "policies": [made]}


class Pair:
    """A router beside each revision's engine."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        key = folder / "key"
        key.write_bytes(KEY)
        self.spool = folder / "spool"
        self.engines = [stack.enter_context(Upstream(answer(f"by r{one}"))) for one in (1, 2)]
        self.routers = []
        for revision, engine in zip(("r1", "r2"), self.engines, strict=True):
            beside = ("--local", f"small=127.0.0.1:{engine.port}", "--revision", revision)
            more = ("--spool", str(self.spool)) if revision == "r1" else ()
            self.routers.append(stack.enter_context(Router(table(1, 2), *beside, "--hop-key", str(key), *more)))
        self.load()

    def load(self, share: int = SHARE) -> None:
        """Give both routers one table that knows where they are."""
        first, second = self.routers
        for router in self.routers:
            router.reload(table(first.port, second.port, share))
            router.until(lambda status: status["tables"]["table.json"]["version"] == f"s{share}")
            other = second if router is first else first
            where = "candidates" if router is first else "tiers"
            router.until(
                lambda status, where=where, other=other: (
                    f":{other.port}"  # type: ignore[misc]  # mypy does not infer a lambda's default
                    in str(status[where]["small"]["addresses"])
                )
            )


@contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, folder)


def revision(reply: Reply) -> str:
    """Which revision answered, by the header, and that it did."""
    assert reply.status == 200
    found = reply.header("x-modeltiers-revision")
    assert reply.header("x-modeltiers-tier") == "small"
    assert reply.text == f"by {found}"
    return str(found)


def test_the_share_is_of_conversations_and_the_same_wherever_they_enter(tmp_path: Path) -> None:
    with pair(tmp_path) as found:
        by = [[revision(chat(router.port, user=f"u{one}")) for one in range(150)] for router in found.routers]
        assert by[0] == by[1]
        assert 0.2 * 150 < by[0].count("r2") < 0.4 * 150
        again = [revision(chat(found.routers[0].port, user=f"u{one}")) for one in range(20)]
        assert again == by[0][:20]
        metrics = found.routers[0].metrics()
        assert metrics.value("revision_attempts_total", tier="small", revision="r2") == (by[0] + again).count("r2")
        found.routers[0].terminate()
        found.routers[0].ended()  # the spool is written behind the answers
        lines = spooled(found.spool)
        attempts = [attempt.revision for line in lines for attempt in decode(line).attempts]
        assert sorted(map(str, attempts)) == sorted(by[0] + again)


def test_a_growing_share_only_adds_and_none_takes_all_away(tmp_path: Path) -> None:
    with pair(tmp_path) as found:
        port, before = found.routers[0].port, set[int]()
        for share in (0, 200, 600, 1000):
            found.load(share=share)
            after = {one for one in range(40) if revision(chat(port, user=f"u{one}")) == "r2"}
            assert before <= after
            before = after
            assert len(after) == {0: 0, 1000: 40}.get(share, len(after))


def test_what_the_candidate_cannot_answer_the_first_revision_does(tmp_path: Path) -> None:
    with pair(tmp_path) as found:
        found.load(share=1000)
        found.engines[1].script = fails(500)
        reply = chat(found.routers[0].port, user="u")
        assert (reply.status, reply.header("x-modeltiers-revision")) == (200, "r1")
        assert reply.header("x-modeltiers-decision") == "Fallback"
        assert found.routers[0].metrics().value("revision_attempts_total", revision="r2", outcome="Failed") == 1


def test_a_candidate_alone_takes_all_unless_it_has_no_share(tmp_path: Path) -> None:
    with pair(tmp_path) as found:
        port = found.routers[0].port
        found.engines[0].healthy = False
        found.routers[0].until(lambda status: "Unhealthy" in str(status["tiers"]["small"]["addresses"]), 15)
        assert [revision(chat(port, user=f"u{one}")) for one in range(10)] == ["r2"] * 10
        found.load(share=0)
        assert chat(port, user="u").status == 503


def test_a_candidate_that_is_not_there_costs_nobody_an_answer(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    with Upstream(answer("by r1")) as engine, Refusing() as nobody:
        beside = ("--local", f"small=127.0.0.1:{engine.port}", "--hop-key", str(key))
        with Router(table(1, nobody.port, share=1000), *beside) as router:
            assert [revision(chat(router.port, user=f"u{one}")) for one in range(10)] == ["r1"] * 10
