"""Answers a doorbell: claims the job, has a child do it, and commits how it ended.

The ledger's lease says who works on a job; the job's outcome file, created once, says how it ended.
Everything else may fail at any point: then the lease runs out and another worker starts over.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
from enum import Enum, auto
from pathlib import Path

from planish.contract.errors import (
    DeadlineExceeded,
    InternalError,
    JobCancelled,
    NotFound,
    OutOfMemory,
    PlanishError,
    WorkerLost,
)
from planish.contract.job import JobStatus
from planish.contract.problem import ErrorInfo
from planish.store.blobs import Blobs
from planish.store.commit import commit
from planish.store.durable import sync_tree
from planish.store.job_files import ARTIFACTS, LOG, JobFiles
from planish.store.jobs import MAX_CRASHES, Claim, Ledger
from planish.store.records import Outcome, SpecRecord
from worker.attempt import Attempt, End, Interrupted, Lease
from worker.exchange import DRAFT, REQUEST, SCRATCH, Draft, Request
from worker.launcher import Launcher, ZygoteFailed
from worker.lifeline import Lifeline
from worker.machine import cores, oom_kills
from worker.settings import WorkerSettings
from worker.verify import read_draft, strip, verify

log = logging.getLogger(__name__)

JITTER = 0.2


class Answer(Enum):
    """What became of a doorbell."""

    ANSWERED = auto()
    STOPPING = auto()
    UNSUITABLE = auto()


class Crash(Exception):
    """The child died without a word."""

    def __init__(self, code: int, out_of_memory: bool) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        self.out_of_memory = out_of_memory


class Supervisor:
    """Runs jobs, one at a time.

    Args:
        ledger: states and leases.
        files: job folders, the truth.
        blobs: uploaded files.
        launcher: starts children.
        settings: limits of this worker.
        worker: its name in the ledger.
        lifeline: says when the worker stops.
    """

    def __init__(
        self,
        ledger: Ledger,
        files: JobFiles,
        blobs: Blobs,
        launcher: Launcher,
        settings: WorkerSettings,
        worker: str,
        lifeline: Lifeline,
    ) -> None:
        self.launcher = launcher
        self._ledger = ledger
        self._files = files
        self._blobs = blobs
        self._settings = settings
        self._worker = worker
        self._lifeline = lifeline

    def answer(self, job_id: str) -> Answer:
        """Run the job if it is there to be run.

        Raises:
            redis.RedisError, OSError: the lease is left to run out.
        """
        if self._lifeline.broken:
            return Answer.STOPPING
        outcome = self._files.outcome(job_id)
        if outcome is not None:
            self._ledger.settle(outcome)
            return Answer.ANSWERED
        record = self._files.spec(job_id)
        if record is None:
            log.warning("no such job", extra={"job": job_id})
            return Answer.ANSWERED
        if record.spec.resources.gpus > len(self._settings.gpus):
            return Answer.UNSUITABLE
        claim = self._ledger.claim(job_id, self._worker, self._settings.lease_ms)
        if claim is None:
            return Answer.ANSWERED
        return self._run(record, claim)

    def _run(self, record: SpecRecord, claim: Claim) -> Answer:
        facts = {"job": claim.job_id, "attempt": claim.attempt}
        log.info("attempt starts", extra=facts)
        folder = self._files.attempt_dir(claim.job_id, claim.attempt, claim.fence)
        lease = Lease(self._ledger, claim, self._settings.lease_ms)
        try:
            draft = self._work(record, claim, lease, folder)
            self._finish(claim, lease, folder, draft)
        except Crash as crash:
            log.warning("attempt crashed", extra=facts | {"code": crash.code})
            self._after_crash(claim, folder, crash)
        except Interrupted as interrupted:
            log.info("attempt interrupted", extra=facts | {"reason": str(interrupted)})
            self._after_interrupt(record, claim, folder, interrupted.end)
            if interrupted.end is End.STOPPING:
                return Answer.STOPPING
        return Answer.ANSWERED

    def _work(self, record: SpecRecord, claim: Claim, lease: Lease, folder: Path) -> Draft:
        """Have a child do the work; return what it proposes.

        Raises:
            Crash: it died before it could propose anything.
            Interrupted: it had to end.
        """
        try:
            request = self._request(record, folder)
        except NotFound as error:
            return Draft(error=error.info())
        request.scratch.mkdir(mode=0o700)
        (folder / REQUEST).write_text(request.model_dump_json())
        killed = oom_kills()
        log_file = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            child = self.launcher.launch(str(folder / REQUEST), log_file)
        except ZygoteFailed as error:
            log.error("no child", extra={"job": claim.job_id, "reason": str(error)})  # noqa: TRY400
            raise Crash(-int(signal.SIGKILL), out_of_memory=False) from None
        finally:
            os.close(log_file)
        run_seconds = record.spec.resources.run_seconds
        code = Attempt(self._ledger, claim, lease, child, self._lifeline, run_seconds).watch()
        draft = read_draft(request.draft)
        if draft is None:
            raise Crash(code, out_of_memory=code == -signal.SIGKILL and oom_kills() > killed)
        return draft

    def _request(self, record: SpecRecord, folder: Path) -> Request:
        files = record.spec.files
        if files is None:
            raise NotFound("the job names no model file")
        return Request(
            job_id=record.id,
            kind=record.kind,
            spec=record.spec,
            model=self._stored("model", files.model),
            data=self._stored("data", files.data) if files.data else None,
            test_data=self._stored("test_data", files.test_data) if files.test_data else None,
            teacher=self._stored("teacher", files.teacher) if files.teacher else None,
            artifacts=folder / ARTIFACTS,
            scratch=folder / SCRATCH,
            draft=folder / DRAFT,
            threads=max(1, cores() // self._settings.concurrency),
        )

    def _stored(self, part: str, file_id: str) -> Path:
        if self._blobs.size(file_id) is None:
            raise NotFound(f"the {part} file {file_id} is no longer stored")
        return self._blobs.path(file_id)

    def _finish(self, claim: Claim, lease: Lease, folder: Path, draft: Draft) -> None:
        """Check what was made, then try to make it the outcome."""
        artifacts = folder / ARTIFACTS
        error = draft.error
        if error is None and draft.result is not None:
            try:
                verify(draft.result, artifacts, lease.tick)
            except InternalError as wrong:
                error = wrong.info()
        if error is not None:
            self._fail(claim, folder, error)
            return
        strip(folder, artifacts if draft.result is None else None)
        sync_tree(folder)
        lease.tick()
        self._commit(folder, self._outcome(claim, JobStatus.SUCCEEDED, folder.name, draft))

    def _fail(self, claim: Claim, folder: Path, error: ErrorInfo) -> None:
        strip(folder, folder / ARTIFACTS)
        draft = Draft(error=error)
        self._commit(folder, self._outcome(claim, JobStatus.FAILED, folder.name, draft))

    def _after_crash(self, claim: Claim, folder: Path, crash: Crash) -> None:
        """Give the job back for another attempt, or end it when this was the last."""
        strip(folder, folder / ARTIFACTS)
        if claim.last_chance:
            self._fail(claim, folder, _last_words(crash).info())
            return
        pause = self._settings.retry_seconds * 2**claim.crashes
        pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads retries, no secret
        self._ledger.release(claim.job_id, claim.fence, round(pause * 1000), crashed=True)

    def _after_interrupt(self, record: SpecRecord, claim: Claim, folder: Path, end: End) -> None:
        if end is End.OVERDUE:
            limit = record.spec.resources.run_seconds
            late = DeadlineExceeded(f"the job ran longer than resources.run_seconds ({limit} s)")
            self._fail(claim, folder, late.info())
        elif end is End.CANCELLED:
            strip(folder, folder / ARTIFACTS)
            draft = Draft(error=JobCancelled("the job was cancelled while it ran").info())
            self._commit(folder, self._outcome(claim, JobStatus.CANCELLED, folder.name, draft))
        else:
            shutil.rmtree(folder, ignore_errors=True)
            if end is End.STOPPING:
                self._ledger.release(claim.job_id, claim.fence)

    def _outcome(self, claim: Claim, status: JobStatus, directory: str, draft: Draft) -> Outcome:
        content = {
            "job_id": claim.job_id,
            "status": status,
            "attempt": claim.attempt,
            "fence": claim.fence,
            "started_at": claim.started_at,
            "finished_at": self._ledger.now(),
            "directory": directory if draft.result is not None else None,
        }
        return Outcome.model_validate(content | dict(draft))

    def _commit(self, folder: Path, outcome: Outcome) -> None:
        """Put the outcome; the winner's folder is the only one that stays."""
        if not self._ledger.holds(outcome.job_id, outcome.fence):
            shutil.rmtree(folder, ignore_errors=True)
            return
        winner = commit(self._files, self._ledger, outcome)
        for _, fence, other in self._files.attempts(outcome.job_id):
            if fence != winner.fence:
                shutil.rmtree(other, ignore_errors=True)
        log.info(
            "job finished",
            extra={"job": outcome.job_id, "status": winner.status, "won": winner == outcome},
        )


def _last_words(crash: Crash) -> PlanishError:
    if crash.out_of_memory:
        return OutOfMemory(
            "the kernel killed the job's process for memory on its last attempt; "
            "use smaller batches or a worker with more memory"
        )
    how = f"signal {-crash.code}" if crash.code < 0 else f"exit code {crash.code}"
    return WorkerLost(f"the job's process died on {MAX_CRASHES} attempts, the last time by {how}")
