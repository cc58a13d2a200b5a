"""The pure part of asking: requests and their keys, what replies mean, patience, and a budget that holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modeltiers.api.modeltier import TokenPrice
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.replies import Answer, Call, Failure, Kind, logprobs_of, message_of, read
from modeltiers.domain.distill.requests import Sampling, requests_of, with_system
from modeltiers.domain.distill.spend import NONE, Cap, Purse, Tokens, Verdict, cost_micros

ROW = {"id": "r", "messages": [{"role": "user", "content": "Wie geht's, Zoë?"}]}
GOOD: dict[str, Any] = {
    "model": "m",
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_carries_the_row_exactly() -> None:
    """Messages and tools go out as they are; nothing is asked for that was not wanted."""
    row = {**ROW, "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}
    (request,) = requests_of("m", row, Sampling(700, 64), 1)
    assert json.loads(request.body) == {
        "model": "m",
        "messages": ROW["messages"],
        "tools": row["tools"],
        "temperature": 0.7,
        "max_tokens": 64,
    }


@pytest.mark.parametrize(
    "other",
    [
        ("n", ROW, Sampling(0, 64)),
        ("m", {**ROW, "messages": [{"role": "user", "content": "x"}]}, Sampling(0, 64)),
        ("m", {**ROW, "tools": [{}]}, Sampling(0, 64)),
        ("m", ROW, Sampling(1, 64)),
        ("m", ROW, Sampling(0, 65)),
        ("m", ROW, Sampling(0, 64, 1)),
    ],
)
def test_what_changes_the_answer_changes_the_key(other: tuple[str, dict[str, Any], Sampling]) -> None:
    """And nothing else does."""
    (one,) = requests_of("m", ROW, Sampling(0, 64), 1)
    assert requests_of(*other, 1)[0].key != one.key
    assert requests_of("m", {**ROW, "id": "s", "slice": "x", "expected": "y"}, Sampling(0, 64), 1)[0].key == one.key


def test_samples_have_keys_of_their_own() -> None:
    """And the same body."""
    requests = requests_of("m", ROW, Sampling(700, 64), 3)
    assert len({request.key for request in requests}) == 3
    assert len({request.body for request in requests}) == 1
    assert requests[:2] == requests_of("m", ROW, Sampling(700, 64), 2)


def test_a_system_message_is_put_in_front_where_there_is_none() -> None:
    """A developer message is one."""
    user = {"role": "user", "content": "x"}
    assert with_system([user], "S") == [{"role": "system", "content": "S"}, user]
    assert with_system([user], None) == [user]
    for role in ("system", "developer"):
        own = [{"role": role, "content": "own"}, user]
        assert with_system(own, "S") == own


# --- replies ----------------------------------------------------------------------------------------------------------


def said(body: Any, status: int = 200, **headers: str) -> Answer | Failure:
    """What a reply means."""
    return read(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_a_completion_is_an_answer() -> None:
    """With who gave it and what it took."""
    found = said({**GOOD, "system_fingerprint": "f"})
    assert found == Answer(GOOD["choices"][0], "m", "f", (3, 1))


@given(st.binary(max_size=80), st.integers(200, 599))
def test_no_bytes_are_too_strange(body: bytes, status: int) -> None:
    """Whatever comes, it is an answer or a failure."""
    assert isinstance(read(status, {}, body), Answer | Failure)


@given(JSON, st.sampled_from(["choices", "model", "usage", "choice", "message", "content", "logprobs", "tool_calls"]))
def test_no_json_is_too_strange(value: Any, where: str) -> None:
    """A wrong type anywhere is a failed try; what passes can be read back."""
    choice = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    whole = {**GOOD, "choices": [choice]}
    match where:
        case "choice":
            whole["choices"] = [value]
        case "message" | "logprobs":
            choice[where] = value
        case "content" | "tool_calls":
            choice["message"][where] = value
        case _:
            whole[where] = value
    found = said(whole)
    if isinstance(found, Answer):
        assert message_of(found.choice)["role"] == "assistant"
        logprobs_of(found.choice)
    else:
        assert (found.call, found.kind, found.paid) == (Call.AGAIN, Kind.GARBAGE, True)


@pytest.mark.parametrize(
    ("status", "call", "kind"),
    [
        (429, Call.AGAIN, Kind.BUSY),
        (503, Call.AGAIN, Kind.BUSY),
        (500, Call.AGAIN, Kind.SERVER),
        (504, Call.AGAIN, Kind.SERVER),
        (408, Call.AGAIN, Kind.SERVER),
        (409, Call.AGAIN, Kind.SERVER),
        (400, Call.DROP, Kind.REFUSED),
        (413, Call.DROP, Kind.REFUSED),
        (422, Call.DROP, Kind.REFUSED),
        (401, Call.STOP, Kind.KEY),
        (403, Call.STOP, Kind.KEY),
        (402, Call.STOP, Kind.QUOTA),
        (404, Call.STOP, Kind.MODEL),
        (301, Call.STOP, Kind.MOVED),
        (204, Call.AGAIN, Kind.GARBAGE),
    ],
)
def test_each_status_calls_for_something(status: int, call: Call, kind: Kind) -> None:
    """One table."""
    found = said({"error": {"message": "why"}}, status)
    assert isinstance(found, Failure)
    assert (found.call, found.kind) == (call, kind)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "too long"}}, "400 too long"),
        ({"error": "too long"}, "400 too long"),
        ({"detail": [{"msg": "x"}]}, '400 [{"msg":"x"}]'),
        ({"message": "a\n\x1b[31mb"}, "400 a [31mb"),
        (b"<html>no</html>", "400 <html>no</html>"),
        (b"", "400"),
        ({"error": {"type": "invalid"}}, "400 invalid"),
    ],
)
def test_a_servers_words_are_cleaned(body: Any, words: str) -> None:
    """They are quoted in status, so they are one short line."""
    found = said(body, 400)
    assert isinstance(found, Failure)
    assert found.said == words


def test_a_servers_words_are_cut_and_hold_no_key() -> None:
    """Servers quote what they were sent."""
    found = said({"error": {"message": "key sk-abcdefghijk " + "x" * 1000}}, 401)
    assert isinstance(found, Failure)
    assert "abcdef" not in found.said
    assert len(found.said) < 210


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, or thousandths of them."""
    found = read(429, headers, b"")
    assert isinstance(found, Failure)
    assert found.after == seconds


def test_reasoning_is_kept_beside_the_answer() -> None:
    """Under one name, whatever the server calls it."""
    for name in ("reasoning", "reasoning_content"):
        assert message_of({"message": {"content": "4", name: "2 and 2"}})["reasoning_content"] == "2 and 2"


# --- patience ---------------------------------------------------------------------------------------------------------

FAILURES = st.builds(
    Failure, st.just(Call.AGAIN), st.sampled_from([*Kind]), after=st.none() | st.floats(0, 100, allow_nan=False)
)


@given(FAILURES, st.floats(0, 1), st.integers(1, 20))
def test_waits_are_bounded_and_heed_the_server(failure: Failure, dice: float, tries: int) -> None:
    """Never shorter than the server wants, never past the total, and an end to tries."""
    patience = Patience()
    wait = patience.wait(failure, tries, 0.0, dice)
    if tries >= patience.tries:
        assert wait is None
    if wait is not None:
        assert (failure.after or 0) <= wait <= (failure.after or 0) + patience.longest
    assert patience.wait(failure, tries, patience.total + 1, dice) is None


def test_only_a_row_that_fails_among_others_that_do_not_is_blamed() -> None:
    """A busy or unreachable server is never a row's fault."""
    patience = Patience()
    blamed = {kind for kind in Kind if patience.blames_row(Failure(Call.AGAIN, kind), patience.healthy)}
    assert blamed == {Kind.SERVER, Kind.TIMEOUT, Kind.GARBAGE}
    assert not patience.blames_row(Failure(Call.AGAIN, Kind.SERVER), 0)


# --- the budget -------------------------------------------------------------------------------------------------------

PRICE = TokenPrice(input_per_million_micros=150_000, output_per_million_micros=600_000)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_costs_are_whole_and_never_less_than_they_are(prompt: int, answer: int) -> None:
    """Rounded up once, over the sum."""
    exact = (prompt * 150_000 + answer * 600_000) / 1_000_000
    assert 0 <= cost_micros(Tokens(prompt, answer), PRICE) - exact <= 1.001


def test_money_needs_a_price() -> None:
    """It cannot be counted otherwise."""
    with pytest.raises(ValueError, match="price"):
        Cap(cost_micros=5)


@dataclass
class Asked:
    """A request under way, in a simulated server."""

    size: int
    most: Tokens
    took: Tokens


@given(
    cap=st.integers(5_000, 200_000),
    max_tokens=st.integers(1, 200),
    concurrency=st.integers(1, 64),
    per_token=st.floats(1.0, 8.0),
    overhead=st.integers(0, 200),
    money=st.booleans(),
    data=st.data(),
)
def test_what_is_spent_stops_within_two_percent(
    cap: int, max_tokens: int, concurrency: int, per_token: float, overhead: int, money: bool, data: st.DataObject
) -> None:
    """Any order of sending and answering: at most 2 % over, and at the end not one more request would have fitted."""
    assume(max_tokens * 8 < cap)
    purse = Purse(Cap(None if money else cap, cap if money else None, PRICE if money else None), max_tokens)
    dice = data.draw(st.randoms(use_true_random=False))
    under_way: list[Asked] = []
    sizes = (dice.choice((50, 2000, dice.randint(50, 2000))) for _ in range(20_000))
    size, stopped = next(sizes), False
    while not stopped or under_way:
        verdict = Verdict.WAIT if len(under_way) >= concurrency else purse.verdict(size)
        if verdict is Verdict.GO:
            took = Tokens(
                min(size + 250, round(size / per_token * dice.uniform(0.91, 1)) + overhead), dice.randint(1, max_tokens)
            )
            under_way.append(Asked(size, purse.reserve(size), took))
            size = next(sizes)
        elif verdict is Verdict.WAIT:
            done = under_way.pop(dice.randrange(len(under_way)))
            purse.settle(done.most, done.took)
            purse.learn(done.size, done.took)
        else:
            stopped = True
            assert not under_way
    spent = cost_micros(purse.spent, PRICE) if money else purse.spent.total
    assert spent <= cap * 1.02
    assert purse.aside == NONE
    assert not purse.cap.holds(purse.spent + purse.most(size))


def test_before_anything_is_known_one_goes_alone() -> None:
    """How many tokens a byte makes shows only in a reply."""
    purse = Purse(Cap(tokens=100_000), 50)
    assert purse.verdict(100) is Verdict.GO
    most = purse.reserve(100)
    assert purse.verdict(100) is Verdict.WAIT
    purse.settle(most, Tokens(30, 10))
    purse.learn(100, Tokens(30, 10))
    purse.reserve(100)
    assert purse.verdict(100) is Verdict.GO


def test_without_a_cap_nothing_waits() -> None:
    """As many as there are workers."""
    purse = Purse(Cap(), 50)
    for _ in range(100):
        assert purse.verdict(10**9) is Verdict.GO
        purse.reserve(10**9)
