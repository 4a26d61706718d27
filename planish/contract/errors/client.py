"""What only clients meet; no server sends these."""

from __future__ import annotations

from planish.contract.errors.base import PlanishError


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
