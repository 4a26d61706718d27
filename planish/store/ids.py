"""Names that sort by age: ULIDs (https://github.com/ulid/spec), monotonic within a process."""

from __future__ import annotations

import secrets
import threading
import time

from planish.contract.wire import ULID_ALPHABET

_RANDOM_BITS = 80
_LENGTH = 26


class _Clock:
    """Gives numbers that always grow, also when the wall clock stands still or steps back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        with self._lock:
            self._last = max(fresh, self._last + 1)
            return self._last


_clock = _Clock()


def new_ulid() -> str:
    """Return a new ULID, greater than every earlier one of this process."""
    number = _clock.next()
    return "".join(
        ULID_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)
    )


def new_id(kind: str) -> str:
    """Return a new id such as ``job_01J…``; `kind` is ``job`` or ``plan``."""
    return f"{kind}_{new_ulid()}"
