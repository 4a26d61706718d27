"""The root of the error tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from planish.contract.problem import ErrorInfo, FieldError, Problem

if TYPE_CHECKING:
    from planish.contract.job import Job


class PlanishError(Exception):
    """Base of everything that Planish raises on purpose.

    Attributes:
        code: stable snake_case name; clients branch on it.
        title: the same for every error of this code.
        status: HTTP status, when the error is an answer to a request.
        retryable: whether the same request may succeed later.
        job: the job that ended with this error, where a client waited for one.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    job: Job | None = None

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        # Details quote what strangers sent; a lone surrogate could not be sent back.
        self.detail = detail.encode("utf-8", "backslashreplace").decode()
        super().__init__(self.detail)
        self.errors = errors

    def __reduce__(self) -> tuple[type[PlanishError], tuple[str, tuple[FieldError, ...]]]:
        return type(self), (self.detail, self.errors)

    def problem(self, request_id: str | None = None) -> Problem:
        """Return the RFC 9457 body of this error."""
        return Problem(**dict(self.info()), status=self.status, request_id=request_id)

    def info(self) -> ErrorInfo:
        """Return this error as the ``error`` of a failed job."""
        return ErrorInfo(code=self.code, title=self.title, detail=self.detail, errors=self.errors)
