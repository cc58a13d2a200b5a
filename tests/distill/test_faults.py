"""What a server can do wrong, over real sockets: what is asked again, what is dropped, what stops the stage."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from modeltiers.distill.faults import BadData, BudgetExhausted, TryAgain
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.stages import Stage
from tests.distill.kit import SHORT, Job, row

ROWS = [row(number) for number in range(12)]


@pytest.mark.parametrize(
    "how",
    [
        {"status": 429, "headers": {"Retry-After": "0.1"}},
        {"status": 500},
        {"status": 503, "text": "<html>busy</html>"},
        {"status": 408},
        {"status": 200, "text": "<html>a proxy's page</html>"},
        {"status": 200, "text": '{"choices": ['},
        {"noChoices": True},
        {"choice": {"message": {"content": 7}}},
        {"choice": {"finish_reason": None}},
        {"close": True},
    ],
    ids=lambda how: "-".join(f"{name}{value}" for name, value in how.items())[:30],
)
def test_a_passing_fault_is_asked_again(job: Job, how: dict[str, object]) -> None:
    """Once wrong, then right: all rows are answered."""
    job.teacher.misbehave(**{"times": 1, "match": "What is 3 +", **how})
    result = job.split(ROWS).generate()
    assert result.facts["answered"] == 12
    assert len(job.teacher.asked()) == 13
    charged = ("text" in how and how.get("status") == 200) or "choice" in how or "noChoices" in how or "close" in how
    assert result.spend["inDoubt"] == int(charged)


def test_an_answer_that_does_not_come_in_time_is_asked_again(job: Job) -> None:
    """And counted in doubt: it may have been paid for."""
    job.spec["generation"] = {"timeoutSeconds": 1}
    job.teacher.misbehave(hang=30, times=1, match="What is 3 +")
    result = job.split(ROWS).generate()
    assert result.facts["answered"] == 12
    assert result.spend["inDoubt"] == 1


def test_an_answer_that_drips_is_no_answer(job: Job) -> None:
    """The time is for the whole of it."""
    job.spec["generation"] = {"timeoutSeconds": 1}
    job.teacher.misbehave(drip=0.1, times=1, match="What is 3 +")
    assert job.split(ROWS).generate().facts["answered"] == 12


def test_an_endless_answer_is_cut_off(job: Job) -> None:
    """A reply has a size."""
    job.teacher.misbehave(big=70, times=1, match="What is 3 +")
    assert job.split(ROWS[:5]).generate().facts["answered"] == 5


def test_a_server_that_stays_down_is_left_alone(job: Job) -> None:
    """What came is kept, and the next attempt asks only for the rest."""
    job.spec["generation"] = {"concurrency": 1}
    job.teacher.misbehave(status=503, match="What is 7 +")
    with pytest.raises(TryAgain, match="503") as caught:
        job.split(ROWS).generate()
    assert caught.value.reason == "TeacherUnavailable"
    job.teacher.misbehave()
    assert job.generate().facts["answered"] == 12
    assert len({one["hash"] for one in job.teacher.asked()}) == 12
    assert len(job.teacher.asked()) == 12 + SHORT.tries


def test_nobody_listens(job: Job) -> None:
    """A connection that is refused costs nothing and is in no doubt."""
    job.target["baseUrl"] = "http://127.0.0.1:9/v1"
    with pytest.raises(TryAgain, match="the connection failed"):
        job.split(ROWS).generate()
    assert job.work().progress.facts == {}


def test_a_row_that_breaks_the_server_is_dropped(job: Job) -> None:
    """Others are answered meanwhile: the row is at fault."""
    job.spec["generation"] = {"concurrency": 4}
    job.teacher.misbehave(status=500, match="What is 0 +")
    result = job.split([row(number) for number in range(200)]).generate(Patience(tries=3, base=0.2))
    assert result.facts["answered"] == 199
    assert result.facts["refused"] == 1
    assert result.facts["reasons"] == {"the server failed: 500 as told, 3 times": 1}


def test_a_refused_row_is_dropped_with_its_reason(job: Job) -> None:
    """A context that is too long is this row's matter."""
    job.teacher.misbehave(status=400, message="maximum context length is 4096 tokens", match="What is 3 +")
    result = job.split(ROWS).generate()
    assert result.facts["answered"] == 11
    assert result.facts["reasons"] == {"the server refuses the request: 400 maximum context length is 4096 tokens": 1}
    job.teacher.misbehave()
    job.generate()
    assert len(job.teacher.asked()) == 12


def test_when_the_first_twenty_fail_alike_it_is_no_rows_fault(job: Job) -> None:
    """It stops, quotes the server, and holds nothing against the rows."""
    job.teacher.misbehave(status=400, message="logprobs are not supported, id 17\n\x1b[31m sk-verysecretkey1")
    with pytest.raises(BadData, match="logprobs are not supported") as caught:
        job.split([row(number) for number in range(100)]).generate()
    assert caught.value.reason == "NothingAnswered"
    assert "\x1b" not in str(caught.value)
    assert "verysecret" not in str(caught.value)
    assert len(job.teacher.asked()) < 30
    job.teacher.misbehave()
    assert job.generate().facts["answered"] == 100


def test_a_server_that_wants_the_newer_name_gets_it(job: Job) -> None:
    """`max_tokens` has two names, and servers that know one only."""
    job.teacher.misbehave(newer="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    job.spec["generation"] = {"concurrency": 1}
    assert job.split(ROWS).generate().facts["answered"] == 12
    assert len(job.teacher.asked()) == 13


def test_a_key_may_be_changed_meanwhile(job: Job, tmp_path: Path) -> None:
    """A Secret's new value is taken when the old one is refused."""
    key = tmp_path / "key"
    key.write_text("first")
    job.target["keyFile"] = str(key)
    job.teacher.misbehave(accepts="second", seconds=0.3)
    threading.Timer(0.1, key.write_text, ["second"]).start()
    assert job.split(ROWS).generate().facts["answered"] == 12


def test_rubbish_only_stops_with_what_it_was(job: Job) -> None:
    """A login page instead of an API."""
    job.teacher.misbehave(status=200, text="<html>please log in</html>")
    with pytest.raises(BadData, match="not JSON: <html>please log in"):
        job.split(ROWS).generate()


def test_cut_answers_are_dropped_and_counted(job: Job) -> None:
    """finish_reason length."""
    job.spec["generation"] = {"maxTokens": 3}
    job.teacher.misbehave(words=9, match="What is 3 +")
    result = job.split(ROWS).generate()
    assert (result.facts["answered"], result.facts["truncated"]) == (11, 1)
    assert "row-3" not in {one["id"] for one in job.rows("answers.jsonl")}


def test_when_all_are_cut_the_field_is_named(job: Job) -> None:
    """Nothing to train on."""
    job.spec["generation"] = {"maxTokens": 3}
    job.teacher.misbehave(words=9)
    with pytest.raises(BadData) as caught:
        job.split(ROWS).generate()
    assert caught.value.field == "spec.generation.maxTokens"


def test_a_withheld_answer_is_refused(job: Job) -> None:
    """A provider's filter is no answer."""
    job.teacher.misbehave(finish="content_filter", match="What is 3 +")
    assert job.split(ROWS).generate().facts["reasons"] == {"finish_reason content_filter": 1}


@pytest.mark.parametrize(
    ("how", "reason", "field"),
    [
        ({"status": 401, "message": "Incorrect API key provided: s3cret-key"}, "KeyRefused", "spec.teacher.keyRef"),
        ({"status": 403}, "KeyRefused", "spec.teacher.keyRef"),
        ({"status": 404, "message": "The model does not exist"}, "ModelUnknown", "spec.teacher"),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}, "TeacherMoved", "spec.teacher"),
        ({"status": 402}, "AccountExhausted", "spec.teacher"),
        ({"status": 429, "message": "insufficient_quota: see billing"}, "AccountExhausted", "spec.teacher"),
    ],
)
def test_what_no_second_try_can_help_stops_at_once(
    job: Job, tmp_path: Path, how: dict[str, object], reason: str, field: str
) -> None:
    """The message names the field, and never the key."""
    key = tmp_path / "key"
    key.write_text("s3cret-key\n")
    job.target["keyFile"] = str(key)
    job.teacher.misbehave(**how)
    with pytest.raises(BadData) as caught:
        job.split(ROWS).generate()
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert "s3cret" not in str(caught.value)
    assert {one["key"] for one in job.teacher.asked()} == {"Bearer s3cret-key"}
    assert len(job.teacher.asked()) <= 16


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", b"a\nb", None])
def test_a_key_that_is_none_is_said_to_be(job: Job, tmp_path: Path, content: bytes | None) -> None:
    """Before anything is sent."""
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    job.target["keyFile"] = str(key)
    with pytest.raises(BadData) as caught:
        job.split(ROWS).generate()
    assert caught.value.field == "spec.teacher.keyRef"
    assert job.teacher.asked() == []


@pytest.mark.parametrize("how", [{"model": "teacher-2"}, {"fingerprint": "fp-2"}], ids=str)
def test_another_teacher_stops_the_job(job: Job, how: dict[str, object]) -> None:
    """Answers of two models are not mixed; what was paid for is kept, and with the first one back it goes on."""
    job.spec["generation"] = {"concurrency": 2}
    job.teacher.misbehave(match="What is 7 +", **how)
    with pytest.raises(BadData, match="changed") as caught:
        job.split(ROWS).generate()
    assert caught.value.reason == "TeacherChanged"
    with pytest.raises(BadData, match="changed"):
        job.generate()
    job.teacher.misbehave()
    result = job.generate()
    assert result.facts["answered"] == 12
    assert result.spend["answerTokens"] == 14


def test_a_providers_fingerprint_may_change(job: Job) -> None:
    """Large providers change theirs from one request to the next."""
    job.target["external"] = True
    job.teacher.misbehave(match="What is 7 +", fingerprint="fp-2")
    assert job.split(ROWS).generate().facts["answered"] == 12


def test_asked_to_end_it_keeps_what_is_under_way(job: Job) -> None:
    """Replies under way are waited for, and nothing more is sent."""
    stop = threading.Event()
    job.spec["generation"] = {"concurrency": 4}
    job.teacher.misbehave(seconds=0.5)
    job.split([row(number) for number in range(100)])
    threading.Timer(0.7, stop.set).start()
    with pytest.raises(TryAgain) as caught:
        job.generate(stop=stop)
    assert caught.value.reason == "Interrupted"
    asked = len(job.teacher.asked())
    assert 4 <= asked < 20  # two rounds of four, and some more where the machine is busy
    job.teacher.misbehave()
    result = job.generate()
    assert result.spend["inDoubt"] == 0
    assert len(job.teacher.asked()) == 100


def test_a_wait_ends_when_the_program_is_to_end(job: Job) -> None:
    """Nobody waits for a busy server while the pod is being taken away."""
    stop = threading.Event()
    job.teacher.misbehave(status=429, headers={"Retry-After": "60"})
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    with pytest.raises(TryAgain):
        job.split(ROWS).generate(Patience(total=600), stop=stop)
    assert time.monotonic() - began < 3


def test_a_usage_that_is_not_told_is_taken_at_its_most(job: Job) -> None:
    """The budget holds all the same."""
    job.teacher.misbehave(noUsage=True)
    result = job.split(ROWS).generate()
    assert result.spend["answerTokens"] == 12 * 512


def test_a_budget_in_money_needs_a_price(job: Job) -> None:
    """The field is named before anything is sent."""
    job.spec["budget"] = {"costMicros": 100}
    with pytest.raises(BadData, match="ModelTier large") as caught:
        job.split(ROWS).generate()
    assert caught.value.field == "spec.budget.costMicros"
    assert job.teacher.asked() == []


@pytest.mark.parametrize(
    ("budget", "concurrency"), [({"teacherTokens": 6_000}, 16), ({"costMicros": 6_000}, 3)], ids=["tokens", "money"]
)
def test_spending_stops_within_two_percent(job: Job, budget: dict[str, int], concurrency: int) -> None:
    """Below the cap and near it, and on from there when it is raised; evaluation counts, too."""
    price = {"inputPerMillionMicros": 1_000_000, "outputPerMillionMicros": 1_000_000}
    job.target["price"] = price
    job.spec |= {"budget": budget, "generation": {"concurrency": concurrency, "maxTokens": 60}}
    job.teacher.misbehave(words=40)
    job.spec["evaluation"] = {"maxTokens": 60}
    sealed = [row(number) for number in range(5000, 5010)]
    job.split([row(number) for number in range(300)], evaluation=sealed).evaluate(Stage.EVALUATE_TEACHER)
    with pytest.raises(BudgetExhausted) as caught:
        job.generate()
    used = sum(job.teacher.stats()["tokens"])
    assert 0.98 * 6_000 <= used <= 6_000
    assert caught.value.field == f"spec.budget.{next(iter(budget))}"
    job.spec["budget"] = {name: cap * 100 for name, cap in budget.items()}
    job.generate()
    stats = job.teacher.stats()
    assert stats["asked"] == stats["distinct"] == 310
