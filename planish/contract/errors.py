"""The error tree: every failure a person can meet, with a stable code.

    PlanishError
    ├── BadRequest             400  malformed_request
    │   └── InvalidParameter   400  invalid_parameter
    ├── Unauthorized           401  unauthorized
    ├── Forbidden              403  forbidden
    ├── NotFound               404  not_found
    ├── MethodNotAllowed       405  method_not_allowed
    ├── Conflict               409  conflict
    │   ├── NotFinished        409  not_finished
    │   ├── AlreadyTerminal    409  already_terminal
    │   ├── NotTerminal        409  not_terminal
    │   └── FileInUse          409  file_in_use
    ├── TooLarge               413  too_large
    ├── UnsupportedMedia       415  unsupported_media_type
    ├── RangeNotSatisfiable    416  range_not_satisfiable
    ├── InvalidInput           422  invalid_input
    │   ├── InvalidSpec        422  invalid_spec
    │   ├── MissingPart        422  missing_part
    │   ├── DigestMismatch     422  digest_mismatch
    │   ├── IdempotencyKeyReused     422  idempotency_key_reused
    │   ├── UnsatisfiableResources   422  unsatisfiable_resources
    │   ├── InvalidModel       422  invalid_model
    │   │   ├── UnknownFormat        422  unknown_model_format
    │   │   ├── OperatorNotAllowed   422  operator_not_allowed
    │   │   ├── UnsafeModel          422  unsafe_model
    │   │   ├── ArchitectureRequired 422  architecture_required
    │   │   ├── UnknownArchitecture  422  unknown_architecture
    │   │   └── StateDictMismatch    422  state_dict_mismatch
    │   ├── InvalidData        422  invalid_data
    │   │   ├── InputNotFound        422  input_not_found
    │   │   ├── AmbiguousLayout      422  ambiguous_layout
    │   │   ├── LabelOutOfRange      422  label_out_of_range
    │   │   └── NonFiniteData        422  non_finite_data
    │   └── InvalidRecipe      422  invalid_recipe
    │       └── NothingChanged       422  nothing_changed
    ├── InternalError          500  internal_error
    ├── Unavailable            503  unavailable
    ├── StorageFull            507  storage_full
    ├── JobFailed              (of a job) job_failed
    │   ├── DeadlineExceeded   (of a job) deadline_exceeded
    │   ├── WorkerLost         (of a job) worker_lost
    │   ├── OutOfMemory        (of a job) out_of_memory
    │   ├── TrainingDiverged   (of a job) training_diverged
    │   ├── MissingDependency  (of a job) missing_dependency
    │   └── ReloadMismatch     (of a job) reload_mismatch
    ├── JobCancelled           (of a job) cancelled
    ├── JobExpired             (of a job) expired
    └── client side
        ├── ServerUnreachable  server_unreachable
        ├── WaitTimeout        wait_timeout
        └── VerificationFailed verification_failed

The same class is raised in the engine, stored in the job, sent as
``application/problem+json`` (RFC 9457) and raised again by the client.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        super().__init__(detail)
        self.detail = detail
        self.errors = errors

    def __reduce__(self) -> tuple[type[PlanishError], tuple[str, tuple[FieldError, ...]]]:
        return type(self), (self.detail, self.errors)

    def problem(self, request_id: str | None = None) -> Problem:
        """Return the RFC 9457 body of this error."""
        return Problem(**dict(self.info()), status=self.status, request_id=request_id)

    def info(self) -> ErrorInfo:
        """Return this error as the ``error`` of a failed job."""
        return ErrorInfo(code=self.code, title=self.title, detail=self.detail, errors=self.errors)


class BadRequest(PlanishError):
    """The request is not well-formed HTTP, JSON or multipart."""

    code, title, status = "malformed_request", "The request is malformed", 400


class InvalidParameter(BadRequest):
    """A query parameter or header has a value that is not allowed."""

    code, title = "invalid_parameter", "A query parameter or header is not valid"


class Unauthorized(PlanishError):
    """No valid API key."""

    code, title, status = "unauthorized", "A valid API key is needed", 401


class Forbidden(PlanishError):
    """The API key is valid, but not for this."""

    code, title, status = "forbidden", "The API key does not allow this", 403


class NotFound(PlanishError):
    """Nothing here, or nothing that this caller may see."""

    code, title, status = "not_found", "Not found", 404


class MethodNotAllowed(PlanishError):
    """The path exists, the method does not."""

    code, title, status = "method_not_allowed", "This path does not take this method", 405


class Conflict(PlanishError):
    """The state of the thing does not allow this."""

    code, title, status = "conflict", "The current state does not allow this", 409


class NotFinished(Conflict):
    """A result was asked for before success."""

    code, title = "not_finished", "The job has no result (yet)"


class AlreadyTerminal(Conflict):
    """A finished job cannot be cancelled."""

    code, title = "already_terminal", "The job is already finished"


class NotTerminal(Conflict):
    """A live job cannot be deleted."""

    code, title = "not_terminal", "The job is still alive"


class FileInUse(Conflict):
    """A file of a live job cannot be deleted."""

    code, title = "file_in_use", "The file is used by a live job"


class TooLarge(PlanishError):
    """A body or part is above its limit."""

    code, title, status = "too_large", "The body is too large", 413


class UnsupportedMedia(PlanishError):
    """The content type is not taken here."""

    code, title, status = "unsupported_media_type", "This content type is not taken here", 415


class RangeNotSatisfiable(PlanishError):
    """The range lies outside the file."""

    code, title, status = "range_not_satisfiable", "The range lies outside the file", 416


class InvalidInput(PlanishError):
    """The bytes are well-formed, but what they say cannot be used."""

    code, title, status = "invalid_input", "The input cannot be used", 422


class InvalidSpec(InvalidInput):
    """The job spec breaks the contract."""

    code, title = "invalid_spec", "The job spec is not valid"


class MissingPart(InvalidInput):
    """A needed file or part is absent or empty."""

    code, title = "missing_part", "A needed part is missing"


class DigestMismatch(InvalidInput):
    """The digest header does not match the body."""

    code, title = "digest_mismatch", "The digest does not match the body"


class IdempotencyKeyReused(InvalidInput):
    """One Idempotency-Key came with two different bodies."""

    code, title = "idempotency_key_reused", "This Idempotency-Key was used with another body"


class UnsatisfiableResources(InvalidInput):
    """The fleet can never run this job."""

    code, title = "unsatisfiable_resources", "The fleet has not got these resources"


class InvalidModel(InvalidInput):
    """The model file cannot be read."""

    code, title = "invalid_model", "The model file is not valid"


class UnknownFormat(InvalidModel):
    """The content is none of the known model formats."""

    code, title = "unknown_model_format", "The model's format is not known"


class OperatorNotAllowed(InvalidModel):
    """The graph holds an operator outside the allow list."""

    code, title = "operator_not_allowed", "The model uses an operator that is not supported"


class UnsafeModel(InvalidModel):
    """The file holds code or pickles beyond plain tensors."""

    code, title = "unsafe_model", "The model file carries content that is never executed"


class ArchitectureRequired(InvalidModel):
    """Bare weights came without an architecture."""

    code, title = "architecture_required", "Weights need an architecture"


class UnknownArchitecture(InvalidModel):
    """The named architecture or its config is not known."""

    code, title = "unknown_architecture", "The architecture is not known"


class StateDictMismatch(InvalidModel):
    """Weights and architecture do not fit each other."""

    code, title = "state_dict_mismatch", "The weights do not fit the architecture"


class InvalidData(InvalidInput):
    """The data file cannot be read or used."""

    code, title = "invalid_data", "The data is not valid"


class InputNotFound(InvalidData):
    """The data has no array for a model input."""

    code, title = "input_not_found", "The data has no array for a model input"


class AmbiguousLayout(InvalidData):
    """Images could be NHWC as well as NCHW."""

    code, title = "ambiguous_layout", "The image layout cannot be told"


class LabelOutOfRange(InvalidData):
    """A label is not an index of a model output."""

    code, title = "label_out_of_range", "A label is outside the model's classes"


class NonFiniteData(InvalidData):
    """The data holds NaN or infinity."""

    code, title = "non_finite_data", "The data holds NaN or infinity"


class InvalidRecipe(InvalidInput):
    """The recipe makes no sense for this model and data."""

    code, title = "invalid_recipe", "The recipe cannot work"


class NothingChanged(InvalidRecipe):
    """A pass found nothing that it could change."""

    code, title = "nothing_changed", "A pass changed nothing"


class InternalError(PlanishError):
    """A fault of ours."""

    code, title, status = "internal_error", "Something went wrong inside Planish", 500


class Unavailable(PlanishError):
    """A part of the service is down or busy."""

    code, title, status = "unavailable", "The service cannot take this now", 503
    retryable = True


class StorageFull(PlanishError):
    """No space is left."""

    code, title, status = "storage_full", "No storage space is left", 507


class JobFailed(PlanishError):
    """The job ended without a result."""

    code, title = "job_failed", "The job failed"


class DeadlineExceeded(JobFailed):
    """The job ran longer than ``resources.run_seconds``."""

    code, title = "deadline_exceeded", "The job ran out of time"


class WorkerLost(JobFailed):
    """The worker died on every attempt."""

    code, title = "worker_lost", "The worker died on every attempt"


class OutOfMemory(JobFailed):
    """The job's process ran out of memory."""

    code, title = "out_of_memory", "The job ran out of memory"


class TrainingDiverged(JobFailed):
    """The loss became NaN or infinite."""

    code, title = "training_diverged", "The training diverged"


class MissingDependency(JobFailed):
    """The worker lacks a library that the job's target or outputs need."""

    code, title = "missing_dependency", "The worker lacks a library"


class ReloadMismatch(JobFailed):
    """The artifact, reloaded in a fresh process, gave other outputs."""

    code, title = "reload_mismatch", "The reloaded artifact gives other outputs"


class JobCancelled(PlanishError):
    """The job was cancelled."""

    code, title = "cancelled", "The job was cancelled"


class JobExpired(PlanishError):
    """The job was not started in time."""

    code, title = "expired", "The job expired"


class ServerUnreachable(PlanishError):
    """No answer from the server."""

    code, title = "server_unreachable", "The server cannot be reached"
    retryable = True


class WaitTimeout(PlanishError):
    """The job is not finished after the given time."""

    code, title = "wait_timeout", "The job is not finished yet"


class VerificationFailed(PlanishError):
    """A downloaded artifact is not what the manifest says."""

    code, title = "verification_failed", "The artifact does not match its manifest"


def _tree(cls: type[PlanishError]) -> Iterator[type[PlanishError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


BY_CODE: dict[str, type[PlanishError]] = {cls.code: cls for cls in _tree(PlanishError)}


def error_from(code: str, detail: str, errors: tuple[FieldError, ...] = ()) -> PlanishError:
    """Return the error class of a code again; an unknown code gives `PlanishError`."""
    return BY_CODE.get(code, PlanishError)(detail, errors)
