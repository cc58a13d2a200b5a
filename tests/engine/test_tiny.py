"""Tiny models are ordinary Hugging Face folders, the same every time, and wired as their makers said."""

from __future__ import annotations

import json
import math
import struct
from array import array
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from e2e.engine import ladder
from e2e.engine.tiny import Answer, write_random, write_scripted
from e2e.engine.tokenizer import TURN_END, Tokenizer, learn

ANSWERS = (Answer("It may be 17.", certainty=0.3, asked="hard"), Answer('{"answer": 42}', certainty=0.9))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[list[int], array[float]]]]:
    """Return config and weights of a folder."""
    raw = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__")
    weights = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        weights[name] = (entry["shape"], array("f", body[start:end]))
        assert len(weights[name][1]) == math.prod(entry["shape"])
    return json.loads((folder / "config.json").read_text()), weights


def spoken(folder: Path, token: int) -> list[tuple[int, float]]:
    """Follow a scripted model greedily from a token: what vLLM computes, for attention and MLP that add nothing."""
    config, weights = read(folder)
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    embedding, head = weights["model.embed_tokens.weight"][1], weights["lm_head.weight"][1]
    said: list[tuple[int, float]] = []
    while len(said) < 200 and (not said or said[-1][0] != config["eos_token_id"]):
        row = embedding[token * hidden : (token + 1) * hidden]
        root = math.sqrt(sum(x * x for x in row) / hidden + config["rms_norm_eps"])
        logits = [
            sum(a * b / root for a, b in zip(row, head[t * hidden : (t + 1) * hidden], strict=True) if a)
            for t in range(vocabulary)
        ]
        token = max(range(vocabulary), key=logits.__getitem__)
        said.append((token, math.exp(logits[token]) / sum(map(math.exp, logits))))
    return said


def words(folder: Path) -> dict[int, str]:
    tokens = json.loads((folder / "tokenizer.json").read_text())
    found = {number: name for name, number in tokens["model"]["vocab"].items()}
    return found | {entry["id"]: entry["content"] for entry in tokens["added_tokens"]}


def prompt(folder: Path, text: str, **more: Any) -> str:
    """Render a chat as transformers does."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "chat_template.jinja").read_text())
    return template.render(messages=[{"role": "user", "content": text}], add_generation_prompt=True, **more)


def test_the_same_folder_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_random(tmp_path / name / "random", seed=3)
        write_scripted(tmp_path / name / "scripted", ANSWERS)
    for one in sorted((tmp_path / "a").rglob("*.*")):
        assert one.read_bytes() == (tmp_path / "b" / one.relative_to(tmp_path / "a")).read_bytes(), one


def test_a_random_model_is_small_and_its_head_as_sure_as_asked(tmp_path: Path) -> None:
    config, weights = read(write_random(tmp_path / "model", sureness=8))
    assert 100_000 < sum(len(numbers) for _, numbers in weights.values()) < 200_000
    head = weights["lm_head.weight"][1]
    spread = math.sqrt(sum(x * x for x in head) / len(head)) * math.sqrt(config["hidden_size"])
    assert spread == pytest.approx(8, rel=0.05)
    assert config["hidden_size"] // config["num_attention_heads"] == 32


@pytest.mark.parametrize(
    ("start", "text", "chance"), [("\n", '{"answer": 42}', 0.9), ("<|answer_1|>", "It may be 17.", 0.3)]
)
def test_a_scripted_model_spells_its_answer_with_the_certainty_given(
    tmp_path: Path, start: str, text: str, chance: float
) -> None:
    folder = write_scripted(tmp_path / "model", ANSWERS)
    names = words(folder)
    first = next(number for number, name in names.items() if name == {"\n": "Ċ"}.get(start, start))
    said = spoken(folder, first)
    assert "".join(names[token] for token, _ in said).replace("Ġ", " ") == text + TURN_END
    assert [probability for _, probability in said] == pytest.approx([chance] * len(said), rel=1e-4)


def test_certainty_may_change_on_the_way(tmp_path: Path) -> None:
    folder = write_scripted(tmp_path / "model", [Answer("one two three four five six", certainty=(0.9, 0.2))])
    chances = [probability for _, probability in spoken(folder, 0)]
    half = math.ceil(len(chances) / 2)
    assert chances == pytest.approx([0.9] * half + [0.2] * (len(chances) - half), rel=1e-4)


def test_rivals_take_their_share_of_the_doubt_and_never_win(tmp_path: Path) -> None:
    for chance, name in ((0.95, "sure"), (0.25, "even"), (0.05, "lost")):
        folder = write_scripted(tmp_path / name, [Answer("It may be 17.", certainty=chance, rivals=3)])
        said, names = spoken(folder, 0), words(folder)
        assert [probability for _, probability in said] == pytest.approx([chance] * len(said), rel=1e-4)
        assert "".join(names[token] for token, _ in said).replace("Ġ", " ") == "It may be 17." + TURN_END


def test_the_template_picks_the_first_answer_that_applies(tmp_path: Path) -> None:
    folder = write_scripted(tmp_path / "model", [Answer("call", tools=True), *ANSWERS])
    tool = {"type": "function", "function": {"name": "f"}}
    assert prompt(folder, "an easy one").endswith("<|im_start|>assistant\n")
    assert prompt(folder, "a hard one").endswith("assistant\n<|answer_2|>")
    assert prompt(folder, "a hard one", tools=[tool]).endswith("assistant\n<|answer_1|>")
    assert '"name": "f"' in prompt(folder, "x", tools=[tool])


def test_answers_that_cannot_be_spelled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot spell"):
        write_scripted(tmp_path, [Answer("a", asked="x"), Answer("a")])
    with pytest.raises(ValueError, match="must apply always"):
        write_scripted(tmp_path, [Answer("a", asked="x")])
    with pytest.raises(ValueError, match="token's probability"):
        write_scripted(tmp_path, [Answer("well", certainty=1)])
    with pytest.raises(ValueError, match="token's probability"):
        write_scripted(tmp_path, [Answer("well", certainty=0.001)])
    with pytest.raises(ValueError, match="at most 3 rivals"):
        write_scripted(tmp_path, [Answer("well", rivals=4)])


def test_an_answer_of_one_letter_and_an_empty_one_can_be_said(tmp_path: Path) -> None:
    folder = write_scripted(tmp_path / "model", [Answer("", asked="nothing"), Answer("7")])
    names = words(folder)
    assert [names[token] for token, _ in spoken(folder, 0)] == ["7", TURN_END]
    mark = next(number for number, name in names.items() if name == "<|answer_1|>")
    assert [names[token] for token, _ in spoken(folder, mark)] == [TURN_END]


def test_the_ladder_s_tiers_never_say_the_same(tmp_path: Path) -> None:
    small, large = ladder.tiers(tmp_path)
    assert not {answer.text for answer in ladder.SMALL} & {answer.text for answer in ladder.LARGE}
    assert json.loads((small.folder / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    assert small.address in ladder.table(small, large)


def test_a_tokenizer_encodes_nothing_to_its_extra_tokens() -> None:
    merges = learn()
    plain, extra = Tokenizer(merges), Tokenizer(merges, ("swer",))
    assert len(extra) == len(plain) + 1
    assert "swer" not in {"".join(pair) for pair in extra.merges}
    assert len(set(merges)) == len(merges) == 160
