"""API keys: who may come in, for which tenant, to do what. Only hashes are stored.

``planish_<id>_<secret><check>``: the id names the file ``keys/<id>.json``; the secret holds 256
bits and is kept as SHA-256 (it is random, so a slow hash would guard nothing); the check is a
CRC-32 by which a mistyped key is told from a revoked one. A key is shown once, when it is made.

The files are the truth and are looked at anew on each request: a revoked key is out at once, in
every API process.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planish.contract.errors import InvalidParameter, NotFound
from planish.contract.wire import DEFAULT_TENANT
from planish.store.durable import make_private, put_new, replace_file

PREFIX = "planish"
TENANT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
_ID_BYTES, _SECRET_BYTES = 5, 32
_FORM = re.compile(rf"^{PREFIX}_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{64}})([0-9a-f]{{8}})$")


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    WRITE = "write"
    OPERATE = "operate"


class KeyRecord(BaseModel):
    """What is stored of a key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str = Field(min_length=1, max_length=200)
    tenant: str = Field(pattern=TENANT_PATTERN)
    scopes: tuple[Scope, ...] = Field(min_length=1)
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """Return ``live``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"


@dataclass(frozen=True)
class NewKey:
    """A key that was just made; `secret` is the whole key and is nowhere else."""

    record: KeyRecord
    secret: str


class Keys:
    """The keys below one data folder."""

    def __init__(self, root: Path) -> None:
        self._folder = make_private(root / "keys")
        self._read: dict[str, tuple[int, KeyRecord]] = {}
        self._seen = (0, False)

    def create(
        self,
        name: str,
        tenant: str = DEFAULT_TENANT,
        scopes: tuple[Scope, ...] = (Scope.READ, Scope.WRITE),
        lifetime: timedelta | None = None,
    ) -> NewKey:
        """Make a key.

        Raises:
            InvalidParameter: a tenant that is no name, or a lifetime of nothing.
        """
        if not re.fullmatch(TENANT_PATTERN, tenant):
            raise InvalidParameter(
                f"{tenant[:100]!r} is no tenant: use up to 63 lower-case letters, digits and -"
            )
        if lifetime is not None and lifetime <= timedelta(0):
            raise InvalidParameter("a key must live for some time; give a positive lifetime")
        key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
        now = datetime.now(UTC)
        record = KeyRecord(
            id=key_id,
            name=name,
            tenant=tenant,
            scopes=tuple(dict.fromkeys(scopes)),
            sha256=_digest(secret),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        put_new(self._path(key_id), record.model_dump_json().encode())
        body = f"{PREFIX}_{key_id}_{secret}"
        return NewKey(record, f"{body}{zlib.crc32(body.encode()):08x}")

    def find(self, key: str) -> KeyRecord | None:
        """Return the record of a presented key, whatever its state; None if it is nobody's."""
        match = _FORM.match(key)
        if match is None or f"{zlib.crc32(key[:-8].encode()):08x}" != match[3]:
            return None
        record = self._record(match[1])
        if record is None or not hmac.compare_digest(record.sha256, _digest(match[2])):
            return None
        return record

    def list(self) -> list[KeyRecord]:
        """Return all keys, oldest first."""
        found = (self._record(path.stem) for path in self._folder.glob("*.json"))
        return sorted((r for r in found if r is not None), key=lambda r: (r.created_at, r.id))

    def any(self) -> bool:
        """Tell whether a key was ever made; costs a look at the folder's date."""
        changed = self._folder.stat().st_mtime_ns
        if self._seen[0] != changed:
            self._seen = changed, next(self._folder.glob("*.json"), None) is not None
        return self._seen[1]

    def current(self, key_id: str) -> KeyRecord | None:
        """Return a key's record as it is now."""
        return self._record(key_id)

    def revoke(self, key_id: str) -> KeyRecord:
        """End a key at once; revoking it again changes nothing.

        Raises:
            NotFound: there is no such key.
        """
        record = self._known(key_id)
        if record.revoked_at is not None:
            return record
        return self._replace(record.model_copy(update={"revoked_at": datetime.now(UTC)}))

    def rotate(self, key_id: str, grace: timedelta) -> NewKey:
        """Make a key with the same rights; the old one lives for `grace` longer at most.

        Raises:
            NotFound: there is no such key.
            InvalidParameter: it is revoked or expired.
        """
        record, now = self._known(key_id), datetime.now(UTC)
        if record.state(now) != "live":
            raise InvalidParameter(f"the key {key_id} is {record.state(now)}; make a new one")
        lifetime = None if record.expires_at is None else record.expires_at - record.created_at
        new = self.create(record.name, record.tenant, record.scopes, lifetime)
        end = min(record.expires_at or now + grace, now + grace)
        self._replace(record.model_copy(update={"expires_at": end}))
        return new

    def _known(self, key_id: str) -> KeyRecord:
        record = self._record(key_id) if re.fullmatch(r"[0-9a-f]{1,32}", key_id) else None
        if record is None:
            raise NotFound(f"there is no key {key_id[:100]!r}; planish keys list shows them")
        return record

    def _record(self, key_id: str) -> KeyRecord | None:
        """Return a record, read again when its file has changed."""
        path = self._path(key_id)
        try:
            changed = path.stat().st_mtime_ns
            known = self._read.get(key_id)
            if known is None or known[0] != changed:
                known = changed, KeyRecord.model_validate_json(path.read_bytes())
                self._read[key_id] = known
        except (FileNotFoundError, ValidationError):
            return None
        return known[1]

    def _replace(self, record: KeyRecord) -> KeyRecord:
        replace_file(self._path(record.id), record.model_dump_json().encode())
        self._read.pop(record.id, None)
        return record

    def _path(self, key_id: str) -> Path:
        return self._folder / f"{key_id}.json"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
