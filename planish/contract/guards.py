"""What a kernel gives to lock processes in, as workers, /readyz and the doctor tell it."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

FILES = "files"
SYSTEM_CALLS = "system_calls"
NEEDED = (FILES, SYSTEM_CALLS)
"""Without these two, a process that opens uploads is not locked in."""


class Guard(BaseModel):
    """One guard, and whether this kernel gives it.

    Attributes:
        name: stable; `docs/security.md` lists them.
        given: whether it is there.
        detail: what it covers, or why it is missing.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    given: bool
    detail: str


def is_guarded(guards: Iterable[Guard]) -> bool:
    """Tell whether uploads can be opened behind locked doors."""
    given = {guard.name for guard in guards if guard.given}
    return given.issuperset(NEEDED)
