"""An honest OpenAI-compatible server for tests: answers follow from the question, every request is on record.

    python -m tests.distill.teacher --record FILE

It prints its port and serves until it is ended. What it is asked goes to the record before it is answered, a line of
JSON each, so that a test knows what was asked even of a server or client that was killed. POST /misbehave changes how
it answers; the arithmetic it knows is "N + M" in the last message. Asked for a score it is a judge that knows the same:
it reads the line of JSON and gives 10 to the right sum and 0 to another, or falls for what ends the data (`gullible`).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

MODEL = "teacher-1"


@dataclass
class Count:
    """What was asked since it last forgot; a reply that was under way then counts for its own time alone."""

    asked: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0])
    under_way: int = 0
    most_under_way: int = 0
    tries: dict[str, int] = field(default_factory=dict)


class Teacher:
    """The server's state: how it misbehaves, and what it was asked."""

    def __init__(self, record: Path | None) -> None:
        self.record = record.open("a", buffering=1) if record else None
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        if self.record:
            self.record.truncate(0)
        self.how: dict[str, Any] = {}
        self.count = Count()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer, or misbehave as told."""
        body = await request.json()
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        count = self.count
        count.asked += 1
        count.tries[digest] = count.tries.get(digest, 0) + 1
        if self.record:
            key, prompt = request.headers.get("Authorization"), body["messages"][-1]["content"]
            said = {"hash": digest, "prompt": prompt, "key": key}
            self.record.write(json.dumps(said) + "\n")
        count.under_way += 1
        count.most_under_way = max(count.most_under_way, count.under_way)
        try:
            return await self._reply(request, body, count, count.tries[digest])
        finally:
            count.under_way -= 1

    async def _reply(self, request: web.Request, body: dict[str, Any], count: Count, tries: int) -> web.StreamResponse:
        how = self.how
        await asyncio.sleep(how.get("seconds", 0))
        if how.get("newer") and "max_tokens" in body:
            return web.json_response({"error": {"message": how["newer"]}}, status=400)
        if "accepts" in how and request.headers.get("Authorization") != f"Bearer {how['accepts']}":
            return web.Response(status=401)
        applies = how.get("match", "") in body["messages"][-1]["content"] and tries <= how.get("times", 10**9)
        if applies and (wrong := await self._wrong(request, how)) is not None:
            return wrong
        reply = answer(body, how if applies else {})
        count.tokens[0] += reply["usage"]["prompt_tokens"]
        count.tokens[1] += reply["usage"]["completion_tokens"]
        if how.get("noUsage"):
            del reply["usage"]
        return web.json_response(reply)

    async def _wrong(self, request: web.Request, how: dict[str, Any]) -> web.StreamResponse | None:
        """What is no completion at all."""
        await asyncio.sleep(how.get("hang", 0))
        if "status" in how:
            text = how.get("text", json.dumps({"error": {"message": how.get("message", "as told")}}))
            return web.Response(status=how["status"], text=text, headers=how.get("headers", {}))
        if "close" in how:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if "drip" in how or "big" in how:
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(how.get("big", 10**9)):
                await response.write(b" " if "drip" in how else b" " * (1 << 20))
                await asyncio.sleep(how.get("drip", 0))
            return response
        return None

    async def models(self, _: web.Request) -> web.Response:
        """The models served; none while it is told to load."""
        if self.how.get("loading"):
            return web.Response(status=503)
        served = {"id": self.how.get("serves", MODEL), "object": "model"}
        if "root" in self.how:
            served["root"] = self.how["root"]
        return web.json_response({"data": [served]})

    async def misbehave(self, request: web.Request) -> web.Response:
        """Change how it answers, from now on."""
        self.how = await request.json()
        return web.Response()

    async def forget(self, _: web.Request) -> web.Response:
        """Begin anew."""
        self.reset()
        return web.Response()

    async def stats(self, _: web.Request) -> web.Response:
        """What it was asked so far."""
        count = self.count
        most = {"mostUnderWay": count.most_under_way}
        return web.json_response({"asked": count.asked, "tokens": count.tokens, "distinct": len(count.tries), **most})


def answer(body: dict[str, Any], how: dict[str, Any]) -> dict[str, Any]:
    """The completion for a request: the same for the same one."""
    prompt = body["messages"][-1]["content"]
    found = re.search(r"(\d+) \+ (\d+)", prompt)
    text = how.get("answer") or (str(int(found[1]) + int(found[2])) if found else prompt[::-1])
    if "response_format" in body and "answer" not in how:
        text = json.dumps({"score": scored(prompt, how)})
    if "words" in how:
        text = " ".join(f"w{i}" for i in range(how["words"]))
    tokens = re.findall(r"\s*\S+", text)
    longest = body.get("max_tokens", body.get("max_completion_tokens"))
    cut = len(tokens) > longest
    tokens = tokens[:longest]
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(tokens)},
        "finish_reason": how.get("finish", "length" if cut else "stop"),
    }
    if body.get("logprobs") and not how.get("noLogprobs"):
        choice["logprobs"] = {"content": [_logprob(token, body["top_logprobs"]) for token in tokens]}
    choice.update(how.get("choice", {}))
    size = sum(len(str(message["content"]).split()) + 3 for message in body["messages"])
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": how.get("model", body["model"]),
        "system_fingerprint": how.get("fingerprint", "fp-1"),
        "choices": [choice] if not how.get("noChoices") else [],
        "usage": {"prompt_tokens": size, "completion_tokens": len(tokens), "total_tokens": size + len(tokens)},
    }


def scored(prompt: str, how: dict[str, Any]) -> int:
    """What it gives an answer as a judge. A mark of a chat template in the data would lead it astray."""
    shown, closing = prompt.split("\n")  # a third line would be somebody else's
    if how.get("gullible") and ("<|" in shown or "give 10" in closing.lower()):
        return 10
    data = json.loads(shown)
    if "score" in how:
        return int(how["score"])
    numbers = re.search(r"(\d+) \+ (\d+)", data["conversation"][-1]["content"])
    right = numbers is not None and data["answer"].strip() == str(int(numbers[1]) + int(numbers[2]))
    return 10 if right else 0


def _logprob(token: str, top: int) -> dict[str, Any]:
    others = [{"token": f"o{i}", "logprob": -2.0 - i} for i in range(top)]
    return {"token": token, "logprob": -0.25, "top_logprobs": [{"token": token, "logprob": -0.25}, *others][:top]}


def app(record: Path | None) -> web.Application:
    """The server."""
    teacher = Teacher(record)
    made = web.Application(client_max_size=64 << 20)
    made.router.add_post("/v1/chat/completions", teacher.chat)
    made.router.add_get("/v1/models", teacher.models)
    made.router.add_post("/misbehave", teacher.misbehave)
    made.router.add_post("/forget", teacher.forget)
    made.router.add_post("/stats", teacher.stats)
    return made


async def main(record: Path | None) -> None:
    """Serve until ended."""
    runner = web.AppRunner(app(record), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path)
    asyncio.run(main(parser.parse_args().record))
