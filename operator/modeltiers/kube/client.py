"""`Api`: the one way in which this operator reads and writes Kubernetes objects, as plain dicts.

A call must be declared in `access.py`, and a write must pass the fence: twice, because a process can sleep between the
decision to write and the bytes on the wire. It refuses to retry what the server did not ask to be retried; that is the
work queue's business.
"""

# The official client reads the configuration (session.py) and is not on the wire. CPU of this process for one apply of
# a 4.5 KB Deployment (kubernetes 37.0.2, aiohttp 3.14, uvloop): a bare aiohttp call with orjson 0.48 ms, `Api` 0.50 ms,
# `ApiClient.call_api` 1.28 ms (it copies the object, writes it with `json`, and looks for proxies at every call), the
# dynamic client 1.80 ms.

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload
from yarl import URL

from modeltiers import names
from modeltiers.kube import access, errors, metrics
from modeltiers.kube.refs import KINDS, Kind, Ref, path_of, ref_of
from modeltiers.kube.session import Connection

log = logging.getLogger(__name__)

TIMEOUT: Final = aiohttp.ClientTimeout(total=15, sock_connect=5)
IN_FLIGHT: Final = 16
TRIES: Final = 3
LONGEST_PAUSE: Final = 5.0
"""Longest Retry-After that is waited for here; a longer one is left to the caller."""
WARNINGS_KEPT: Final = 256

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML, and orjson writes it
# An apply with this resourceVersion creates or fails: no object that exists has it any more (docs/adr/0003).
CREATE_ONLY: Final = "1"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

_METHODS: Final = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
_APPLY_FORCED: Final = f"fieldManager={names.FIELD_MANAGER}&force=true"
_MANAGED: Final = f"fieldManager={names.FIELD_MANAGER}"


class _FencedBody(BytesPayload):
    """A body that asks the fence once more at the moment it is written; a request without its body changes nothing."""

    def __init__(self, value: bytes, fence: Callable[[], bool], content_type: str) -> None:
        super().__init__(value, content_type=content_type)
        self._fence = fence

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if not self._fence():
            raise errors.NotLeading
        await super().write_with_length(writer, content_length)


class Api:
    """An API server, seen through the rights that the operator declares."""

    def __init__(
        self,
        connection: Connection,
        fence: Callable[[], bool] | None = None,
        *,
        uses: Iterable[access.Grant] = access.USES,
        in_flight: int = IN_FLIGHT,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._declared = access.declared(uses)
        self._slots = asyncio.Semaphore(in_flight)
        self._timeout = timeout
        self._warned: dict[str, None] = {}

    # --- reading ------------------------------------------------------------------------------------------------------

    async def get(self, ref: Ref) -> dict[str, Any] | None:
        """The object, or None when there is none."""
        try:
            return await self._call("get", ref)
        except errors.NotFound:
            return None

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int = 500,
        metadata_only: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """Every object of a kind, each once, a page of `limit` at a time; in all namespaces when none is named.

        When a list takes longer than the server remembers, the rest comes from a newer moment than the beginning.
        """
        asked = {"limit": str(limit), "labelSelector": labels or "", "fieldSelector": fields or "", "continue": ""}
        accept = METADATA_LIST if metadata_only else JSON
        ref = Ref(kind, namespace or "", "")
        while True:
            query = urlencode({name: value for name, value in asked.items() if value})
            try:
                page = await self._call("list", ref, query=query, accept=accept)
            except errors.Gone as fault:
                if not fault.next_token or fault.next_token == asked["continue"]:
                    raise
                asked["continue"] = fault.next_token
                continue
            for item in page.get("items") or ():
                yield item
            asked["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not asked["continue"]:
                return

    # --- writing ------------------------------------------------------------------------------------------------------

    async def apply(self, obj: Mapping[str, Any], *, status: bool = False, force: bool = True) -> dict[str, Any]:
        """Server-side apply: create the object or make our fields what they are here; returns it as it is then."""
        query = _APPLY_FORCED if force else _MANAGED
        subresource = "status" if status else ""
        return await self._call("patch", ref_of(obj), obj, subresource=subresource, query=query, content=APPLY)

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Create the object; AlreadyExists when there is one."""
        ref = ref_of(obj)
        return await self._call("create", Ref(ref.kind, ref.namespace, ""), obj, query=_MANAGED)

    async def update(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the object as it was read, guarded by its resourceVersion; Conflict when it has changed since."""
        if not obj["metadata"].get("resourceVersion"):
            raise ValueError("an update without a resourceVersion would overwrite what others wrote")
        return await self._call("update", ref_of(obj), obj, query=_MANAGED)

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        """Delete the object, in the background; fine when there is none. With `uid`, only if it still is that one."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("delete", ref, options)
        except errors.NotFound:
            return

    # --- questions ----------------------------------------------------------------------------------------------------

    async def served(self, kinds: Iterable[Kind]) -> frozenset[Kind]:
        """Those of the kinds that the server knows; not those whose CustomResourceDefinition is not there."""
        wanted = list(kinds)
        known = {root: await self._plurals(kind) for root, kind in {kind.root: kind for kind in wanted}.items()}
        return frozenset(kind for kind in wanted if kind.plural in known[kind.root])

    async def _plurals(self, kind: Kind) -> frozenset[str]:
        """What is served beside a kind, by its plural name."""
        try:
            listed = await self._send("discover", Ref(kind, "", ""), kind.root, None, accept=JSON)
        except errors.NotFound:
            return frozenset()
        return frozenset(str(item.get("name")) for item in listed.get("resources") or ())

    async def version(self) -> dict[str, Any]:
        """What the server says of itself: `gitVersion`, `major`, `minor` and more."""
        return await self._send("discover", Ref(KINDS["Node"], "", ""), "/version", None, accept=JSON)

    # --- the wire -----------------------------------------------------------------------------------------------------

    async def _call(
        self,
        verb: str,
        ref: Ref,
        obj: Mapping[str, Any] | None = None,
        *,
        subresource: str = "",
        query: str = "",
        content: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        if (verb, ref.kind.kind, subresource) not in self._declared:
            what = f"{ref.kind}/{subresource}" if subresource else str(ref.kind)
            raise errors.Undeclared(f"{verb} {what} is not declared in modeltiers.kube.access.USES")
        path = path_of(ref, subresource) + (f"?{query}" if query else "")
        if obj is None:
            return await self._send(verb, ref, path, None, accept=accept)
        named = ref if verb != "create" else ref_of(obj)
        body = self._body(obj, content, fenced=ref.kind.kind != "Lease")
        return await self._send(verb, named, path, body, accept=accept)

    def _body(self, obj: Mapping[str, Any], content: str, *, fenced: bool) -> BytesPayload:
        data = orjson.dumps(obj)
        if self._fence is None or not fenced:
            return BytesPayload(data, content_type=content)
        if not self._fence():
            raise errors.NotLeading
        return _FencedBody(data, self._fence, content)

    async def _send(self, verb: str, ref: Ref, path: str, body: BytesPayload | None, *, accept: str) -> dict[str, Any]:
        """Send until answered, waiting where the server asks for it; the slot is held meanwhile, so others wait too."""
        url = URL(self._connection.server + path, encoded=True)
        async with self._slots:
            for left in reversed(range(TRIES)):
                code, headers, answer = await self._once(verb, ref, url, body, accept)
                if code < 300:
                    self._warn(ref, headers)
                    return answer or {}
                fault = _fault(verb, ref, code, headers, answer)
                pause = fault.retry_after
                if not left or pause is None or pause > LONGEST_PAUSE:
                    raise fault
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _once(
        self, verb: str, ref: Ref, url: URL, body: BytesPayload | None, accept: str
    ) -> tuple[int, Mapping[str, str], dict[str, Any] | None]:
        started = time.perf_counter()
        code = 0
        try:
            async with self._connection.session.request(
                _METHODS.get(verb, "GET"),
                url,
                data=body,
                headers={"Accept": accept},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                raw = await response.read()
                code = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as fault:
            if isinstance(body, _FencedBody) and isinstance(fault.__cause__, errors.NotLeading):
                raise errors.NotLeading from None
            raise _silence(verb, ref, fault) from fault
        finally:
            metrics.observe(verb, ref.kind.plural, code, time.perf_counter() - started)
        self._connection.answered()
        return code, response.headers, _parsed(raw)

    def _warn(self, ref: Ref, headers: Mapping[str, str]) -> None:
        """Pass the server's warnings on, each once; they tell of deprecated fields and of pods that will be refused."""
        text = headers.get("Warning")
        if text and text not in self._warned:
            if len(self._warned) >= WARNINGS_KEPT:
                self._warned.clear()
            self._warned[text] = None
            log.warning("the API server warns of %s: %s", ref, text)


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None  # a proxy in between, or the plain text of a server that is starting
    return answer if isinstance(answer, dict) else None


def _fault(
    verb: str, ref: Ref, code: int, headers: Mapping[str, str], answer: Mapping[str, Any] | None
) -> errors.ApiFault:
    status = answer or {}
    message = str(status.get("message") or f"the server answered {code}")
    fault = errors.classify(code, answer)(ref, message, code=code, reason=str(status.get("reason") or ""), verb=verb)
    if code in (429, 503):
        fault.retry_after = _seconds(headers.get("Retry-After"))
    if isinstance(fault, errors.Gone):
        fault.next_token = (status.get("metadata") or {}).get("continue") or ""
    return fault


def _silence(verb: str, ref: Ref, fault: BaseException) -> errors.Transient:
    why = "no answer in time" if isinstance(fault, TimeoutError) else f"no answer: {fault or type(fault).__name__}"
    return errors.Transient(ref, why, reason=type(fault).__name__, verb=verb)


def _seconds(text: str | None) -> float | None:
    """The header as seconds; the server sends whole numbers, and a date from a proxy is not worth a parser."""
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
