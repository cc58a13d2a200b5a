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
    if (known := _by_the_list(seen, heard)) is not None:
        return known
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


def _by_the_list(seen: ExternalFacts, heard: EgressFacts) -> ExternalFacts | None:
    """Return what is known since a router asked the API for its list of models; None where none was told anything.

    The word of the one that fared best counts: another may have the key of before, or stand on a node of its own.
    """
    words = set(heard.models.values())
    key = f"key {heard.key} of Secret {heard.secret}"
    fine = replace(
        seen,
        reachable=True,
        reachable_message="it answers the tier's routers",
        credentials=True,
        credentials_message=f"the API takes {key}, say the tier's routers",
    )
    if "Listed" in words:
        return replace(fine, listed=True, listed_message="the model is listed, say the tier's routers")
    if "NotListed" in words:
        return replace(fine, listed=False, listed_message="the model is not listed there; correct spec.external.model")
    if "KeyRejected" in words:
        message = f"spec.external.apiKeySecretRef: the API does not accept {key}; check the Secret and the account"
        return replace(seen, credentials=False, credentials_message=message, credentials_reason="KeyRejected")
    return None


def way_is_barred(heard: EgressFacts) -> str | None:
    """Why a router that runs takes no requests, with the way out; None where none says so."""
    told = _first(heard, _WAY)
    return f"pod {told[0]}: {_WAY[told[1]]}" if told else None


def _first(heard: EgressFacts, words: Mapping[str, str]) -> tuple[str, str] | None:
    return next(((pod, word) for pod, word in sorted(heard.states.items()) if word in words), None)
