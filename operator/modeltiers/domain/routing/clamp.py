"""What of a request is lowered or refused, so that one request is not the work of thousands. Pure.

It looks at what a request asks for besides its prompt: answers, tokens, logprobs, stop texts, and fields by which an
engine would run or fetch what a client names. It does not estimate what the prompt costs.
"""

from __future__ import annotations

from typing import Final

from modeltiers.domain.routing.ask import ABSENT, BadRequest, Request, read_prompts
from modeltiers.domain.routing.table import Clamp

_NEVER: Final = {
    "prompt_embeds": "tensors are unpickled by the engine",
    "logits_processors": "it names code that the engine would run",
    "vllm_xargs": "it reaches into the engine's plugins",
    "kv_transfer_params": "it names hosts that the engine would ask",
    "ec_transfer_params": "it names hosts that the engine would ask",
}
"""Fields that no client may send, and why."""


def clamp(limits: Clamp, fields: Request) -> dict[str, bytes]:
    """Return what must change to keep within the limits, as fields to splice; empty when nothing must.

    Raises BadRequest for what no client may send, where lowering would change the meaning (answers, stop texts), and
    for all else too when the limits say Refuse.
    """
    _check_never(fields)
    _check_answers(limits, fields)
    stop = fields.stop if isinstance(fields.stop, list) else ()
    if len(stop) > limits.stop:
        raise BadRequest("stop", f"at most {limits.stop} stop sequences are taken here, the request has {len(stop)}")
    lowered = _lowered(limits, fields)
    if lowered and limits.action == "Refuse":
        name, most = next(iter(lowered.items()))
        raise BadRequest(name, f"{name} is at most {most} here")
    changes = {name: b"%d" % most for name, most in lowered.items()}
    open_end = fields.max_tokens is None and fields.max_completion_tokens is None
    if open_end and limits.max_tokens is not None and not memoryview(fields.input):
        changes["max_tokens"] = b"%d" % limits.max_tokens
    return changes


def _check_never(fields: Request) -> None:
    if (
        fields.prompt_embeds
        is fields.logits_processors
        is fields.vllm_xargs
        is fields.kv_transfer_params
        is fields.ec_transfer_params
        is ABSENT
    ):
        return  # as nearly all requests
    for name, why in _NEVER.items():
        value = getattr(fields, name)
        if value is not ABSENT and bytes(value) != b"null":
            raise BadRequest(name, f"{name} is not taken here: {why}; leave it out")


def _check_answers(limits: Clamp, fields: Request) -> None:
    """Refuse more answers than may be asked for; each of several prompts is answered `n` times."""
    if fields.n is fields.best_of is None and fields.prompt is ABSENT:
        return  # one answer to one conversation
    for name, value in (("n", fields.n), ("best_of", fields.best_of)):
        if value is not None and value > limits.n:
            raise BadRequest(name, f"{name} is at most {limits.n} here, the request says {value}")
    if bytes(memoryview(fields.prompt)[:1]) != b"[":
        return
    prompts, each = read_prompts(fields).count(), max(fields.n or 1, fields.best_of or 1)
    if prompts * each > limits.n:
        asked = f"{prompts} prompts" if each == 1 else f"{prompts} prompts with {each} answers each"
        raise BadRequest("prompt", f"at most {limits.n} answers are given to one request here; it asks for {asked}")


def _lowered(limits: Clamp, fields: Request) -> dict[str, int]:
    """Return the fields that ask for more than they may, with what they may."""
    asked: list[tuple[str, int | None, int]] = []
    if not fields.logprobs is fields.top_logprobs is fields.prompt_logprobs is None:
        asked += (
            ("top_logprobs", fields.top_logprobs, limits.logprobs),
            ("prompt_logprobs", fields.prompt_logprobs, limits.logprobs),
            # In a chat it says only whether.
            ("logprobs", None if isinstance(fields.logprobs, bool) else fields.logprobs, limits.logprobs),
        )
    if limits.max_tokens is not None:
        asked += (
            ("max_tokens", fields.max_tokens, limits.max_tokens),
            ("max_completion_tokens", fields.max_completion_tokens, limits.max_tokens),
            ("min_tokens", fields.min_tokens, limits.max_tokens),
        )
    return {name: most for name, value, most in asked if value is not None and value > most}
