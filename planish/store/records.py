"""The two write-once objects of a job: what was asked for, and how it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from planish.contract.job import JobStatus, Result
from planish.contract.problem import ErrorInfo
from planish.contract.report import Plan
from planish.contract.spec import Spec
from planish.contract.wire import DEFAULT_TENANT, JOB_QUEUE, PLAN_QUEUE, PREFIX_PLAN

Kind = Literal["job", "plan"]
TerminalStatus = Literal[
    JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED
]
Verdict = Literal["met", "missed", "not_evaluated"]


class Record(BaseModel):
    """Base of what lies in job folders: frozen; keys of newer versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SpecRecord(Record):
    """SPEC.json: the accepted request, durable before the 202.

    Attributes:
        id: job or plan id.
        kind: plans run like jobs but are in no listing.
        created_at: UTC.
        spec: with `files` filled in.
        request_sha256: of the request, to tell a retry from another request with the same key.
        idempotency_key: the client's, if it sent one.
        tenant: whose job it is; nobody else ever sees it.
    """

    id: str
    kind: Kind = "job"
    created_at: datetime
    spec: Spec
    request_sha256: str
    idempotency_key: str | None = None
    tenant: str = DEFAULT_TENANT


class Outcome(Record):
    """OUTCOME.json: the only commit point of a job; created once, never changed.

    Attributes:
        job_id: whose outcome this is.
        status: a terminal state.
        attempt: the attempt that ended the job; 0 when none ran.
        fence: its fence; 0 when none ran.
        started_at: start of that attempt.
        finished_at: UTC.
        directory: name of the attempt folder that holds the published artifacts.
        verdict: whether the goal was met; None unless succeeded.
        result: of a succeeded job.
        error: of a failed, cancelled or expired one.
        plan: of a succeeded plan.
    """

    job_id: str
    status: TerminalStatus
    attempt: int = 0
    fence: int = 0
    started_at: datetime | None = None
    finished_at: datetime
    directory: str | None = None
    verdict: Verdict | None = None
    result: Result | None = None
    error: ErrorInfo | None = None
    plan: Plan | None = None


def queue_of(job_id: str) -> str:
    """Return the Celery queue that takes this job or plan."""
    return PLAN_QUEUE if job_id.startswith(PREFIX_PLAN) else JOB_QUEUE
