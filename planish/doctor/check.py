"""What one look found."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["ok", "note", "warning", "failure"]


class Check(BaseModel):
    """One thing that was looked at.

    Attributes:
        name: what was looked at; stable.
        outcome: ``note`` is a fact without a verdict; a ``failure`` keeps Planish from working.
        detail: what was found, and what to do about it.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    outcome: Outcome
    detail: str
