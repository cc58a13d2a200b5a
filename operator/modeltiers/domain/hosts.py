"""Which hosts and addresses an external tier may call: the administrator's list, and no private address by surprise."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from modeltiers.api.settings import ExternalHost


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A base URL taken apart once; nothing parses it a second time."""

    scheme: str
    host: str
    port: int
    path: str


def endpoint_of(base_url: str) -> Endpoint | None:
    """Take an http(s) base URL apart; None when its port is not one."""
    parts = urlsplit(base_url)
    try:
        port = parts.port
    except ValueError:
        return None
    return Endpoint(
        parts.scheme, parts.hostname or "", port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")
    )


def allowed(host: str, hosts: Sequence[ExternalHost]) -> ExternalHost | None:
    """The entry that allows this host; None when none does."""
    for entry in hosts:
        if entry.host == host or (entry.host.startswith("*.") and host.endswith(entry.host[1:])):
            return entry
    return None


def private(address: str) -> bool:
    """Whether an address is not a public one: private, loopback, link-local, reserved, or mapped to such a one."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return not parsed.is_global or parsed.is_multicast


def namespace_of(host: str) -> str | None:
    """The namespace of the Service that a host name leads to; None for names that are no Service of a cluster."""
    found = re.fullmatch(r"(?:[^.]+\.)+([^.]+)\.svc(?:\.cluster\.local)?\.?", host)
    return found[1] if found else None


def is_address(host: str) -> bool:
    """Whether a host is written as an address and not as a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
