"""Who may come in, before any route: no route can forget it.

A request needs a key as soon as the operator set one, a key was ever made, or the service can be
reached from other machines. The key decides the tenant; what belongs to another is not there.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as RequestScope

from planish.contract.errors import Forbidden, NotFound, PlanishError, Unauthorized
from planish.contract.wire import JOB_ID
from planish.store.keys import KeyRecord, Keys, Scope
from service.errors import problem_response
from service.links import Links
from service.principal import ANYBODY, Principal, remember

# Health checks, and the documentation: it holds no data, and a browser has no key to send for it.
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
DOCS = "/docs"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_KNOWN = 10_000
_ADVICE = "send the header Authorization: Bearer <key>"
_JOBS = "/jobs/"

OwnerOf = Callable[[str], Awaitable[str | None]]


class Gatekeeper:
    """Turns the ``Authorization`` header into a principal.

    Args:
        keys: the stored keys.
        api_key: the operator's single key, with all rights of the default tenant; None for none.
        open_without_keys: whether everybody is let in as long as no key was ever made.
    """

    def __init__(self, keys: Keys, api_key: str | None, *, open_without_keys: bool) -> None:
        self._keys = keys
        self._single = None if api_key is None else api_key.encode("ascii")
        self._open = open_without_keys and api_key is None
        self._known: dict[bytes, KeyRecord] = {}

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return self._open and not self._keys.any()

    def admit(self, authorization: bytes, method: str, path: str) -> Principal:
        """Return who is asking.

        Raises:
            Unauthorized: no key, a wrong one, or one that is expired or revoked.
            Forbidden: the key may not do this.
        """
        principal = self.identify(authorization)
        wanted = needed_scope(method, path)
        if wanted not in principal.scopes:
            has = ", ".join(sorted(principal.scopes))
            raise Forbidden(f"this needs a key with the scope {wanted}; this key has {has}")
        return principal

    def identify(self, authorization: bytes) -> Principal:
        """Return whose key a header carries; raises Unauthorized as `admit` does."""
        if self.is_open:
            return ANYBODY
        scheme, _, key = authorization.partition(b" ")
        key = key.strip()
        if scheme.lower() != b"bearer" or not key:
            raise Unauthorized(_ADVICE)
        if self._single is not None and hmac.compare_digest(key, self._single):
            return ANYBODY
        record = self._record(key)
        if record is None:
            raise Unauthorized(f"this key is not known; {_ADVICE}")
        state = record.state(datetime.now(UTC))
        if state != "live":
            raise Unauthorized(f"this key is {state}; ask the operator for a new one")
        return Principal.of(record)

    def _record(self, key: bytes) -> KeyRecord | None:
        """Return a key's record as it is now; a key that was right once is not hashed again."""
        known = self._known.get(key)
        if known is not None:
            return self._keys.current(known.id)
        record = self._keys.find(key.decode("latin-1"))
        if record is not None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = record
        return record


class AuthMiddleware:
    """Answers 401, 403 and, for what belongs to others, 404.

    Args:
        app: everything behind.
        gate: knows the keys.
        links: knows signed links, which need no key.
        owner_of: the tenant of a job, None when there is no such job.
    """

    def __init__(self, app: ASGIApp, gate: Gatekeeper, links: Links, owner_of: OwnerOf) -> None:
        self.app, self.gate, self.links, self.owner_of = app, gate, links, owner_of

    async def __call__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not is_open(scope["path"]):
            try:
                await self._admit(scope)
            except PlanishError as error:
                await problem_response(error, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _admit(self, scope: RequestScope) -> None:
        principal = self.links.principal(scope["method"], scope["path"], scope["query_string"])
        if principal is None:
            sent = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
            principal = self.gate.admit(sent, scope["method"], scope["path"])
        remember(scope, principal)
        job_id = scope["path"].removeprefix(_JOBS).partition("/")[0]
        if not scope["path"].startswith(_JOBS) or not JOB_ID.match(job_id) or self.gate.is_open:
            return
        owner = await self.owner_of(job_id)
        if owner is not None and owner != principal.tenant:
            raise NotFound(f"there is no job {job_id!r}")


def needed_scope(method: str, path: str) -> Scope:
    """Return what a key must be allowed to do for a request."""
    if path == "/metrics":
        return Scope.OPERATE
    return Scope.READ if method in READING else Scope.WRITE


def is_open(path: str) -> bool:
    """Tell whether a path needs no key."""
    return path in OPEN_PATHS or path == DOCS or path.startswith(f"{DOCS}/")
