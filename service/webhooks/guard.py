"""Which addresses a webhook may lead to: no way into the operator's own network.

The name is resolved once, every address that it has is checked, and the connection goes to the very
address that was checked: a name that answers otherwise a moment later changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from planish.contract.errors import InvalidSpec
from planish.contract.problem import FieldError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_TUNNELS = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


class Reach(StrEnum):
    """Where webhooks may lead: nowhere, to public addresses by https, or anywhere."""

    OFF = "off"
    PUBLIC = "public"
    ANY = "any"


@dataclass(frozen=True)
class Destination:
    """A checked address.

    Attributes:
        url: with the address in place of the name.
        host: for the ``Host`` header, with its port where it is not the usual one.
        name: for TLS: what the certificate must say.
    """

    url: str
    host: str
    name: str


class Unreachable(Exception):
    """A webhook's address may not be, or cannot be, connected to; the text says why."""


def check_url(url: str, reach: Reach) -> None:
    """Refuse an address by its looks, at submit.

    Raises:
        InvalidSpec: webhooks are off, or the address is none that they may lead to.
    """
    try:
        _look(url, reach)
    except Unreachable as error:
        pointer = FieldError(pointer="/webhook/url", detail=str(error))
        raise InvalidSpec(str(error), (pointer,)) from None


def _look(url: str, reach: Reach) -> None:
    if reach is Reach.OFF:
        raise Unreachable("the operator has switched webhooks off; leave webhook out")
    host, _, _ = _parts(url, reach)
    try:
        literal = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return
    if reach is Reach.PUBLIC and not is_public(literal):
        raise Unreachable(f"{host} is no public address")


def destination(url: str, reach: Reach) -> Destination:
    """Resolve a webhook's name and check every address that it has.

    Raises:
        Unreachable: a forbidden address, or none.
    """
    name, port, rest = _parts(url, reach)
    scheme = urlsplit(url).scheme
    try:
        found = socket.getaddrinfo(name.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"{name} has no address: {error.strerror or error}") from None
    addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
    hidden = [str(a) for a in addresses if not is_public(a)]
    if hidden and reach is Reach.PUBLIC:
        raise Unreachable(f"{name} leads to {hidden[0]}, which is no public address")
    chosen = addresses[0]
    literal = f"[{chosen}]" if chosen.version == 6 else str(chosen)
    usual = {"https": 443, "http": 80}[scheme]
    host = name if port == usual else f"{name}:{port}"
    return Destination(f"{scheme}://{literal}:{port}{rest}", host, name.strip("[]"))


def is_public(address: Address) -> bool:
    """Tell whether an address is anybody's on the Internet, and no tunnel to another one."""
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is not None or any(address in network for network in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _parts(url: str, reach: Reach) -> tuple[str, int, str]:
    """Return host, port and the rest of a URL that webhooks may have."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Unreachable("the address is not a URL") from None
    schemes = ("https", "http") if reach is Reach.ANY else ("https",)
    if parts.scheme not in schemes or not parts.hostname:
        raise Unreachable(f"the address must begin with {' or '.join(f'{s}://' for s in schemes)}")
    if parts.username is not None or parts.password is not None:
        raise Unreachable("the address holds a user name or password; messages are signed instead")
    port = port or {"https": 443, "http": 80}[parts.scheme]
    if reach is Reach.PUBLIC and port != 443:
        raise Unreachable(f"port {port} is not taken; use 443")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    query = f"?{parts.query}" if parts.query else ""
    return host, port, f"{parts.path or '/'}{query}"
