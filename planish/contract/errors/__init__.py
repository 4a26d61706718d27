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
    │   ├── FileInUse          409  file_in_use
    │   └── OffsetMismatch     409  offset_mismatch
    ├── UploadExpired          410  upload_expired
    ├── UnsupportedTusVersion  412  unsupported_tus_version
    ├── TooLarge               413  too_large
    ├── UnsupportedMedia       415  unsupported_media_type
    ├── RangeNotSatisfiable    416  range_not_satisfiable
    ├── MisdirectedRequest     421  misdirected_request
    ├── UploadLocked           423  upload_locked
    ├── ChecksumMismatch       460  checksum_mismatch
    ├── RateLimited            429  rate_limited
    │   └── QuotaExceeded      429  quota_exceeded
    ├── InvalidInput           422  invalid_input
    │   ├── InvalidSpec        422  invalid_spec
    │   ├── MissingPart        422  missing_part
    │   ├── DigestMismatch     422  digest_mismatch
    │   ├── StorageUrlNotAllowed     422  storage_url_not_allowed
    │   ├── StorageUnreadable        422  storage_unreadable
    │   ├── IdempotencyKeyReused     422  idempotency_key_reused
    │   ├── UnsatisfiableResources   422  unsatisfiable_resources
    │   ├── ConversionFailed   422  conversion_failed
    │   │   └── FileDenied           422  file_denied
    │   ├── SandboxUnavailable       422  sandbox_unavailable
    │   ├── OutputNotAllowed         422  output_not_allowed
    │   ├── InvalidModel       422  invalid_model
    │   │   ├── UnknownFormat        422  unknown_model_format
    │   │   ├── OperatorNotAllowed   422  operator_not_allowed
    │   │   ├── UnsafeModel          422  unsafe_model
    │   │   ├── ArchitectureRequired 422  architecture_required
    │   │   ├── UnknownArchitecture  422  unknown_architecture
    │   │   ├── ArchitectureUnavailable    422  architecture_unavailable
    │   │   └── StateDictMismatch    422  state_dict_mismatch
    │   ├── InvalidData        422  invalid_data
    │   │   ├── InputNotFound        422  input_not_found
    │   │   ├── AmbiguousLayout      422  ambiguous_layout
    │   │   ├── LabelOutOfRange      422  label_out_of_range
    │   │   └── NonFiniteData        422  non_finite_data
    │   └── InvalidRecipe      422  invalid_recipe
    │       ├── NotForOnnx           422  not_for_onnx
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

from planish.contract.errors.base import PlanishError
from planish.contract.errors.client import (
    ServerUnreachable,
    VerificationFailed,
    WaitTimeout,
)
from planish.contract.errors.input import (
    AmbiguousLayout,
    ArchitectureRequired,
    ArchitectureUnavailable,
    ConversionFailed,
    DigestMismatch,
    FileDenied,
    IdempotencyKeyReused,
    InputNotFound,
    InvalidData,
    InvalidInput,
    InvalidModel,
    InvalidRecipe,
    InvalidSpec,
    LabelOutOfRange,
    MissingPart,
    NonFiniteData,
    NotForOnnx,
    NothingChanged,
    OperatorNotAllowed,
    OutputNotAllowed,
    SandboxUnavailable,
    StateDictMismatch,
    StorageUnreadable,
    StorageUrlNotAllowed,
    UnknownArchitecture,
    UnknownFormat,
    UnsafeModel,
    UnsatisfiableResources,
)
from planish.contract.errors.job import (
    DeadlineExceeded,
    JobCancelled,
    JobExpired,
    JobFailed,
    MissingDependency,
    OutOfMemory,
    ReloadMismatch,
    TrainingDiverged,
    WorkerLost,
)
from planish.contract.errors.request import (
    AlreadyTerminal,
    BadRequest,
    ChecksumMismatch,
    Conflict,
    FileInUse,
    Forbidden,
    InternalError,
    InvalidParameter,
    MethodNotAllowed,
    MisdirectedRequest,
    NotFinished,
    NotFound,
    NotTerminal,
    OffsetMismatch,
    QuotaExceeded,
    RangeNotSatisfiable,
    RateLimited,
    StorageFull,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
    UnsupportedTusVersion,
    UploadExpired,
    UploadLocked,
)
from planish.contract.problem import FieldError

__all__ = [
    "BY_CODE",
    "AlreadyTerminal",
    "AmbiguousLayout",
    "ArchitectureRequired",
    "ArchitectureUnavailable",
    "BadRequest",
    "ChecksumMismatch",
    "Conflict",
    "ConversionFailed",
    "DeadlineExceeded",
    "DigestMismatch",
    "FileDenied",
    "FileInUse",
    "Forbidden",
    "IdempotencyKeyReused",
    "InputNotFound",
    "InternalError",
    "InvalidData",
    "InvalidInput",
    "InvalidModel",
    "InvalidParameter",
    "InvalidRecipe",
    "InvalidSpec",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "LabelOutOfRange",
    "MethodNotAllowed",
    "MisdirectedRequest",
    "MissingDependency",
    "MissingPart",
    "NonFiniteData",
    "NotFinished",
    "NotForOnnx",
    "NotFound",
    "NotTerminal",
    "NothingChanged",
    "OffsetMismatch",
    "OperatorNotAllowed",
    "OutOfMemory",
    "OutputNotAllowed",
    "PlanishError",
    "QuotaExceeded",
    "RangeNotSatisfiable",
    "RateLimited",
    "ReloadMismatch",
    "SandboxUnavailable",
    "ServerUnreachable",
    "StateDictMismatch",
    "StorageFull",
    "StorageUnreadable",
    "StorageUrlNotAllowed",
    "TooLarge",
    "TrainingDiverged",
    "Unauthorized",
    "Unavailable",
    "UnknownArchitecture",
    "UnknownFormat",
    "UnsafeModel",
    "UnsatisfiableResources",
    "UnsupportedMedia",
    "UnsupportedTusVersion",
    "UploadExpired",
    "UploadLocked",
    "VerificationFailed",
    "WaitTimeout",
    "WorkerLost",
    "error_from",
]


def _tree(cls: type[PlanishError]) -> Iterator[type[PlanishError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


BY_CODE: dict[str, type[PlanishError]] = {cls.code: cls for cls in _tree(PlanishError)}


def error_from(code: str, detail: str, errors: tuple[FieldError, ...] = ()) -> PlanishError:
    """Return the error class of a code again; an unknown code gives `PlanishError`."""
    return BY_CODE.get(code, PlanishError)(detail, errors)
