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
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from modeltiers.api.modeltier import External, SecretKeyRef
from modeltiers.api.settings import ExternalHost
from modeltiers.domain.hosts import Endpoint, allowed, endpoint_of, private
from modeltiers.domain.verdict import ExternalFacts
from modeltiers.kube import errors
from modeltiers.kube.client import Api
from modeltiers.kube.refs import KINDS, Ref

TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
STEADY: Final = 60.0
"""Seconds that what was seen is good for, when all is well."""
UNSTEADY: Final = 10.0
"""And when it is not."""
LARGEST_ANSWER: Final = 4 * 1024 * 1024


@dataclass(eq=False)
class ExternalProbe:
    """Looks at external APIs, and keeps what it saw for a while."""

    api: Api
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    _seen: dict[tuple[str, External], tuple[float, ExternalFacts]] = field(default_factory=dict)

    async def look(self, namespace: str, external: External, hosts: Sequence[ExternalHost]) -> ExternalFacts:
        """What is known of this API, looked up if that was too long ago."""
        key, now = (namespace, external), time.monotonic()
        known = self._seen.get(key)
        if known and now < known[0]:
            return known[1]
        facts = await self._look(namespace, external, hosts)
        self._seen = {old: kept for old, kept in self._seen.items() if now - kept[0] < STEADY}
        # A little less than the time after which we are asked again.
        self._seen[key] = (now + 0.9 * good_for(facts), facts)
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
        found, why, key = await self._key(namespace, external.api_key_secret_ref)
        try:
            address = await _resolve(endpoint, entry)
            status, listed = await self._models(endpoint, address, key)
        except _Unreachable as fault:
            return ExternalFacts(found, why, reachable=False, reachable_message=f"{external.base_url}: {fault}")
        return _facts(external, found, why, status, listed)

    async def _key(self, namespace: str, ref: SecretKeyRef | None) -> tuple[bool | None, str, str | None]:
        """Whether the key is there, the words for it, and the key for one call."""
        if ref is None:
            return True, "no key is asked for", None
        try:
            secret = await self.api.get(Ref(KINDS["Secret"], namespace, ref.name))
        except errors.Forbidden:
            text = (
                f"the operator may not read Secret {ref.name}, so the key was not tried; grant it `get` on this Secret"
                " (see the external example) to have it checked"
            )
            return None, text, None
        except errors.ApiFault as fault:
            return None, f"Secret {ref.name} could not be read: {fault.reason}", None
        if secret is None:
            return (
                False,
                f"spec.external.apiKeySecretRef: there is no Secret {ref.name} in this namespace; create it",
                None,
            )
        value = (secret.get("data") or {}).get(ref.key)
        if not value:
            return False, f"spec.external.apiKeySecretRef: Secret {ref.name} has no key {ref.key}; add it", None
        return True, f"key {ref.key} of Secret {ref.name} is there", base64.b64decode(value).decode().strip()

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


def _facts(external: External, found: bool | None, why: str, status: int, listed: list[str] | None) -> ExternalFacts:
    if status in (401, 403):
        return _keyed(external, found, why, status)
    if status >= 500 or status == 429:
        return ExternalFacts(found, why, None, f"it answers {status}; looking again shortly", None, "not known yet")
    if status != 200 or listed is None:
        text = (
            f"{external.base_url}/models answers {status} and no list of models: check baseUrl, it ends before /models"
        )
        return ExternalFacts(found, why, False, text, None, "not known")
    if external.model not in listed:
        some = ", ".join(sorted(listed)[:8]) or "none"
        return ExternalFacts(
            found, why, True, "it answers", False, f"{external.model} is not listed; listed are: {some}"
        )
    return ExternalFacts(found, why, True, "it answers", True, f"{external.model} is listed")


def _keyed(external: External, found: bool | None, why: str, status: int) -> ExternalFacts:
    """The API answers and wants a key, or another one."""
    answers, unlisted = f"it answers {status}", "the list of models needs a key that is accepted"
    if external.api_key_secret_ref is None:
        return ExternalFacts(
            False, "the API asks for a key: set spec.external.apiKeySecretRef", True, answers, None, unlisted
        )
    if found is not True:
        return ExternalFacts(found, why, True, answers, None, unlisted)
    text = f"the API answers {status}: it does not accept the key; check the Secret and the account"
    return ExternalFacts(False, text, True, answers, None, unlisted, credentials_reason="KeyRejected")
