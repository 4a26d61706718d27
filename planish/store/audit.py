"""The audit log: who did what, in lines that cannot be changed or dropped unnoticed.

``audit.jsonl`` in the data folder. Each line is one JSON object whose ``prev`` is the SHA-256 of
the line before, so an edit, a deletion or an insertion breaks the chain from there on. Every line
is on the disk before `record` returns. Several processes share the file under a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FILE = "audit.jsonl"
START = "0" * 64
_TAIL = 64 << 10


@dataclass(frozen=True)
class Broken:
    """Where the chain breaks: the number of the line, from 1, and why."""

    line: int
    why: str


class Audit:
    """Appends to the log of one data folder."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE

    def record(
        self,
        action: str,
        *,
        tenant: str,
        key_id: str | None,
        target: str,
        outcome: str = "done",
        address: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Append one event; it is durable when this returns.

        Args:
            action: e.g. ``job.submitted``.
            tenant: of whoever acted.
            key_id: of the key that was used; None without keys.
            target: what was acted on: an id, never content.
            outcome: ``done``, or the code of the refusal.
            address: of the client.
            request_id: of the request.
        """
        event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "action": action,
            "tenant": tenant,
            "key_id": key_id,
            "target": target[:300],
            "outcome": outcome,
            "address": address,
            "request_id": request_id,
        }
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            line = json.dumps({**event, "prev": _last_hash(fd)}, ensure_ascii=True)
            os.write(fd, line.encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)


def check_chain(root: Path) -> Broken | None:
    """Return where the log of a data folder was tampered with, None if it is whole."""
    previous = START
    try:
        lines = (root / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return None
    for number, line in enumerate(lines, 1):
        try:
            stated = json.loads(line)["prev"]
        except (ValueError, KeyError, TypeError):
            return Broken(number, "the line is no event")
        if stated != previous:
            return Broken(number, "the line before it was changed, removed or put in")
        previous = _hash(line)
    return None


def _last_hash(fd: int) -> str:
    size = os.fstat(fd).st_size
    if size == 0:
        return START
    tail = os.pread(fd, min(size, _TAIL), max(0, size - _TAIL))
    return _hash(tail.rstrip(b"\n").rpartition(b"\n")[2])


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
