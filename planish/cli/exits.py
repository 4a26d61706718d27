"""What a shell learns from the exit code."""

from __future__ import annotations

from enum import IntEnum

from planish.contract.errors import (
    JobCancelled,
    JobExpired,
    JobFailed,
    PlanishError,
    ServerUnreachable,
    Unavailable,
    WaitTimeout,
)
from planish.contract.job import Job, JobStatus

CLIENT_ERRORS = range(400, 500)


class Exit(IntEnum):
    """Exit codes of every command; docs/cli.md has the same table."""

    OK = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    GOAL_MISSED = 3
    JOB_FAILED = 4
    JOB_ENDED = 5
    UNREACHABLE = 6
    WAIT_TIMEOUT = 124


def exit_of_error(error: PlanishError) -> Exit:
    """Return the exit code that an error stands for."""
    match error:
        case WaitTimeout():
            return Exit.WAIT_TIMEOUT
        case JobCancelled() | JobExpired():
            return Exit.JOB_ENDED
        case JobFailed() if error.status not in CLIENT_ERRORS:
            return Exit.JOB_FAILED
        case ServerUnreachable() | Unavailable():
            return Exit.UNREACHABLE
    if error.job is not None:
        return exit_of_job(error.job)
    return Exit.BAD_INPUT if error.status in CLIENT_ERRORS else Exit.UNEXPECTED


def exit_of_job(job: Job) -> Exit:
    """Return the exit code that a job's end stands for."""
    if job.succeeded:
        return Exit.GOAL_MISSED if job.verdict == "missed" else Exit.OK
    ended = job.status in (JobStatus.CANCELLED, JobStatus.EXPIRED)
    return Exit.JOB_ENDED if ended else Exit.JOB_FAILED
