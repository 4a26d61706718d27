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
import time
from dataclasses import dataclass
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
from planish.contract.spec import Files, NamedFile
from planish.store.blobs import Blobs, TenantBlobs
from planish.store.commit import commit
from planish.store.denied import DeniedFiles
from planish.store.durable import sync_tree
from planish.store.job_files import ARTIFACTS, LOG, JobFiles
from planish.store.jobs import MAX_CRASHES, Claim, Ledger
from planish.store.records import Outcome, SpecRecord
from worker.attempt import Attempt, End, Interrupted, Lease
from worker.conversion import Conversion, OpenerLost, Opening
from worker.exchange import DRAFT, REQUEST, SCRATCH, Draft, PartPath, Request, Stored
from worker.launcher import Child, Launcher, ZygoteFailed
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


@dataclass(frozen=True)
class Held:
    """A claimed job.

    Attributes:
        record: what was asked for.
        claim: the hold on it.
        lease: keeps the hold.
        folder: of this attempt.
    """

    record: SpecRecord
    claim: Claim
    lease: Lease
    folder: Path

    @property
    def artifacts(self) -> Path:
        """Where the child puts what it makes."""
        return self.folder / ARTIFACTS

    @property
    def facts(self) -> dict[str, object]:
        """What each line of the log says about it."""
        return {"job": self.claim.job_id, "attempt": self.claim.attempt}


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
        blobs: TenantBlobs,
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
        denied = DeniedFiles(settings.store.data_dir)
        self._conversion = Conversion(ledger, launcher, lifeline, denied, settings)

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
        held = Held(
            record=record,
            claim=claim,
            lease=Lease(self._ledger, claim, self._settings.lease_ms),
            folder=self._files.attempt_dir(claim.job_id, claim.attempt, claim.fence),
        )
        log.info("attempt starts", extra=held.facts)
        try:
            return self._attempt(held)
        except Interrupted as interrupted:
            log.info("attempt given up", extra=held.facts | {"reason": str(interrupted)})
            shutil.rmtree(held.folder, ignore_errors=True)
            return Answer.ANSWERED

    def _attempt(self, held: Held) -> Answer:
        """Do the work and write down how it ended; raises `Interrupted` when the job is lost."""
        try:
            self._finish(held, self._work(held))
        except Crash as crash:
            log.warning("attempt crashed", extra=held.facts | {"code": crash.code})
            self._after_crash(held, crash)
        except Interrupted as interrupted:
            log.info("attempt interrupted", extra=held.facts | {"reason": str(interrupted)})
            self._after_interrupt(held, interrupted)
            if interrupted.end is End.STOPPING:
                return Answer.STOPPING
        return Answer.ANSWERED

    def _work(self, held: Held) -> Draft:
        """Have a child do the work; return what it proposes.

        Raises:
            Crash: it died before it could propose anything.
            Interrupted: it had to end.
        """
        until = time.monotonic() + held.record.spec.resources.run_seconds
        try:
            request = self._opened(held, self._request(held), until)
        except PlanishError as error:
            return Draft(error=error.info())
        (held.folder / REQUEST).write_text(request.model_dump_json())
        killed = oom_kills()
        child = self._launch(held)
        left = max(0.0, until - time.monotonic())
        attempt = Attempt(self._ledger, held.claim, held.lease, child, self._lifeline, left)
        code = attempt.watch()
        draft = read_draft(request.draft)
        if draft is None:
            raise Crash(code, out_of_memory=code == -signal.SIGKILL and oom_kills() > killed)
        return draft

    def _opened(self, held: Held, request: Request, until: float) -> Request:
        """Have every upload opened in the sandbox; raises `PlanishError` for one that is refused.

        Raises:
            Crash, Interrupted: as `_work`.
        """
        request.scratch.mkdir(mode=0o700)
        log_file = held.folder / LOG
        opening = Opening(held.record, held.claim, held.lease, request, log_file, until)
        killed = oom_kills()
        try:
            return self._conversion.open_all(opening)
        except OpenerLost as lost:
            raise Crash(lost.code, out_of_memory=oom_kills() > killed) from None
        except ZygoteFailed as error:
            raise self._no_child(held, error) from None

    def _launch(self, held: Held) -> Child:
        log_file = os.open(held.folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            return self.launcher.launch(str(held.folder / REQUEST), log_file)
        except ZygoteFailed as error:
            raise self._no_child(held, error) from None
        finally:
            os.close(log_file)

    def _no_child(self, held: Held, error: ZygoteFailed) -> Crash:
        log.error("no child", extra=held.facts | {"reason": str(error)})
        return Crash(-int(signal.SIGKILL), out_of_memory=False)

    def _request(self, held: Held) -> Request:
        record, folder = held.record, held.folder
        files = record.spec.files
        if files is None:
            raise NotFound("the job names no model file")
        return Request(
            job_id=record.id,
            kind=record.kind,
            spec=record.spec,
            **self._stored(self._blobs.of(record.tenant), files),
            artifacts=folder / ARTIFACTS,
            scratch=folder / SCRATCH,
            rendezvous=self._settings.rendezvous,
            checkpoints=self._files.checkpoints_dir(record.id) if record.kind == "job" else None,
            draft=folder / DRAFT,
            threads=max(1, cores() // self._settings.concurrency),
            guarded=self._settings.engine_guards,
        )

    def _stored(self, blobs: Blobs, files: Files) -> dict[str, Stored]:
        """Return where the files of a job's owner lie, by their roles."""
        for place, file_id in files.pointers():
            if blobs.size(file_id) is None:
                role = place.split("/")[2]
                raise NotFound(f"the {role} file {file_id} is no longer stored")
        return {role: _places(blobs, uploaded) for role, uploaded in files.given().items()}

    def _finish(self, held: Held, draft: Draft) -> None:
        """Check what was made, then try to make it the outcome."""
        if draft.error is not None:
            self._fail(held, draft.error)
            return
        if draft.result is not None:
            try:
                verify(draft.result, held.artifacts, held.lease.tick)
            except InternalError as wrong:
                self._fail(held, wrong.info())
                return
        strip(held.folder, held.artifacts if draft.result is None else None)
        sync_tree(held.folder)
        held.lease.tick()
        self._commit(held, JobStatus.SUCCEEDED, draft)

    def _fail(self, held: Held, error: ErrorInfo, status: JobStatus = JobStatus.FAILED) -> None:
        strip(held.folder, held.artifacts)
        self._commit(held, status, Draft(error=error))

    def _after_crash(self, held: Held, crash: Crash) -> None:
        """Give the job back for another attempt, or end it when this was the last."""
        claim = held.claim
        if claim.last_chance:
            self._fail(held, _last_words(crash).info())
            return
        strip(held.folder, held.artifacts)
        pause = self._settings.retry_seconds * 2**claim.crashes
        pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads retries, no secret
        self._release(held, delay_ms=round(pause * 1000), crashed=True)

    def _after_interrupt(self, held: Held, interrupted: Interrupted) -> None:
        if interrupted.end is End.FENCED:
            raise interrupted
        if interrupted.end is End.STOPPING:
            shutil.rmtree(held.folder, ignore_errors=True)
            self._release(held, delay_ms=0, crashed=False)
        elif interrupted.end is End.OVERDUE:
            limit = held.record.spec.resources.run_seconds
            late = DeadlineExceeded(f"the job ran longer than resources.run_seconds ({limit} s)")
            self._fail(held, late.info())
        else:
            error = JobCancelled("the job was cancelled while it ran")
            self._fail(held, error.info(), JobStatus.CANCELLED)

    def _release(self, held: Held, delay_ms: int, crashed: bool) -> None:
        claim = held.claim
        held.lease.ask(lambda: self._ledger.release(claim.job_id, claim.fence, delay_ms, crashed))

    def _commit(self, held: Held, status: JobStatus, draft: Draft) -> None:
        """Put the outcome; the winner's folder is the only one that stays."""
        claim = held.claim
        if not held.lease.ask(lambda: self._ledger.holds(claim.job_id, claim.fence)):
            raise Interrupted(End.FENCED)
        content = {
            "job_id": claim.job_id,
            "status": status,
            "attempt": claim.attempt,
            "fence": claim.fence,
            "started_at": claim.started_at,
            "finished_at": held.lease.ask(self._ledger.now),
            "directory": held.folder.name if draft.result is not None else None,
        }
        outcome = Outcome.model_validate(content | dict(draft))
        winner = commit(self._files, self._ledger, outcome)
        for _, fence, other in self._files.attempts(outcome.job_id):
            if fence != winner.fence:
                shutil.rmtree(other, ignore_errors=True)
        facts = {"status": winner.status.value, "won": winner == outcome}
        log.info("job finished", extra=held.facts | facts)


def _places(blobs: Blobs, uploaded: str | tuple[NamedFile, ...]) -> Stored:
    if isinstance(uploaded, str):
        return blobs.path(uploaded)
    return tuple(PartPath(name=file.name, path=blobs.path(file.id)) for file in uploaded)


def _last_words(crash: Crash) -> PlanishError:
    if crash.out_of_memory:
        return OutOfMemory(
            "the kernel killed the job's process for memory on its last attempt; "
            "use smaller batches or a worker with more memory"
        )
    how = f"signal {-crash.code}" if crash.code < 0 else f"exit code {crash.code}"
    return WorkerLost(f"the job's process died on {MAX_CRASHES} attempts, the last time by {how}")
