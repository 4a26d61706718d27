"""What makes jobs survive: lost workers, lost messages, a lost Redis.

Runs as a thread in every worker main and in the API; all of it may run many times at once.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import redis

from planish.contract.errors import JobExpired, WorkerLost
from planish.contract.job import TERMINAL, JobStatus
from planish.contract.wire import PREFIX_PLAN
from planish.store.blobs import TenantBlobs
from planish.store.commit import cancelled, commit, forget, without_result
from planish.store.job_files import LOG, JobFiles
from planish.store.jobs import MAX_CRASHES, Ledger
from planish.store.records import Outcome, queue_of
from planish.store.resumable import Resumable

REAP_SECONDS = 5.0
RECONCILE_SECONDS = 60.0
CLEAN_SECONDS = 3600.0
STALE_SECONDS = 24 * 3600.0
PLAN_SECONDS = 3600.0
FENCE_MARGIN = 1000
_BATCH = 200

Ring = Callable[[str, str], None]
log = logging.getLogger(__name__)


class Recovery:
    """Brings ledger and files together again."""

    def __init__(self, ledger: Ledger, job_files: JobFiles, ring: Ring, blobs: TenantBlobs) -> None:
        """Use `ring(job_id, queue)` to send a doorbell to the workers."""
        self._ledger = ledger
        self._files = job_files
        self._ring = ring
        self._blobs = blobs
        self._generation = ""
        self._settled: set[str] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a thread of its own until `stop`."""
        self._stop.clear()
        self._thread = threading.Thread(
            target=self.run, args=(self._stop,), name="recovery", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the chore that it is at; harmless when there is none."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def run(self, stop: threading.Event) -> None:
        """Do all chores in their rhythm until `stop` is set; a failed one comes again soon."""
        chores = (
            _Chore(self.reconcile, RECONCILE_SECONDS),
            _Chore(self.reap, REAP_SECONDS),
            _Chore(self.clean, CLEAN_SECONDS),
        )
        while not stop.is_set():
            for chore in chores:
                chore.run_if_due()
            stop.wait(min(chore.seconds_left for chore in chores))

    def reap(self) -> None:
        """Requeue jobs of lost workers, end what nobody will run, ring again for what waits."""
        self._each(self._ledger.expired(), self._reap)
        self._each(self._ledger.withdrawn(), self._cancel)
        self._each(self._ledger.overdue_start(), self._expire)
        self._each(self._ledger.stale_pending(), self._doorbell)

    def reconcile(self) -> None:
        """Submit every spec that the ledger lost and mirror every outcome that it missed."""
        generation = self._ledger.generation()
        on_disk = set(self._files.ids())
        if generation != self._generation:
            self._settled.clear()
            self._raise_fence(on_disk)
        self._settled &= on_disk
        for ids in _batches(on_disk - self._settled):
            known = dict(zip(ids, self._ledger.statuses(ids), strict=True))
            self._each(ids, partial(self._restore, known))
        self._generation = generation

    def clean(self) -> None:
        """Remove what crashes, lost races and plans left behind."""
        stale = time.time() - STALE_SECONDS
        uploads = (path for blobs in self._blobs.all() for path in Resumable(blobs).expired())
        left = (*self._blobs.stale_uploads(stale), *self._files.stale_files(stale), *uploads)
        for path in left:
            _remove(path)
        self._each(self._files.ids(), self._tidy)
        for ids in _batches(self._ledger.ids()):
            gone = [job_id for job_id in ids if not self._files.folder(job_id).is_dir()]
            self._each(gone, self._ledger.delete)

    def _reap(self, job_id: str) -> None:
        if self._settle(job_id):
            return
        reaped = self._ledger.reap(job_id)
        if reaped == "requeued":
            self._doorbell(job_id)
        elif reaped == "exhausted":
            error = WorkerLost(f"{MAX_CRASHES} attempts ended with a lost worker")
            self._end(without_result(job_id, JobStatus.FAILED, error, self._ledger.now()))

    def _cancel(self, job_id: str) -> None:
        self._end(cancelled(job_id, self._ledger.now()))

    def _expire(self, job_id: str) -> None:
        record = self._files.spec(job_id)
        seconds = record.spec.resources.start_by_seconds if record else 0
        error = JobExpired(
            f"no worker took the job within {seconds} s (resources.start_by_seconds)"
        )
        self._end(without_result(job_id, JobStatus.EXPIRED, error, self._ledger.now()))

    def _end(self, outcome: Outcome) -> None:
        commit(self._files, self._ledger, outcome)

    def _doorbell(self, job_id: str) -> None:
        if not self._settle(job_id):
            self._ring(job_id, queue_of(job_id))

    def _settle(self, job_id: str) -> bool:
        """Mirror the outcome where there is one; say whether there is."""
        outcome = self._files.outcome(job_id)
        if outcome is None:
            return False
        self._ledger.settle(outcome)
        return True

    def _restore(self, statuses: dict[str, JobStatus | None], job_id: str) -> None:
        known = statuses[job_id]
        if known is None:
            record = self._files.spec(job_id)
            if record is None:  # deleted meanwhile
                return
            attempts = self._files.attempts(job_id)
            self._ledger.submit(record, attempts=max((a for a, _, _ in attempts), default=0))
        if known in TERMINAL or self._settle(job_id):
            self._settled.add(job_id)
        elif known is None:
            self._ring(job_id, queue_of(job_id))

    def _raise_fence(self, job_ids: Iterable[str]) -> None:
        """New fences stay above all that were ever written to disk, also after a loss of Redis."""
        fences = (fence for job_id in job_ids for _, fence, _ in self._files.attempts(job_id))
        highest = max(fences, default=0)
        if highest:
            self._ledger.raise_fence(highest + FENCE_MARGIN)

    def _tidy(self, job_id: str) -> None:
        outcome = self._files.outcome(job_id)
        age = (self._ledger.now() - outcome.finished_at).total_seconds() if outcome else 0.0
        if outcome is None or age < PLAN_SECONDS:
            return
        if job_id.startswith(PREFIX_PLAN):
            forget(self._files, self._ledger, job_id)
            return
        for _, _, folder in self._files.attempts(job_id):
            if folder.name != outcome.directory:
                for path in folder.iterdir():
                    if path.name != LOG:
                        _remove(path)

    def _each(self, job_ids: Iterable[str], act: Callable[[str], object]) -> None:
        """Act on each job; one with broken files must not keep the others from their turn."""
        for job_id in job_ids:
            try:
                act(job_id)
            except (OSError, ValueError):
                log.exception("recovery of %s failed", job_id)


class _Chore:
    """Something to do every so often."""

    def __init__(self, work: Callable[[], None], period: float) -> None:
        self._work = work
        self._period = period
        self._due = time.monotonic()

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def run_if_due(self) -> None:
        if self.seconds_left > 0:
            return
        try:
            self._work()
            self._due = time.monotonic() + self._period
        except redis.ConnectionError as error:
            log.warning("recovery waits for Redis: %s", error)
            self._due = time.monotonic() + REAP_SECONDS
        except Exception:
            log.exception("recovery failed; it is tried again")
            self._due = time.monotonic() + REAP_SECONDS


def _batches(job_ids: Iterable[str]) -> Iterator[list[str]]:
    source = iter(job_ids)
    while batch := list(islice(source, _BATCH)):
        yield batch


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
