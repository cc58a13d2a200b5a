"""Ask the API server about many objects at once: what it accepts, and in which words it refuses.

Direct HTTPS with the administrator's certificate, since starting kubectl once takes longer than a hundred of these
questions. It knows nothing of what the objects mean.
"""

from __future__ import annotations

import base64
import copy
import http.client
import json
import re
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from e2e.cluster import Cluster
from modeltiers.api.schema import Schema

Body = dict[str, Any]
FIELD_MANAGER = "admission-test"
CRDS = Path(__file__).parents[2] / "crds"


@dataclass(frozen=True)
class Answer:
    """What the API server said: the status code, its words, and the object as it would be stored."""

    code: int
    body: Body

    @property
    def accepted(self) -> bool:
        """Whether the object may be stored."""
        return self.code in (200, 201)

    @property
    def message(self) -> str:
        """The refusal in words; empty when accepted."""
        return "" if self.accepted else str(self.body.get("message", ""))

    @property
    def causes(self) -> list[str]:
        """Each single reason of the refusal, with its field."""
        found = (self.body.get("details") or {}).get("causes") or []
        return [f"{cause.get('field')}: {cause.get('message')}" for cause in found]


class ApiServer:
    """The API server behind a kubeconfig, asked by a few threads with a connection each."""

    def __init__(self, kubeconfig: Path, scratch: Path) -> None:
        view = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        self.address = urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._trust = ssl.create_default_context(cadata=authority)
        client = scratch / "client.pem"
        client.touch(mode=0o600)
        client.write_bytes(
            base64.b64decode(user["client-key-data"]) + b"\n" + base64.b64decode(user["client-certificate-data"])
        )
        self._trust.load_cert_chain(client)
        self._local = threading.local()
        self._wires: list[http.client.HTTPSConnection] = []
        self._pool = ThreadPoolExecutor(4)

    def __enter__(self) -> ApiServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for wire in self._wires:
            wire.close()

    def _wire(self) -> http.client.HTTPSConnection:
        """This thread's connection; http.client opens a closed one again by itself."""
        if not hasattr(self._local, "wire"):
            self._local.wire = http.client.HTTPSConnection(self.address.netloc, timeout=30, context=self._trust)
            self._wires.append(self._local.wire)
        wire: http.client.HTTPSConnection = self._local.wire
        return wire

    def ask(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Answer:
        """One request."""
        sent = None if body is None else json.dumps(body).encode()
        wire = self._wire()
        try:
            wire.request(method, path, sent, {"Content-Type": content} if sent else {})
            response = wire.getresponse()
            answered = response.read()
        except (OSError, http.client.HTTPException):
            wire.close()
            raise
        return Answer(response.status, json.loads(answered))

    def apply(self, body: Body, namespace: str, *, dry: bool = True, strict: bool = True) -> Answer:
        """Server-side apply one object, by default without storing it."""
        options = [f"fieldManager={FIELD_MANAGER}", "force=true", f"fieldValidation={'Strict' if strict else 'Ignore'}"]
        options += ["dryRun=All"] if dry else []
        path = f"{collection(body, namespace)}/{body['metadata']['name']}?{'&'.join(options)}"
        return self.ask("PATCH", path, body, "application/apply-patch+yaml")

    def create(self, body: Body, namespace: str, *, dry: bool = True, strict: bool = True) -> Answer:
        """Create one object, by default without storing it."""
        options = f"?fieldValidation={'Strict' if strict else 'Ignore'}{'&dryRun=All' if dry else ''}"
        return self.ask("POST", collection(body, namespace) + options, body)

    def create_all(self, bodies: Iterable[Body], namespace: str) -> list[Answer]:
        """Ask whether each may be created."""
        return list(self._pool.map(lambda body: self.create(body, namespace), bodies))


def collection(body: Body, namespace: str) -> str:
    """The path of an object's siblings."""
    plural = f"{body['kind'].lower()}s".replace("cys", "cies")
    return f"/apis/{body['apiVersion']}/namespaces/{namespace}/{plural}"


def patched(base: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386) applied to a copy."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = patched(result.get(key), value)
    return result


def steps(path: str) -> list[str]:
    """`spec.env[].name` as spec, env, [], name."""
    return path.replace("[]", ".[]").split(".")


def find(body: Any, path: list[str], taken: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every concrete place of a schema path in an object."""
    if not path:
        yield taken
        return
    step, rest = path[0], path[1:]
    if step == "[]":
        for index, item in enumerate(body):
            yield from find(item, rest, (*taken, index))
    elif step == "*":
        for key, item in body.items():
            yield from find(item, rest, (*taken, key))
    elif isinstance(body, dict) and step in body:
        yield from find(body[step], rest, (*taken, step))


def at(body: Any, place: Iterable[str | int]) -> Any:
    """The value at a place."""
    for step in place:
        body = body[step]
    return body


def with_value(body: Body, place: tuple[str | int, ...], value: Any) -> Body:
    """A copy with another value at a place."""
    changed = copy.deepcopy(body)
    at(changed, place[:-1])[place[-1]] = value
    return changed


def shown(place: Iterable[str | int]) -> str:
    """A place as the API server writes it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def install(cluster: Cluster, name: str, *files: str, text: str | None = None) -> None:
    """Apply a CRD and wait until it is served."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", *(files or ("-f", "-")), input=text)
    cluster.wait_established(name)


# --- what a walk over a schema tries ----------------------------------------------------------------------------------


def illegal(node: Schema, legal: Any) -> Iterator[tuple[str, Any]]:
    """For each bound, a value that breaks it and, where that can be, nothing else."""
    yield "type", 7 if node["type"] in ("string", "object", "array") else "seven"
    if "enum" in node:
        yield "enum", "Nonsense"
    if node["type"] == "integer":
        yield from illegal_integers(node, legal)
    elif node["type"] == "string":
        yield from illegal_strings(node, legal)
    else:
        yield from illegal_insides(node, legal)


def illegal_integers(node: Schema, legal: int) -> Iterator[tuple[str, Any]]:
    """Too small, too large, and a part of one."""
    if "minimum" in node:
        yield "minimum", node["minimum"] - 1
        yield "maximum", node["maximum"] + 1
        if legal < 10**6:  # Kubernetes 1.33 tells by a relative error whether a number is whole
            yield "integer", legal + 0.5


def illegal_strings(node: Schema, legal: str) -> Iterator[tuple[str, Any]]:
    """Too long, too short, and lines around a legal one."""
    if "maxLength" in node:
        yield "maxLength", legal + "a" * (node["maxLength"] + 1 - len(legal))
    if node.get("minLength"):
        yield "minLength", legal[: node["minLength"] - 1]
    if "pattern" in node:
        probes = (legal + "\n", "\n" + legal, legal + "\x00")
        yield from (("pattern", probe) for probe in probes if not re.fullmatch(node["pattern"], probe))


def illegal_insides(node: Schema, legal: Any) -> Iterator[tuple[str, Any]]:
    """Too many, twice the same, and without what is required; a boolean has no inside."""
    if "maxItems" in node:
        yield "maxItems", [item_like(legal, number) for number in range(node["maxItems"] + 1)]
    if "maxProperties" in node:
        yield "maxProperties", {f"k{number}": "" for number in range(node["maxProperties"] + 1)}
    if node.get("x-kubernetes-list-type") == "map":
        yield "map keys", [legal[0], legal[0]]
    for name in node.get("required", ()):
        yield f"required {name}", {key: value for key, value in legal.items() if key != name}


def item_like(items: list[Any], number: int) -> Any:
    """A further item of a list."""
    return {**items[0], "name": f"n{number}"} if isinstance(items[0], dict) and "name" in items[0] else items[0]


def added(sent: Any, got: Any, path: str) -> set[str]:
    """The paths that the API server added; a list must be as it was sent."""
    if isinstance(sent, dict):
        below = {extra for key, value in sent.items() for extra in added(value, got[key], f"{path}.{key}")}
        return below | {f"{path}.{key}" for key in got.keys() - sent.keys()}
    assert got == sent, path
    return set()


HOSTILE = {
    "line break": "a\nb",
    "carriage return": "a\r\nb: c",
    "double quote": 'a"b',
    "single quote": "a'; rm -rf /; '",
    "environment reference": "$(HF_TOKEN)",
    "shell": "$(reboot)`reboot`",
    "template": "{{ 7 * 7 }}",
    "flag": "--trust-remote-code",
    "argument file": "@/etc/passwd",
    "path": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "NUL": "a\x00b",
    "escape": "a\x1b[31mb",
    "percent NUL": "a%00b",
    "unicode": "mödel",
    "right to left": "a\u202eb",
    "full width": "ａdmin",  # noqa: RUF001 - the confusion is the test
    "space": "a b",
    "long": "a" * 10_000,
}
