"""Refuses requests that another name or another site's page leads here.

A browser sends what any web page asks it to, also to loopback addresses. Where the service needs
keys that is harmless: a page has none. Where it needs none, two things would open it to every page
that somebody on this machine looks at:

* DNS rebinding: the page's own name resolves to 127.0.0.1. Its requests carry that name in
  ``Host``, so without keys only loopback names are answered.
* A form of the page is posted here. Its requests carry the page's ``Origin``, so without keys what
  changes something must come from this very origin, or from no page.

An operator may list names (``PLANISH_HOSTS``); then these and loopback names alone are answered,
with and without keys.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.types import ASGIApp, Receive, Scope, Send

from planish.contract.errors import Forbidden, MisdirectedRequest, PlanishError
from service.auth import READING, Gatekeeper
from service.errors import problem_response

# Probes of a container platform name an address, and learn nothing.
PROBES = frozenset({"/healthz", "/readyz"})
MAX_KNOWN = 1000
_AUTHORITY = re.compile(r"^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?$")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Hosts:
    """Knows which names of this service are right.

    Args:
        named: names that the operator listed, in lower case; empty for none.
        gate: knows whether keys are needed.
    """

    def __init__(self, named: frozenset[str], gate: Gatekeeper) -> None:
        self._named, self._gate = named, gate
        self._known: set[bytes] = set()

    def knows(self, host: bytes) -> bool:
        """Tell whether a ``Host`` header is answered."""
        if host in self._known:
            return True
        if not (self._named or self._gate.is_open):
            return True
        match = _AUTHORITY.match(host.decode("latin-1").lower())
        if match is None or not (match[1] in self._named or _is_loopback(match[1])):
            return False
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known.add(host)
        return True

    def check(self, scope: Scope) -> None:
        """Refuse a request that should not be here.

        Raises:
            MisdirectedRequest: it names a host that this service is not.
            Forbidden: a page of another site sends it.
        """
        host = origin = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
        if scope["path"] not in PROBES and not self.knows(host):
            raise MisdirectedRequest(
                f"this service is not {host.decode('latin-1')[:100]!r}; use the name or address "
                "that it listens on, or let the operator list the name in PLANISH_HOSTS"
            )
        foreign = origin and _authority(origin) != _plain(host)
        if foreign and scope["method"] not in READING and self._gate.is_open:
            raise Forbidden(
                f"a page of {origin.decode('latin-1')[:100]!r} asks for this, and this service "
                "needs no key; only its own pages may"
            )


class HostMiddleware:
    """Asks `Hosts` before everything behind it."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            try:
                self.hosts.check(scope)
            except PlanishError as error:
                await problem_response(error, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _authority(origin: bytes) -> str:
    """Return host and port of an origin, without the port that its scheme implies."""
    scheme, _, authority = origin.decode("latin-1").lower().partition("://")
    return authority.removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def _plain(host: bytes) -> str:
    """Return a ``Host`` header without a port that a scheme implies."""
    text = host.decode("latin-1").lower()
    return next((text.removesuffix(p) for p in _DEFAULT_PORTS.values() if text.endswith(p)), text)
