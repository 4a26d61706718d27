"""The Job as its two files show it, without the ledger."""

from __future__ import annotations

from planish.contract.errors import NotFound
from planish.contract.job import TERMINAL, Job, JobStatus, Progress, links_of
from planish.store.job_files import JobFiles
from planish.store.records import Outcome, SpecRecord


def unknown_job(job_id: str) -> NotFound:
    """Return the error for an id that is nobody's."""
    return NotFound(f"there is no job {job_id[:100]!r}")


def document_from_files(files: JobFiles, job_id: str) -> bytes:
    """Return the document of a job that the ledger does not know (yet); raises NotFound."""
    record = files.spec(job_id)
    if record is None:
        raise unknown_job(job_id)
    return _job(record, files.outcome(job_id)).model_dump_json().encode()


def _job(record: SpecRecord, outcome: Outcome | None) -> Job:
    status = JobStatus.QUEUED if outcome is None else outcome.status
    return Job(
        id=record.id,
        name=record.spec.name,
        labels=record.spec.labels,
        status=status,
        terminal=status in TERMINAL,
        succeeded=status is JobStatus.SUCCEEDED,
        cancel_requested=False,
        attempt=outcome.attempt if outcome else 0,
        created_at=record.created_at,
        started_at=outcome.started_at if outcome else None,
        finished_at=outcome.finished_at if outcome else None,
        progress=Progress(),
        spec=record.spec,
        verdict=outcome.verdict if outcome else None,
        result=outcome.result if outcome else None,
        error=outcome.error if outcome else None,
        links=links_of(record.id),
    )
