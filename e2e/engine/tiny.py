"""Tiny models as ordinary Hugging Face folders, made with the standard library in well under a second.

A *random* model says nonsense, surely or unsurely. A *scripted* model says sentences that its maker chose, token by
token with probabilities that its maker chose, and then ends. Both are plain Qwen2 models; no engine is told more.
"""

from __future__ import annotations

import json
import math
import random
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from e2e.engine.tokenizer import END_OF_TEXT, MARKS, TURN_END, Tokenizer, learn, spelled

HEAD = 32  # the CPU build takes heads of 32, 64, 96, ... only; others start well and die at the first token
CONTEXT = 4096
LONGEST_PIECE = 12
RIVALS = ("a", "e", "i", "o")
"""What a model nearly says instead; three of them, since the fourth may be what it says."""
RIVALRY = 0.95
"""How likely a rival is against the token that is said, or against its share of the doubt."""
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
PLACE_OF_START = "{#- start of the answer -#}\n"

Matrix: TypeAlias = "tuple[tuple[int, ...], array[float]]"  # Python 3.11 cannot subscript an array at run time


@dataclass(frozen=True)
class Answer:
    """One thing that a scripted model says, when it says it, and how sure of each token it is.

    `asked`: only when the last message of the user contains this. `tools`: only when the request offers tools and holds
    no result of one yet. `certainty`: the probability of each token, or several, spread evenly from its first token to
    its end; 0.9 is a mean logprob of -0.105. The end of the turn is a token too. `rivals`: so many other tokens are
    nearly as likely, as where a real model is unsure, at most three; with none all others are equally unlikely.
    """

    text: str
    certainty: float | Sequence[float] = 0.9
    asked: str = ""
    tools: bool = False
    rivals: int = 0

    def probability(self, place: int, of: int) -> float:
        """Return the probability of token `place` of `of`."""
        given = self.certainty if isinstance(self.certainty, Sequence) else (self.certainty,)
        return given[place * len(given) // of]


def write_random(folder: Path, *, sureness: float = 1.0, seed: int = 1) -> Path:
    """Write a model with random weights; it never ends by itself.

    `sureness` is the spread of its logits: sampled at temperature 1, a reply's mean logprob is about -0.4 at 8, -1.2 at
    3 and -5.7 at 0.2.
    """
    tokenizer = Tokenizer(learn())
    shape = _config(tokenizer, hidden=2 * HEAD, layers=2)
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret

    def weights(name: str, rows: int, columns: int) -> Matrix:
        scale = sureness / math.sqrt(columns) if name == "lm_head.weight" else 1 / math.sqrt(columns)
        return (rows, columns), array("f", (dice.gauss(0, scale) for _ in range(rows * columns)))

    tensors = {name: weights(name, *size) if len(size) == 2 else _flat(name, size) for name, size in _sizes(shape)}
    return _write(folder, tokenizer, shape, tensors, _template(()), generation={})


def write_untrained(folder: Path, tokenizer: Tokenizer, *, hidden: int, layers: int, seed: int = 1) -> Path:
    """Write a model as training starts with it: small random weights, which know nothing."""
    shape = {**_config(tokenizer, hidden=hidden, layers=layers), "num_key_value_heads": hidden // HEAD}
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret

    def weights(rows: int, columns: int) -> Matrix:
        return (rows, columns), array("f", (dice.gauss(0, 0.02) for _ in range(rows * columns)))

    tensors = {name: weights(*size) if len(size) == 2 else _flat(name, size) for name, size in _sizes(shape)}
    return _write(folder, tokenizer, shape, tensors, _template(()), generation={"temperature": 0.0})


def write_scripted(folder: Path, answers: Sequence[Answer]) -> Path:
    """Write a model that says one of these answers, whatever it is asked, and ends: the first that applies.

    The last answer must apply always. The answers are spelled in tokens that nothing else in them uses, so they should
    not be many nor long (a thousand characters in all is well). Without a temperature in the request it is greedy, so
    the answer is always whole; with temperature 1 it strays as often as its certainty says.
    """
    if any(not 0 <= answer.rivals < len(RIVALS) for answer in answers):
        raise ValueError(f"an answer has at most {len(RIVALS) - 1} rivals")
    if not answers or answers[-1].asked or answers[-1].tools:
        raise ValueError("the last answer must apply always: give it neither `asked` nor `tools`")
    spellings = _spell([answer.text for answer in answers])
    extra = [piece for spelling in spellings for piece in spelling if piece not in MARKS]
    starts = tuple(f"<|answer_{number}|>" for number in range(1, len(answers)))
    tokenizer = Tokenizer(learn(), tuple(extra), starts)
    states = len(answers) + sum(map(len, spellings))
    shape = _config(tokenizer, hidden=HEAD * math.ceil(states / HEAD), layers=1)
    tensors = {name: _zeros(name, size) for name, size in _sizes(shape)}
    _wire(tensors, tokenizer, answers, spellings)
    return _write(folder, tokenizer, shape, tensors, _template(answers), generation={"temperature": 0.0})


def _wire(
    tensors: Mapping[str, Matrix],
    tokenizer: Tokenizer,
    answers: Sequence[Answer],
    spellings: Sequence[Sequence[str]],
) -> None:
    """Let each token choose the next one.

    Attention and MLP are zero, so what the head sees is the last token's embedding and nothing else. Each token of an
    answer points in a direction of its own; everything else, whatever the prompt ends with, points where answers start.
    The head's row of the token that follows holds the logit that gives it the wanted probability; all others get 0.
    """
    (vocabulary, hidden), embedding = tensors["model.embed_tokens.weight"]
    _, head = tensors["lm_head.weight"]
    directions = {tokenizer.id(f"<|answer_{number}|>"): number for number in range(1, len(answers))}
    # the last answer is where everything starts that has no direction of its own
    starts = [*range(1, len(answers)), 0]
    free = iter(range(len(answers), hidden))
    for answer, start, spelling in zip(answers, starts, spellings, strict=True):
        here = start
        for place, text in enumerate([*spelling, TURN_END]):
            token = tokenizer.id(text)
            chance = answer.probability(place, len(spelling) + 1)
            first, others = _logits(chance, answer.rivals, vocabulary)
            head[token * hidden + here] = first / math.sqrt(hidden)
            for rival in [letter for letter in RIVALS if letter != text][: answer.rivals]:
                head[tokenizer.id(rival) * hidden + here] = others / math.sqrt(hidden)
            if text != TURN_END:
                here = directions[token] = next(free)
    for token in range(vocabulary):
        # RMSNorm leaves a vector with one entry of sqrt(hidden) as it is
        embedding[token * hidden + directions.get(token, 0)] = math.sqrt(hidden)


def _logits(chance: float, rivals: int, vocabulary: int) -> tuple[float, float]:
    """Return the logit that gives a token this probability, and that of its rivals, when all others have logit 0."""
    if not 2 / vocabulary < chance < 1:
        raise ValueError(f"certainty {chance} must lie between {2 / vocabulary:.4f} and 1: it is a token's probability")
    rival = min(chance, (1 - chance) / rivals) * RIVALRY if rivals else 0.0
    rest = (1 - chance - rivals * rival) / (vocabulary - 1 - rivals)
    return math.log(chance / rest), math.log(rival / rest) if rivals else 0.0


def _spell(texts: Sequence[str]) -> list[list[str]]:
    """Cut texts into pieces so that no piece occurs twice in any of them.

    Pieces that texts are encoded to are taken in need only ("7" has no other), and never the end of a chat's prompt: a
    prompt that ends with one would start in the middle of an answer.
    """
    common = set(Tokenizer(learn()).ids) - set(MARKS)
    used = {spelled("\n")}
    spellings: list[list[str]] = []
    for text in texts:
        found = _cut(text, used | common) or _cut(text, used)
        if found is None:
            raise ValueError(f"cannot spell {text!r} in tokens that nothing else uses; shorten the answers")
        used.update(map(spelled, found))
        spellings.append(found)
    return spellings


def _cut(text: str, taken: set[str]) -> list[str] | None:
    """Cut one text, short pieces first; None when there is no way.

    Depth first, and a place from which there was no way is not tried again: what is taken on the way there differs, but
    a text where that matters is a string of one letter, and gets longer pieces.
    """
    path: list[str] = []
    choices = [_pieces(text, 0)]
    dead: set[int] = set()
    while choices:
        at = sum(map(len, path))
        if at == len(text):
            return path
        piece = next(choices[-1], None)
        if piece is None:
            dead.add(at)
            choices.pop()
            if path:
                path.pop()
        elif spelled(piece) not in taken and piece not in path and at + len(piece) not in dead:
            path.append(piece)
            choices.append(_pieces(text, at + len(piece)))
    return None


def _pieces(text: str, at: int) -> Iterator[str]:
    """Return the pieces that may come next, best first; a mark is one piece or none."""
    for mark in MARKS:
        if text.startswith(mark, at):
            yield mark
            return
    nearest = min((place for mark in MARKS if (place := text.find(mark, at)) >= 0), default=len(text))
    longest = min(LONGEST_PIECE, nearest - at)
    yield from (text[at : at + length] for length in sorted(range(1, longest + 1), key=lambda n: abs(n - 4)))


def _config(tokenizer: Tokenizer, hidden: int, layers: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "dtype": "float32",
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden if layers > 1 else HEAD,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD,
        "num_key_value_heads": 1,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "bos_token_id": tokenizer.id(END_OF_TEXT),
        "eos_token_id": tokenizer.id(TURN_END),
    }


def _sizes(shape: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Return the name and size of every tensor of a Qwen2 model."""
    hidden, inner, keys = shape["hidden_size"], shape["intermediate_size"], HEAD * shape["num_key_value_heads"]
    yield "model.embed_tokens.weight", (shape["vocab_size"], hidden)
    for number in range(shape["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        for part, rows in (("q", hidden), ("k", keys), ("v", keys)):
            yield f"{layer}.self_attn.{part}_proj.weight", (rows, hidden)
            yield f"{layer}.self_attn.{part}_proj.bias", (rows,)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (shape["vocab_size"], hidden)


def _flat(name: str, size: tuple[int, ...]) -> Matrix:
    """Return a vector: ones for a norm, zeros for a bias."""
    return size, array("f", [1.0 if name.endswith("norm.weight") else 0.0]) * math.prod(size)


def _zeros(name: str, size: tuple[int, ...]) -> Matrix:
    return _flat(name, size) if len(size) == 1 else (size, array("f", [0.0]) * math.prod(size))


def _template(answers: Sequence[Answer]) -> str:
    """Return the chat template; it ends the prompt of a scripted model with the mark of the answer that applies."""
    rules = ""
    for number, answer in enumerate(answers[:-1], 1):
        checks = [f"{json.dumps(answer.asked)} in asked"] if answer.asked else []
        checks += ["tools and not answered"] if answer.tools else []
        rules += (
            f"{{%- {'elif' if rules else 'if'} {' and '.join(checks) or 'true'} %}}{{{{- '<|answer_{number}|>' }}}}\n"
        )
    head, mark, end = TEMPLATE.read_text().partition(PLACE_OF_START)
    assert mark, f"{TEMPLATE} lost its mark"
    return head + rules + ("{%- endif %}\n" if rules else "") + end


def _write(
    folder: Path,
    tokenizer: Tokenizer,
    shape: Mapping[str, Any],
    tensors: Mapping[str, Matrix],
    template: str,
    generation: Mapping[str, Any],
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ends = {key: shape[key] for key in ("bos_token_id", "eos_token_id")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (folder / "config.json").write_text(json.dumps(shape, indent=1))
    (folder / "generation_config.json").write_text(json.dumps({**ends, **generation}, indent=1))
    (folder / "tokenizer.json").write_text(tokenizer.dump())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    (folder / "chat_template.jinja").write_text(template)
    (folder / "model.safetensors").write_bytes(b"".join(_safetensors(tensors)))
    return folder


def _safetensors(tensors: Mapping[str, Matrix]) -> Iterator[bytes]:
    """Return the parts of a safetensors file: the header's length, the header, the numbers in its order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (size, numbers) in tensors.items():
        end = at + len(numbers) * numbers.itemsize
        header[name] = {"dtype": "F32", "shape": list(size), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    yield from (numbers.tobytes() for _, numbers in tensors.values())
