"""Which addresses a tier outside the cluster may have: what a base URL may say, and whom an address leads to.

The address is judged where the socket is made, on what is connected to: no name, no spelling of a number and no answer
of a name server leads past it. Knows nothing of HTTP; nothing here looks a name up.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from typing import Any, Final, Literal

from modeltiers.domain.routing.table import External

_BASE: Final = re.compile(
    r"(https?)://"
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?)"
    r"(?::([0-9]{1,5}))?"
    r"((?:/[A-Za-z0-9_~:+-][A-Za-z0-9._~:+-]*)*)/?",
    re.ASCII,
)
_NUMBER: Final = re.compile("[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
Reach = Literal["Public", "Private", "Never"]


def _networks(*found: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, found))


# The standard library's own lists differ from one patch release to the next.
_PRIVATE: Final = _networks("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128")
_PRIVATE6: Final = _networks("fc00::/7")
_METADATA: Final = _networks("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", "fd20:ce::254/128")
"""Where clouds answer with credentials, outside the link-local range."""
_NEVER: Final = _networks(
    *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
    *("192.88.99.0/24", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4"),
    # Teredo and other protocols', documentation, 6to4, AS112.
    *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
)
_GLOBAL: Final = _networks("2000::/3")
_EMBEDDED: Final = _networks("::ffff:0:0/96", "64:ff9b::/96")
"""IPv6 forms whose last four bytes are the IPv4 address that is reached."""


def reach(address: str) -> Reach:
    """Return whom an address leads to; what is no address leads nowhere that we want to be."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "Never"
    if found.version == 6 and _within(found, _EMBEDDED):
        found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if _within(found, _METADATA) or _within(found, _NEVER):
        return "Never"
    if _within(found, _PRIVATE) or _within(found, _PRIVATE6):
        return "Private"
    return "Public" if found.version == 4 or _within(found, _GLOBAL) else "Never"


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: tuple[Any, ...]) -> bool:
    return any(address in network for network in networks)


def base_fault(external: External) -> str | None:
    """Return what is wrong with a base URL, with the way out; None when nothing is.

    Only plain URLs are taken: what two parsers could read differently is wrong. A name is judged when it is resolved.
    """
    found = _BASE.fullmatch(external.base_url)
    if found is None:
        return "give a plain URL as https://api.example.com/v1: no user, query, escapes or dots that climb"
    host, port = found[2].strip("[]"), found[3]
    if port is not None and not 0 < int(port) < 65_536:
        return "the port lies between 1 and 65535"
    if not _is_address(host) and (":" in host or _NUMBER.fullmatch(host.rpartition(".")[2])):
        return f"{host} is no address as it is usually written; write it out, or give a name"
    if _is_address(host) and not allowed(host, private=external.private):
        return f"{host} is not a public address; say private: true for one of your own network"
    return None


def where(base_url: str) -> tuple[str, int]:
    """Return host and port of a base URL in which `base_fault` finds nothing wrong; raises ValueError for others."""
    found = _BASE.fullmatch(base_url)
    if found is None:
        raise ValueError(f"{base_url!r} is no plain URL")
    return found[2].strip("[]"), int(found[3] or (443 if found[1] == "https" else 80))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def allowed(address: str, *, private: bool) -> bool:
    """Whether a tier may be reached at an address; `private` is what its table says of private ones."""
    found = reach(address)
    return found == "Public" or (private and found == "Private")


class Guard:
    """Makes the sockets of a tier, for addresses that it may reach and no others."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self.refused = 0
        self.problem: str | None = None

    def __call__(self, info: Any) -> socket.socket:
        """Return a socket for what getaddrinfo found; raises OSError. The address is the very one connected to."""
        family, kind, protocol, _, target = info
        if not allowed(str(target[0]), private=self._private):
            self.refused += 1
            self.problem = "AddressRefused"
            raise PermissionError(errno.EACCES, "the address is not public")
        self.problem = None
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made
