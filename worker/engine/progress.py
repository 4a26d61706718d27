"""How the engine tells the world how far it is; it does not know who listens."""

from __future__ import annotations

from typing import Protocol

from pydantic import JsonValue

from planish.contract.job import EventType


class Progress(Protocol):
    """Receives progress and events of one job."""

    def stage(self, name: str, step: int, steps: int) -> None:
        """Say that stage `step` (from 1) of `steps` begins."""

    def update(self, fraction: float, message: str) -> None:
        """Say how much of the current stage is done, 0 to 1."""

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Pass on something worth keeping."""


class Silent:
    """A listener that does not care; for direct calls of the engine."""

    def stage(self, name: str, step: int, steps: int) -> None:
        """Ignore a stage."""

    def update(self, fraction: float, message: str) -> None:
        """Ignore a fraction."""

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Ignore an event."""
