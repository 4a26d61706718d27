"""A job as clients see it: its states, progress, result and links."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from planish.contract.problem import ErrorInfo
from planish.contract.spec import Spec


class JobStatus(StrEnum):
    """The states of a job; see docs/architecture.md for the picture.

    QUEUED: the spec is durable; waiting for a worker. RUNNING: one worker holds the lease.
    SUCCEEDED, FAILED, CANCELLED, EXPIRED: terminal, written once. EXPIRED is a job that no worker
    took within ``resources.start_by_seconds``.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset(
    {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED}
)

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset(
        {JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.EXPIRED, JobStatus.FAILED}
    ),
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    **{status: frozenset[JobStatus]() for status in TERMINAL},
}


class EventType(StrEnum):
    """What can happen to a job; the SSE ``event:`` field."""

    QUEUED = "job.queued"
    STARTED = "job.started"
    REQUEUED = "job.requeued"
    CANCEL_REQUESTED = "job.cancel_requested"
    PROGRESS = "job.progress"
    PASS_STARTED = "pass.started"
    PASS_FINISHED = "pass.finished"
    EPOCH = "train.epoch"
    WARNING = "job.warning"
    FINISHED = "job.finished"


class Wire(BaseModel):
    """Base of what the service sends: frozen; clients ignore keys of newer servers."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Progress(Wire):
    """How far a job is. `fraction` is 0 to 1 over the whole job, `step` counts from 1."""

    stage: str = "queued"
    step: int = Field(0, ge=0)
    steps: int = Field(0, ge=0)
    fraction: float = Field(0.0, ge=0, le=1)
    eta_seconds: float | None = None
    message: str = ""


class Artifact(Wire):
    """A file that a job produced."""

    name: str
    size: int
    sha256: str
    media_type: str
    href: str


class Summary(Wire):
    """The result in one line; ratios are baseline / optimized."""

    size_ratio: float | None = None
    latency_ratio: float | None = None
    metric: str
    baseline: float | None = None
    optimized: float | None = None


class Result(Wire):
    """What a succeeded job made."""

    model: str
    artifacts: tuple[Artifact, ...]
    report: str
    summary: Summary


class Links(Wire):
    """Paths of a job's other resources."""

    self: str
    events: str
    logs: str
    cancel: str
    report: str
    artifacts: str
    model: str


class Job(Wire):
    """The job document. Branch on `terminal` and `succeeded`, never on a list of states."""

    id: str
    name: str | None
    labels: dict[str, str]
    status: JobStatus
    terminal: bool
    succeeded: bool
    cancel_requested: bool
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress
    spec: Spec
    verdict: Literal["met", "missed", "not_evaluated"] | None
    result: Result | None
    error: ErrorInfo | None
    links: Links


class JobPage(Wire):
    """One page of jobs, newest first; pass `next` as ``after`` for the following one."""

    items: tuple[Job, ...]
    next: str | None


class Event(Wire):
    """Something that happened to a job; ids are dense from 1."""

    id: int
    type: str
    time: datetime
    data: dict[str, JsonValue]


class EventList(Wire):
    """All events so far."""

    items: tuple[Event, ...]


class FileInfo(Wire):
    """An uploaded file; the same content has the same id."""

    id: str
    size: int
    name: str | None = None
    created_at: datetime | None = None


class FilePage(Wire):
    """Uploaded files."""

    items: tuple[FileInfo, ...]
    next: str | None


def links_of(job_id: str) -> Links:
    """Return the links of a job."""
    base = f"/jobs/{job_id}"
    return Links(
        self=base,
        events=f"{base}/events",
        logs=f"{base}/logs",
        cancel=f"{base}/cancel",
        report=f"{base}/report",
        artifacts=f"{base}/artifacts",
        model=f"{base}/model",
    )
