"""Links to results that work without a key, for a while: signed, and good for one file alone.

The signature covers method, path, tenant and expiry (HMAC-SHA256 under a secret that is derived for
each tenant). A link opens exactly the artifact that it was made for, with ``GET`` or ``HEAD``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, quote

from planish.contract.errors import Unauthorized
from planish.store.keys import TENANT_PATTERN, Scope
from planish.store.signing import derived_key
from service.principal import Principal

LIFETIME_SECONDS = 900
MAX_SECONDS = 7 * 86_400
_PURPOSE = "links"
_ARTIFACT = re.compile(r"^/jobs/[a-z]+_[0-9A-Z]{26}/artifacts/[^/]+$")


class Links:
    """Makes and checks the links of one data folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sign(self, path: str, tenant: str, seconds: int = LIFETIME_SECONDS) -> tuple[str, int]:
        """Return a link to an artifact, and when it expires (seconds since the epoch).

        Args:
            path: of the artifact, ``/jobs/{id}/artifacts/{name}``.
            tenant: whose job it is.
            seconds: how long the link works.
        """
        expires = int(time.time()) + seconds
        signature = self._signature(path, tenant, expires)
        return f"{quote(path)}?tenant={tenant}&expires={expires}&signature={signature}", expires

    def principal(self, method: str, path: str, query: bytes) -> Principal | None:
        """Return whom a link lets in; None when the request carries no signature.

        Raises:
            Unauthorized: the link is for something else, forged, or expired.
        """
        if method not in ("GET", "HEAD") or b"signature=" not in query:
            return None
        given = {k: v[0] for k, v in parse_qs(query.decode("latin-1")).items()}
        tenant, expires = given.get("tenant", ""), given.get("expires", "")
        if not (re.fullmatch(TENANT_PATTERN, tenant) and re.fullmatch(r"[0-9]{1,12}", expires)):
            raise Unauthorized("the link is damaged; ask for a new one")
        right = self._signature(path, tenant, int(expires))
        signature = given.get("signature", "").encode("latin-1", "replace")
        if not (_ARTIFACT.match(path) and hmac.compare_digest(right.encode(), signature)):
            raise Unauthorized("the link is not for this; ask for a new one")
        if int(expires) < time.time():
            raise Unauthorized("the link has expired; ask for a new one")
        return Principal(tenant, None, frozenset({Scope.READ}))

    def _signature(self, path: str, tenant: str, expires: int) -> str:
        key = derived_key(self._root, f"{_PURPOSE}:{tenant}")
        message = f"GET\n{path}\n{tenant}\n{expires}".encode()
        digest = hmac.digest(key, message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
