"""What a kernel gives to lock processes in, as workers, /readyz and the doctor tell it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def common(machines: Sequence[Iterable[Guard]]) -> tuple[Guard, ...]:
    """Return each guard as the weakest of several machines gives it.

    Args:
        machines: the guards of each; a guard that one does not name is missing there.
    """
    found: dict[str, Guard] = {}
    for guards in machines:
        for guard in guards:
            if guard.name not in found or not guard.given:
                found[guard.name] = guard
    named = [{guard.name for guard in guards} for guards in machines]
    return tuple(
        guard
        if all(guard.name in names for names in named)
        else Guard(name=guard.name, given=False, detail="a worker does not tell of it")
        for guard in found.values()
    )
