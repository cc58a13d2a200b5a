"""A router beside an engine (`--local`): ready once the engine has said a token; its table read as from there."""

from __future__ import annotations

from typing import Any

from tests.router.kit import vllm
from tests.router.kit.client import chat, chat_body, get, many, request
from tests.router.kit.router import QUICK, Router, table
from tests.router.kit.upstream import Call, Upstream, answer, fails, hang, response


def engine(completions: int = 200, embeddings: int = 404) -> Any:
    """Return a script of an engine that lists its model and answers its canary with these statuses."""

    async def script(call: Call) -> None:
        target = call.asked.target
        if target == "/v1/models":
            await call.send(response("200 OK", vllm.models("tiny")))
        elif target in ("/v1/completions", "/v1/embeddings"):
            status = completions if target == "/v1/completions" else embeddings
            body = vllm.completion("x") if status == 200 else vllm.error(status, "no")
            await call.send(response(f"{status} X", body))
        else:
            await answer("from the engine")(call)

    return script


def beside(port: int, name: str = "t0") -> tuple[str, str]:
    return "--local", f"{name}=127.0.0.1:{port}"


def state(router: Router) -> str:
    return str(router.status()["engine"]["state"])


def test_it_is_ready_when_the_engine_has_said_one_token() -> None:
    with Upstream(engine()) as local, Router(table(1), *beside(local.port)) as router:
        router.until(lambda status: status["engine"]["state"] == "Ready")
        assert get(router.admin, "/readyz").status == 200
        canary = next(asked for asked in local.requests if asked.target == "/v1/completions")
        assert canary.json == {"model": "tiny", "prompt": "1", "max_tokens": 1, "logprobs": 1}


def test_an_engine_that_dies_at_the_first_logprob_is_not_ready() -> None:
    async def script(call: Call) -> None:
        dies = call.asked.target == "/v1/completions" and "logprobs" in call.asked.json
        await engine(completions=500 if dies else 200)(call)

    with Upstream(script) as local, Router(table(1), *beside(local.port)) as router:
        router.until(lambda status: status["engine"]["state"] == "CanaryFailed")


def test_an_engine_that_has_no_logprobs_is_ready_all_the_same() -> None:
    async def script(call: Call) -> None:
        refuses = call.asked.target == "/v1/completions" and "logprobs" in call.asked.json
        await engine(completions=400 if refuses else 200)(call)

    with Upstream(script) as local, Router(table(1), *beside(local.port)) as router:
        router.until(lambda status: status["engine"]["state"] == "Ready")


def test_an_engine_that_is_well_and_dies_at_the_first_token_is_not_ready() -> None:
    with Upstream(engine(completions=500)) as local, Router(table(1), *beside(local.port)) as router:
        router.until(lambda status: status["engine"]["state"] == "CanaryFailed")
        assert get(router.admin, "/readyz").status == 503
        assert get(router.admin, "/healthz").status == 200
        local.script = engine()
        router.until(lambda status: status["engine"]["state"] == "Ready")


def test_an_engine_that_only_embeds_is_asked_for_a_vector() -> None:
    with Upstream(engine(completions=404, embeddings=200)) as local, Router(table(1), *beside(local.port)) as router:
        router.until(lambda status: status["engine"]["state"] == "Ready")


def test_an_engine_that_was_lost_sings_again() -> None:
    with Upstream(engine()) as local, Router(table(1), *beside(local.port)) as router:
        router.until(lambda status: status["engine"]["state"] == "Ready")
        local.healthy = False
        router.until(lambda status: status["engine"]["state"] == "Starting", seconds=10)
        assert get(router.admin, "/readyz").status == 503
        local.healthy = True
        router.until(lambda status: status["engine"]["state"] == "Ready", seconds=10)
        assert sum(asked.target == "/v1/completions" for asked in local.requests) == 2


def test_with_no_engine_yet_it_lives_and_is_not_ready() -> None:
    with Router(table(1), *beside(1)) as router:
        assert get(router.admin, "/healthz").status == 200
        assert get(router.admin, "/readyz").status == 503
        assert get(router.admin, "/engine/health").status == 503
        assert state(router) == "Starting"


def test_one_table_serves_the_routers_of_all_its_tiers() -> None:
    """The tier beside the router is asked there, not at the table's address and without a hop; others at theirs."""
    shape = table(1, 1)
    shape["tiers"][0]["hop"] = True
    with Upstream(engine()) as local, Upstream(answer("elsewhere")) as other:
        shape["tiers"][1]["address"] = f"127.0.0.1:{other.port}"
        with Router(shape, *beside(local.port)) as router:
            router.until(lambda status: status["engine"]["state"] == "Ready")
            assert chat(router.port).text == "from the engine"
            asked = next(one for one in local.requests if one.target == "/v1/chat/completions")
            assert asked.header("x-modeltiers-hop") is None
            assert get(router.admin, "/engine/health").status == 200
            local.script = fails(500)
            assert chat(router.port).text == "elsewhere"


def test_it_says_how_many_requests_the_engine_holds_and_how_many_wait_for_it() -> None:
    """Not those that are passed on: they are held by another engine, whose router counts them."""
    busy = {"tiers": {0: {"concurrency": 2, "timeouts": {**QUICK, "firstByteMs": 5_000}}}}
    with Upstream(engine()) as local, Upstream(hang) as other:
        with Router(table(1, other.port, **busy), *beside(local.port)) as router, many(router.port, 3) as wires:
            router.until(lambda status: status["engine"]["state"] == "Ready")
            assert router.status()["engine"].items() >= {"inFlight": 0, "waiting": 0}.items()
            local.script = hang
            for wire in wires:
                wire.send(request(chat_body()))
            router.until(lambda status: status["engine"]["inFlight"] == 2 and status["inFlight"] == 3)
            assert router.status()["engine"]["waiting"] == 0
        local.script = engine()
        with Router(table(1, **busy), *beside(local.port)) as router, many(router.port, 3) as wires:
            router.until(lambda status: status["engine"]["state"] == "Ready")
            local.script = hang
            for wire in wires:
                wire.send(request(chat_body()))
            router.until(lambda status: (status["engine"]["inFlight"], status["engine"]["waiting"]) == (2, 1))
