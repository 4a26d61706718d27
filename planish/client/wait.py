"""Waits for a job by long polls: the server answers when something changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from planish.client.calls import get_job, job_path, read_model
from planish.client.exchange import Flow, Reply, Request, send, sleep
from planish.client.failures import check
from planish.client.retry import RETRY_STATUS, pause, retry_after
from planish.contract.errors import (
    JobCancelled,
    JobExpired,
    JobFailed,
    PlanishError,
    ServerUnreachable,
    Unavailable,
    WaitTimeout,
    error_from,
)
from planish.contract.job import Job, JobStatus

POLL_SECONDS = 25.0
READ_MARGIN = 15.0
PATIENCE_SECONDS = 120.0  # a server that restarts is waited for; one that is gone is not
QUICK_SECONDS = 0.2

OnChange = Callable[[Job], None]
_ENDS: Mapping[JobStatus, type[PlanishError]] = {
    JobStatus.FAILED: JobFailed,
    JobStatus.CANCELLED: JobCancelled,
    JobStatus.EXPIRED: JobExpired,
}


def wait(job_id: str, timeout: float | None, on_change: OnChange | None) -> Flow[Job]:
    """Return the succeeded job.

    Args:
        job_id: the job.
        timeout: seconds; None waits for ever. The job itself goes on after a timeout.
        on_change: called with the job whenever it has changed.

    Raises:
        WaitTimeout: it is not finished in time; `job` is its last known state.
        ServerUnreachable: the server is away for two minutes.
        PlanishError: the job failed, was cancelled or expired; `job` is its final state.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    job = yield from get_job(job_id).run()
    etag, away_since, failures = "", None, 0
    while True:
        if on_change is not None:
            on_change(job)
        if job.terminal:
            return succeeded(job)
        while True:
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise _timed_out(job, timeout)
            began = time.monotonic()
            try:
                reply = yield from _poll(job_id, etag, min(left, POLL_SECONDS))
            except (ServerUnreachable, Unavailable):
                away_since = away_since or began
                if time.monotonic() - away_since > PATIENCE_SECONDS:
                    raise
                failures += 1
                yield from sleep(min(pause(failures), max(left, 0)))
                continue
            away_since, failures = None, 0
            etag = reply.headers.get("etag", "")
            if reply.status != HTTPStatus.NOT_MODIFIED:
                changed = read_model(Job, reply.content)
                if changed != job:
                    job = changed
                    break
            if time.monotonic() - began < QUICK_SECONDS:
                yield from sleep(QUICK_SECONDS)  # a server or proxy that does not hold polls


def succeeded(job: Job) -> Job:
    """Return a succeeded job; raise the error of any other terminal one, with `job` set."""
    if job.succeeded:
        return job
    error = failure_of(job)
    error.job = job
    raise error


def failure_of(job: Job) -> PlanishError:
    """Return the error that a terminal job ended with."""
    kind = _ENDS.get(job.status, JobFailed)
    if job.error is None:
        return kind(f"{job.id} ended {job.status} without a reason")
    error = error_from(job.error.code, job.error.detail, job.error.errors)
    return kind(job.error.detail, job.error.errors) if type(error) is PlanishError else error


def _poll(job_id: str, etag: str, seconds: float) -> Flow[Reply]:
    headers = {"Prefer": f"wait={max(1, round(seconds))}"}
    if etag:
        headers["If-None-Match"] = etag
    request = Request("GET", job_path(job_id), headers=headers, read_seconds=seconds + READ_MARGIN)
    reply = yield from send(request)
    if reply.status in RETRY_STATUS:
        yield from sleep(min(retry_after(reply) or 0.0, seconds))
        raise Unavailable(f"{request.name} was answered {reply.status}")
    return check(request, reply)


def _timed_out(job: Job, timeout: float | None) -> WaitTimeout:
    error = WaitTimeout(f"{job.id} is {job.status} after {timeout:g} seconds; it goes on running")
    error.job = job
    return error
