"""Keys that are derived, each for one purpose and tenant, from one secret of the data folder."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from planish.store.durable import put_new

FILE = "signing-secret"
SECRET_PREFIX = "whsec_"  # noqa: S105 - the form of Standard Webhooks, no secret


def derived_key(root: Path, purpose: str) -> bytes:
    """Return 32 bytes that nobody without the data folder can know.

    The secret that they come from is made when it is first asked for (mode 0600).
    """
    path = root / FILE
    if not path.exists():
        put_new(path, secrets.token_bytes(32))
    return hmac.digest(path.read_bytes(), purpose.encode(), hashlib.sha256)


def signing_secret(root: Path, tenant: str) -> str:
    """Return the secret that a tenant's webhooks are signed with, ``whsec_<base64>``."""
    return SECRET_PREFIX + base64.b64encode(derived_key(root, f"webhooks:{tenant}")).decode()
