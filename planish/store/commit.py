"""Ending a job: the file decides, the ledger follows."""

from __future__ import annotations

from datetime import datetime

from planish.contract.errors import JobCancelled, PlanishError
from planish.contract.job import JobStatus
from planish.store.job_files import JobFiles
from planish.store.jobs import Deleted, Ledger
from planish.store.records import Outcome


def commit(files: JobFiles, ledger: Ledger, outcome: Outcome) -> Outcome:
    """Put an outcome and settle the one that won.

    Args:
        files: holds the truth.
        ledger: mirrors it; should Redis be away, recovery settles later.
        outcome: how the caller wants the job to end.

    Returns:
        The outcome that stands; equal to `outcome` when the caller won.

    Raises:
        redis.RedisError: the outcome stands, but the ledger does not show it yet.
        OSError: the disk is full or broken; the job has no outcome.
    """
    files.put_outcome(outcome.job_id, outcome)
    winner = files.outcome(outcome.job_id) or outcome
    files.drop_checkpoints(outcome.job_id)
    ledger.settle(winner)
    return winner


def forget(files: JobFiles, ledger: Ledger, job_id: str) -> Deleted:
    """Delete a terminal job with everything that belongs to it.

    The files go first, in one rename: what the ledger still shows after a crash, the next call or
    the recovery removes, while a job without a ledger entry would come back to life.

    Returns:
        ``alive`` when the job has no outcome yet, ``unknown`` when there is no such job.
    """
    outcome = files.outcome(job_id)
    if outcome is None and files.spec(job_id) is not None:
        return "alive"
    if outcome is not None:
        ledger.settle(outcome)
    was_there = files.delete(job_id)
    deleted = ledger.delete(job_id)
    return "deleted" if was_there else deleted


def without_result(
    job_id: str, status: JobStatus, error: PlanishError, finished_at: datetime
) -> Outcome:
    """Return the outcome of a job that ends although no attempt ended it."""
    return Outcome.model_validate(
        {"job_id": job_id, "status": status, "finished_at": finished_at, "error": error.info()}
    )


def cancelled(job_id: str, finished_at: datetime) -> Outcome:
    """Return the outcome of a job that was cancelled before it ran."""
    error = JobCancelled("the job was cancelled before a worker took it")
    return without_result(job_id, JobStatus.CANCELLED, error, finished_at)
