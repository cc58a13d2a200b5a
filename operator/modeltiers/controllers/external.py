"""Looks at an external API for what a tier's conditions say: does it answer, does it list the model, is the key
there.

A look is one `GET {baseURL}/models`, which costs no tokens. The host must be on the administrator's list; the
address it resolves to is checked and then dialled itself, so that no second look-up can lead elsewhere; redirects
are not followed. The key is read only where a user granted the operator `get` on that one Secret, is held for the
one call, and is never logged.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import httpx

from modeltiers.api.fields import SecretKeyRef
from modeltiers.api.modeltier import External
from modeltiers.api.settings import ExternalHost
from modeltiers.controllers.store import Key
from modeltiers.domain.hosts import Endpoint, allowed, endpoint_of, private
from modeltiers.domain.verdict import ExternalFacts
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS, Ref

log = logging.getLogger(__name__)

TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
STEADY: Final = 60.0
"""Seconds that what was seen is good for, when all is well."""
UNSTEADY: Final = 10.0
"""And when it is not."""
FORGOTTEN: Final = 600.0
"""Seconds after which what nobody asks about any more is forgotten."""
LARGEST_ANSWER: Final = 4 * 1024 * 1024


@dataclass(eq=False)
class ExternalProbe:
    """Looks at external APIs, and keeps what it saw for a while."""

    api: Api
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    _seen: dict[tuple[str, External], tuple[float, ExternalFacts]] = field(default_factory=dict)
    _looks: dict[tuple[str, External], asyncio.Task[ExternalFacts]] = field(default_factory=dict)

    async def look(
        self, tier: Key, external: External, hosts: Sequence[ExternalHost], ring: Callable[[Key], None]
    ) -> ExternalFacts:
        """What is known of a tier's API. Waits only for the first look; a later one rings the tier if it has news."""
        what, now = (tier[0], external), time.monotonic()
        known = self._seen.get(what)
        if known and now < known[0]:
            return known[1]
        look = self._looks.get(what)
        if look is None:
            look = self._looks[what] = asyncio.create_task(self._look_and_keep(what, hosts))
        if known is None:
            return await asyncio.shield(look)
        facts = known[1]
        look.add_done_callback(lambda done: ring(tier) if _news(done, facts) else None)
        return facts

    async def _look_and_keep(self, what: tuple[str, External], hosts: Sequence[ExternalHost]) -> ExternalFacts:
        try:
            facts = await self._look(*what, hosts)
        finally:
            del self._looks[what]
        now = time.monotonic()
        # Kept for a while after it has gone stale: it is what is known until the next look has ended.
        self._seen = {old: kept for old, kept in self._seen.items() if now - kept[0] < FORGOTTEN}
        # A little less than the time after which we are asked again.
        self._seen[what] = (now + 0.9 * good_for(facts), facts)
        return facts

    async def _look(self, namespace: str, external: External, hosts: Sequence[ExternalHost]) -> ExternalFacts:
        endpoint = endpoint_of(external.base_url)
        if endpoint is None:
            return ExternalFacts(
                reachable=False, reachable_message="spec.external.baseUrl: the port is not a number up to 65535"
            )
        entry = allowed(endpoint.host, hosts)
        if entry is None:
            text = (
                f"spec.external.baseUrl: {endpoint.host} is not allowed; an administrator can add it to externalHosts"
            )
            return ExternalFacts(reachable=False, reachable_message=text, reachable_reason="HostNotAllowed")
        key = await self._key(namespace, external.api_key_secret_ref)
        try:
            address = await _resolve(endpoint, entry)
            status, listed = await self._models(endpoint, address, key.value)
        except _Unreachable as fault:
            facts = ExternalFacts(reachable=False, reachable_message=f"{external.base_url}: {fault}")
        else:
            facts = _facts(external, key.found, status, listed)
        if facts.credentials_message:  # the API's own word on the key counts for more than ours
            return facts
        return replace(facts, credentials=key.found, credentials_message=key.words, credentials_reason=key.reason)

    async def _key(self, namespace: str, ref: SecretKeyRef | None) -> _Key:
        if ref is None:
            return _Key(True, "no key is asked for")
        try:
            secret = await self.api.get(Ref(KINDS["Secret"], namespace, ref.name))
        except errors.Forbidden:
            return _Key(
                None,
                f"the operator may not read Secret {ref.name}, so the key was not tried: the tier's routers try it;"
                " without a router image, grant the operator `get` on this Secret",
            )
        except errors.ApiFault as fault:
            return _Key(None, f"Secret {ref.name} could not be read: {fault.reason}")
        where = "spec.external.apiKeySecretRef"
        if secret is None:
            text = f"{where}: there is no Secret {ref.name} in this namespace; create it"
            return _Key(False, text, "SecretNotFound")
        if ref.key not in (secret.get("data") or {}):
            return _Key(False, f"{where}: Secret {ref.name} has no key {ref.key}; add it", "SecretKeyNotFound")
        value = base64.b64decode(secret["data"][ref.key]).strip()
        if not value or not all(33 <= byte < 127 for byte in value):
            text = f"{where}: key {ref.key} of Secret {ref.name} is empty or no API key; correct it"
            return _Key(False, text)
        return _Key(True, f"key {ref.key} of Secret {ref.name} is there", value=value.decode())

    async def _models(self, endpoint: Endpoint, address: str, key: str | None) -> tuple[int, list[str] | None]:
        host = f"[{address}]" if ":" in address else address
        url = f"{endpoint.scheme}://{host}:{endpoint.port}{endpoint.path}/models"
        headers = {"Host": endpoint.host if endpoint.port in (80, 443) else f"{endpoint.host}:{endpoint.port}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        extensions = {"sni_hostname": endpoint.host}
        try:
            async with (
                httpx.AsyncClient(timeout=TIMEOUT, verify=self.tls, trust_env=False, follow_redirects=False) as client,
                client.stream("GET", url, headers=headers, extensions=extensions) as answer,
            ):
                body = b""
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        raise _Unreachable(f"its list of models is over {LARGEST_ANSWER} bytes")
                return answer.status_code, _names_in(httpx.Response(answer.status_code, content=body))
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            raise _Unreachable(f"{type(fault).__name__}: {fault}") from None


def good_for(facts: ExternalFacts) -> float:
    """Seconds after which to look again."""
    return STEADY if facts.credentials and facts.reachable and facts.listed else UNSTEADY


def _news(look: asyncio.Task[ExternalFacts], known: ExternalFacts) -> bool:
    if look.cancelled():
        return False
    if (fault := look.exception()) is not None:
        log.error("a look at an external API failed: %r", fault, exc_info=fault)
        return False
    return look.result() != known


@dataclass(frozen=True, slots=True)
class _Key:
    """Whether a key is there, the words for it, and the key itself for one call."""

    found: bool | None
    words: str
    reason: str = ""
    value: str | None = None


class _Unreachable(Exception):
    """The API did not answer; the text says why."""


async def _resolve(endpoint: Endpoint, entry: ExternalHost) -> str:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as fault:
        raise _Unreachable(f"the name cannot be resolved ({fault.strerror})") from None
    addresses = [str(item[4][0]) for item in found]
    if not entry.private and any(private(address) for address in addresses):
        raise _Unreachable(
            "it resolves to a private address; an administrator can allow that with private: true in externalHosts"
        )
    return addresses[0]


def _names_in(answer: httpx.Response) -> list[str] | None:
    try:
        return [str(item["id"]) for item in answer.json()["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _facts(external: External, found: bool | None, status: int, listed: list[str] | None) -> ExternalFacts:
    """What an answer says of API and model; of the key only where the answer knows better than the Secret."""
    if status in (401, 403):
        return _keyed(external, found, status)
    answers = f"it answers {status}"
    if status >= 500 or status == 429:
        return ExternalFacts(reachable_message=f"{answers}; looking again shortly", listed_message="not known yet")
    if status != 200 or listed is None:
        text = (
            f"{external.base_url}/models answers {status} and no list of models: check baseUrl, it ends before /models"
        )
        return ExternalFacts(reachable=False, reachable_message=text, listed_message="not known")
    if external.model in listed:
        text = f"{external.model} is listed"
        return ExternalFacts(reachable=True, reachable_message=answers, listed=True, listed_message=text)
    if external.api_key_secret_ref is not None and found is not True:
        text = f"{external.model} is not listed to callers without the key, and the key was not tried"
        return ExternalFacts(reachable=True, reachable_message=answers, listed_message=text)
    some = ", ".join(sorted(listed)[:8]) or "none"
    text = f"{external.model} is not listed; correct spec.external.model; listed are: {some}"
    return ExternalFacts(reachable=True, reachable_message=answers, listed=False, listed_message=text)


def _keyed(external: External, found: bool | None, status: int) -> ExternalFacts:
    """The API answers and wants a key, or another one."""
    facts = ExternalFacts(
        reachable=True,
        reachable_message=f"it answers {status}",
        listed_message="the list of models needs a key that is accepted",
    )
    if external.api_key_secret_ref is None:
        text = "the API asks for a key: set spec.external.apiKeySecretRef"
        return replace(facts, credentials=False, credentials_message=text)
    if found is not True:
        return facts
    text = f"the API answers {status}: it does not accept the key; check the Secret and the account"
    return replace(facts, credentials=False, credentials_message=text, credentials_reason="KeyRejected")
