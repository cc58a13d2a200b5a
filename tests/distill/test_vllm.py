"""Generate and Evaluate against a real vLLM: logprobs, fingerprint, a prompt that is too long, an engine that loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.engine.server import Engine
from e2e.engine.tiny import Answer, write_scripted
from modeltiers.distill.faults import BadData
from modeltiers.domain.distill.stages import Stage
from tests.distill.kit import Job, TeacherProcess, local, row

pytestmark = pytest.mark.slow
NAME = "tiny"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """vLLM that was just started, and answers one sum right and all others wrong."""
    answers = [Answer("it is 24", asked="What is 3 +"), Answer("who knows 0")]
    found = Engine(write_scripted(tmp_path_factory.mktemp("models") / "tiny", answers), NAME, max_model_len=2048)
    with found.start():
        yield found


@pytest.fixture
def real(engine: Engine, tmp_path: Path) -> Job:
    """A job that has it as teacher and as engine."""
    place = {"baseUrl": f"{engine.url}/v1", "model": NAME}
    nobody = TeacherProcess(0, tmp_path / "none")
    return Job(local(tmp_path / "store"), nobody, target=place, plan_more={"engine": place})


def test_an_engine_is_waited_for_and_its_model_is_scored(real: Job) -> None:
    """While vLLM loads, too; the calibration part comes with what the router's confidence reads."""
    real.spec["evaluation"] = {"maxTokens": 64}
    real.split([row(1)], evaluation=[row(number) for number in range(2, 6)], calibration=[row(3)])
    result = real.evaluate(Stage.EVALUATE_STUDENT, engine_seconds=240)
    assert [one["score"] for one in real.rows("items.jsonl", Stage.EVALUATE_STUDENT)] == [0, 1000, 0, 0]
    assert result.facts["score"] == 250
    (line,) = real.rows("calibration.jsonl", Stage.EVALUATE_STUDENT)
    assert line["right"] is True
    assert line["logprobs"][0]["logprob"] == pytest.approx(-0.105, abs=0.01)
    assert len(line["logprobs"][0]["top"]) == 5


def test_the_teachers_answers_come_with_logprobs_and_who_it_was(real: Job) -> None:
    """A prompt that does not fit is refused with vLLM's own words, and cut answers are dropped."""
    real.spec["generation"] = {"topLogprobs": 3, "maxTokens": 64, "temperatureMilli": 0}
    long = row(9, messages=[{"role": "user", "content": "far too long " * 3000}])
    result = real.split([row(3), row(4), long]).generate()
    assert (result.facts["answered"], result.facts["refused"]) == (2, 1)
    assert result.facts["logprobs"] is True
    assert result.facts["fingerprint"].startswith("vllm-")
    (reason,) = result.facts["reasons"]
    assert "400" in reason
    assert "maximum context length" in reason
    answers = real.rows("answers.jsonl")
    assert answers[0]["answer"] == {"role": "assistant", "content": "it is 24"}
    assert len(answers[0]["logprobs"]) == answers[0]["usage"]["answerTokens"]
    assert "".join(token["token"] for token in answers[0]["logprobs"]).startswith("it is 24")


def test_a_judge_is_held_to_the_form_of_a_score(real: Job) -> None:
    """vLLM's guided decoding: the model, which would say `it is 24`, can say a score only."""
    real.spec["generation"] = {"maxTokens": 64}
    real.spec["judge"] = {"tierRef": {"name": "wise"}, "rubric": "Be right.", "minScorePermille": 1, "maxTokens": 64}
    real.plan_more = {"judge": {**real.target}}
    real.split([row(3)])
    real.done(Stage.GENERATE, real.generate())
    try:
        facts = real.filter().facts
    except BadData as nothing_kept:  # its score may well be 0
        assert "1 LowScore" in str(nothing_kept)
    else:
        assert (facts["judge"]["scored"], facts["judge"]["notScored"]) == (1, 0)


def test_an_unknown_model_is_named(real: Job) -> None:
    """By vLLM's 404."""
    real.target["model"] = "another"
    with pytest.raises(BadData, match="another") as caught:
        replace(real, plan_more={}).split([row(3)]).generate()
    assert caught.value.reason == "ModelUnknown"
