"""How an error looks on the wire: RFC 9457 problems and the ``error`` of a job."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """One bad field of a request.

    Attributes:
        pointer: JSON pointer (RFC 6901) into the body, e.g. ``/recipe/0/sparsity``.
        detail: which value was wrong and what is allowed.
    """

    model_config = ConfigDict(frozen=True)

    pointer: str
    detail: str


class Problem(BaseModel):
    """An RFC 9457 body."""

    model_config = ConfigDict(frozen=True)

    type: str = "about:blank"
    code: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None


class ErrorInfo(BaseModel):
    """The ``error`` of a failed job."""

    model_config = ConfigDict(frozen=True)

    code: str
    title: str
    detail: str
    errors: tuple[FieldError, ...] = Field(default=(), exclude_if=lambda value: not value)
