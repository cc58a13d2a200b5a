"""Two tiers that a person or a test can climb: a small one, sometimes unsure or wrong, and a large one that is neither.

Decides what they say and writes their models and a table; starts nothing.
"""

from __future__ import annotations

from pathlib import Path

from e2e.engine.server import Engine
from e2e.engine.tiny import CONTEXT, Answer, write_random, write_scripted

CALL = '<tool_call>\n{"name": "get_weather", "arguments": %s}\n</tool_call>'

LOST = """\
Nobody who looks into this matter for the first time would dare to say what comes of it; some hold that yellow birds
fly south, others swear by maps drawn before any bridge crossed our river, and both camps quote people whose names we
cannot find. Perhaps twelve, maybe ninety, possibly nothing at all. Ask again tomorrow, when weather, mood and luck have
turned, or ask a bigger machine, for my own guess is worth less than paper used twice."""

SMALL = (
    Answer(CALL % '{"town": 7}', certainty=0.9, tools=True),
    Answer("<think>\nSix times seven.\n</think>\n\nSo it makes 42.", certainty=0.9, asked="think"),
    Answer("I do not know, perhaps 17 or so.", certainty=0.08, asked="hard", rivals=3),
    Answer("Well, this began as a good reply, yet who can tell how such a story ends?", (0.95, 0.05), "fade", rivals=3),
    Answer(LOST, certainty=0.02, asked="lost", rivals=3),
    Answer("Sure: {answer = 42", certainty=0.95, asked="broken"),
    Answer('{"answer": 42}', certainty=0.95, asked="JSON"),
    Answer("The answer is 42.", certainty=0.95),
)
"""The call it makes is wrong (`town` for `city`); `hard` and `fade` make it unsure, from the start or half-way, and so
does `lost`, for so long that a reader can stop listening before the end."""

LARGE = (
    Answer(CALL % '{"city": "Paris"}', certainty=0.98, tools=True),
    Answer('{"answer": 42, "checked": true}', certainty=0.98, asked="broken"),
    Answer('{"answer": 42, "from": "large"}', certainty=0.98, asked="JSON"),
    Answer("Looked at with care, the answer is 42.", certainty=0.98),
)
"""Always sure; each of its texts differs from the small tier's, so that a mixed answer shows."""

TABLE = """\
formatVersion: 1
tiers:
- {{name: small, address: "{small}", model: small}}
- {{name: large, address: "{large}", model: large}}
policies:
- name: support
  model: support            # the name clients ask for
  tiers: [small, large]     # cheapest first
  mode: Cascade
  accept: {{thresholdPermille: 600, confidence: {{}}}}
"""


def table(small: Engine, large: Engine) -> str:
    """Return the router's table for two tiers."""
    return TABLE.format(small=small.address, large=large.address)


def tiers(folder: Path, *, nonsense: bool = False, ports: tuple[int, int] = (0, 0)) -> tuple[Engine, Engine]:
    """Write both models into a folder and return their engines, not started yet.

    With `nonsense` both are random: the small one unsure (mean logprob about -5.7), the large one sure (about -0.4).
    """
    small, large = folder / "small", folder / "large"
    if nonsense:
        write_random(small, sureness=0.2, seed=1)
        write_random(large, sureness=8, seed=2)
    else:
        write_scripted(small, SMALL)
        write_scripted(large, LARGE)
    return (
        Engine(small, "small", port=ports[0], tools=True, max_model_len=CONTEXT),
        Engine(large, "large", port=ports[1], tools=True, max_model_len=CONTEXT),
    )
