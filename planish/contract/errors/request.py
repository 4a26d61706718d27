"""What a request can be refused for, whatever it carries."""

from __future__ import annotations

from planish.contract.errors.base import PlanishError


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


class OffsetMismatch(Conflict):
    """Bytes of a resumable upload were sent from the wrong offset."""

    code, title = "offset_mismatch", "The upload stands at another offset"


class UploadExpired(PlanishError):
    """A resumable upload was not finished in time."""

    code, title, status = "upload_expired", "The upload has expired", 410


class UnsupportedTusVersion(PlanishError):
    """The request speaks another version of tus, or none."""

    code, title, status = "unsupported_tus_version", "Only tus 1.0.0 is spoken here", 412


class UploadLocked(PlanishError):
    """Another request is writing to the same upload."""

    code, title, status = "upload_locked", "The upload is being written to", 423
    retryable = True


class ChecksumMismatch(PlanishError):
    """The bytes of one request are not what its checksum says (a status of tus)."""

    code, title, status = "checksum_mismatch", "The bytes do not match their checksum", 460
    retryable = True


class TooLarge(PlanishError):
    """A body or part is above its limit."""

    code, title, status = "too_large", "The body is too large", 413


class MisdirectedRequest(PlanishError):
    """The request names a host that this service is not."""

    code, title, status = "misdirected_request", "This service has another name", 421


class UnsupportedMedia(PlanishError):
    """The content type is not taken here."""

    code, title, status = "unsupported_media_type", "This content type is not taken here", 415


class RangeNotSatisfiable(PlanishError):
    """The range lies outside the file."""

    code, title, status = "range_not_satisfiable", "The range lies outside the file", 416


class RateLimited(PlanishError):
    """A tenant sends more than its share."""

    code, title, status = "rate_limited", "Too many requests", 429
    retryable = True


class QuotaExceeded(RateLimited):
    """A tenant holds more than its share."""

    code, title = "quota_exceeded", "A quota is used up"


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
