"""The secret that a tenant's webhooks are signed with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from planish.store.durable import put_new

FILE = "webhook-secret"
SECRET_PREFIX = "whsec_"  # noqa: S105 - the form of Standard Webhooks, no secret


def signing_secret(root: Path, tenant: str) -> str:
    """Return the secret that a tenant's messages are signed with, ``whsec_<base64>``.

    It is derived from one secret of the data folder, which is made when it is first asked for.
    """
    path = root / FILE
    if not path.exists():
        put_new(path, secrets.token_bytes(32))
    derived = hmac.digest(path.read_bytes(), tenant.encode(), hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(derived).decode()
