"""What the routers before an external API say of their way there, in the words of a tier's conditions.

They hold the key and resolve the name, so they know what the operator, which may read no Secret, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from modeltiers.domain.facts import EgressFacts, ExternalFacts

READY: Final = "Ready"
_KEY: Final[Mapping[str, str]] = {
    "APIKeyMissing": "it is not there; create Secret {secret} with key {key}",
    "APIKeyEmpty": "it is empty; put the API's key into key {key} of Secret {secret}",
    "APIKeyInvalid": "it is no API key; correct key {key} of Secret {secret}",
}
_WAY: Final[Mapping[str, str]] = {
    "NameNotResolved": "the name cannot be resolved from there; check spec.external.baseUrl and the cluster's DNS",
    "AddressRefused": (
        "the name leads to an address that is not public; an administrator can allow that with private: true in"
        " externalHosts"
    ),
}


def with_routers(seen: ExternalFacts, heard: EgressFacts) -> ExternalFacts:
    """Return what is known of an API, with the routers' word on the key where the operator has none of its own."""
    if seen.credentials is not None or not heard.secret:
        return seen
    told = _first(heard, _KEY)
    if told is not None:
        pod, word = told
        problem = _KEY[word].format(secret=heard.secret, key=heard.key)
        message = f"spec.external.apiKeySecretRef: pod {pod} holds no key: {problem}"
        return replace(seen, credentials=False, credentials_message=message)
    if READY in heard.states.values():
        message = f"the tier's routers hold key {heard.key} of Secret {heard.secret}; it was not tried"
        return replace(seen, credentials=True, credentials_message=message)
    return seen


def way_is_barred(heard: EgressFacts) -> str | None:
    """Why a router that runs takes no requests, with the way out; None where none says so."""
    told = _first(heard, _WAY)
    return f"pod {told[0]}: {_WAY[told[1]]}" if told else None


def _first(heard: EgressFacts, words: Mapping[str, str]) -> tuple[str, str] | None:
    return next(((pod, word) for pod, word in sorted(heard.states.items()) if word in words), None)
