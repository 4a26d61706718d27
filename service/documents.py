"""The Job document: from Redis where the ledger has it, else made from the two files of the job."""

from __future__ import annotations

import asyncio

from planish.contract.job import Job
from planish.contract.wire import JOB_ID, PREFIX_JOB
from service.desk import Desk
from service.shown import document_from_files, unknown_job


def check_job_id(job_id: str) -> str:
    """Return the id.

    Raises:
        NotFound: it cannot be the id of a job.
    """
    if not (job_id.startswith(PREFIX_JOB) and JOB_ID.match(job_id)):
        raise unknown_job(job_id)
    return job_id


async def document(desk: Desk, job_id: str) -> bytes:
    """Return the Job document as JSON.

    Raises:
        NotFound: there is no such job.
        ConnectionError: Redis is away.
    """
    found = await desk.pipe.document(check_job_id(job_id))
    if found is None:
        return await asyncio.to_thread(document_from_files, desk.files, job_id)
    return found


async def job_of(desk: Desk, job_id: str) -> Job:
    """Return the job; raises as `document`."""
    return Job.model_validate_json(await document(desk, job_id))
