"""Who is asking: the tenant, the key, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope as RequestScope

from planish.contract.wire import DEFAULT_TENANT
from planish.store.keys import KeyRecord, Scope

_NAME = "principal"


@dataclass(frozen=True)
class Principal:
    """Whoever sent a request.

    Attributes:
        tenant: sees its own jobs and files alone.
        key_id: of the key that came along; None without keys and for the operator's single key.
        scopes: what the key may do.
    """

    tenant: str = DEFAULT_TENANT
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset(Scope)

    @staticmethod
    def of(record: KeyRecord) -> Principal:
        """Return the principal that a key stands for."""
        return Principal(record.tenant, record.id, frozenset(record.scopes))


ANYBODY = Principal()
"""Whoever reaches a service without keys, and the holder of its single key."""


def principal_of(request: Request) -> Principal:
    """Return who sent a request; the key check has put it there."""
    found = getattr(request.state, _NAME, ANYBODY)
    return found if isinstance(found, Principal) else ANYBODY


def principal_of_scope(scope: RequestScope) -> Principal:
    """Return who sent a request; `ANYBODY` for one that was refused before."""
    found = scope.get("state", {}).get(_NAME, ANYBODY)
    return found if isinstance(found, Principal) else ANYBODY


def remember(scope: RequestScope, principal: Principal) -> None:
    """Note for the routes who is asking."""
    scope.setdefault("state", {})[_NAME] = principal
