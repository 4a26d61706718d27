"""What was looked at, and how it went."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Outcome(StrEnum):
    """How a check went; SKIPPED says in its detail what is missing."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str
    outcome: Outcome
    detail: str


class Verification(BaseModel):
    """Everything that was looked at; `ok` when nothing failed."""

    model_config = ConfigDict(frozen=True)

    folder: str
    ok: bool
    checks: tuple[Check, ...]
