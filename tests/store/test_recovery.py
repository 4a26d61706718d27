"""Recovery: nothing that was accepted is lost, whatever dies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from planish.contract.job import JobStatus
from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE
from planish.store import recovery as recovery_module
from planish.store.blobs import Blobs, TenantBlobs
from planish.store.commit import cancelled, commit, forget
from planish.store.job_files import JobFiles
from planish.store.jobs import Ledger
from planish.store.recovery import Recovery
from tests.store.conftest import make_outcome, make_record

Submit = Callable[..., str]


@pytest.fixture
def rung() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def recovery(
    ledger: Ledger, files: JobFiles, tmp_path: Path, rung: list[tuple[str, str]]
) -> Recovery:
    return Recovery(ledger, files, lambda *bell: rung.append(bell), TenantBlobs(tmp_path))


def lose_worker(ledger: Ledger, job_id: str) -> None:
    claim = ledger.claim(job_id, "w", lease_ms=1)
    assert claim is not None
    time.sleep(0.01)


def test_a_lost_worker_costs_an_attempt_and_the_third_ends_the_job(
    recovery: Recovery, ledger: Ledger, files: JobFiles, submit: Submit, rung: list[object]
) -> None:
    job_id = submit()
    for _ in range(2):
        lose_worker(ledger, job_id)
        recovery.reap()
        assert ledger.status(job_id) is JobStatus.QUEUED
    assert rung == [(job_id, JOB_QUEUE)] * 2
    lose_worker(ledger, job_id)
    recovery.reap()
    outcome = files.outcome(job_id)
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == (JobStatus.FAILED, "worker_lost")
    assert ledger.status(job_id) is JobStatus.FAILED
    assert ledger.expired() == []


def test_a_worker_lost_after_its_commit_leaves_a_success(
    recovery: Recovery, ledger: Ledger, files: JobFiles, submit: Submit, rung: list[object]
) -> None:
    job_id = submit()
    lose_worker(ledger, job_id)
    files.put_outcome(job_id, make_outcome(job_id, attempt=1))
    recovery.reap()
    assert ledger.status(job_id) is JobStatus.SUCCEEDED
    assert rung == []


def test_a_withdrawn_job_is_cancelled_although_the_api_died(
    recovery: Recovery, ledger: Ledger, files: JobFiles, submit: Submit
) -> None:
    job_id = submit()
    ledger.request_cancel(job_id)
    recovery.reap()
    assert ledger.status(job_id) is JobStatus.CANCELLED
    outcome = files.outcome(job_id)
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.code == "cancelled"


def test_a_job_not_started_in_time_expires(
    recovery: Recovery, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit(resources={"start_by_seconds": 1})
    recovery.reap()
    assert ledger.status(job_id) is JobStatus.QUEUED
    time.sleep(1.05)
    recovery.reap()
    assert ledger.status(job_id) is JobStatus.EXPIRED


def test_lost_doorbells_are_rung_again_in_their_queue(
    recovery: Recovery,
    ledger: Ledger,
    client: redis.Redis,
    submit: Submit,
    rung: list[tuple[str, str]],
) -> None:
    job_id, plan_id = submit(), submit(kind="plan")
    recovery.reap()
    assert rung == [], "not before they are stale"
    client.zadd("planish:pending", {job_id: 1, plan_id: 1})
    recovery.reap()
    recovery.reap()
    assert sorted(rung) == [(job_id, JOB_QUEUE), (plan_id, PLAN_QUEUE)]


def test_jobs_come_back_after_a_total_loss_of_redis(
    recovery: Recovery,
    ledger: Ledger,
    files: JobFiles,
    client: redis.Redis,
    submit: Submit,
    rung: list[tuple[str, str]],
) -> None:
    waiting, running, done = submit(name="w"), submit(), submit(labels={"a": "b"})
    claim = ledger.claim(running, "w")
    assert claim is not None
    files.attempt_dir(running, claim.attempt, 500)
    commit(files, ledger, make_outcome(done, attempt=1, finished_at=ledger.now()))
    recovery.reconcile()
    before = {job_id: ledger.document(job_id) for job_id in (waiting, done)}
    assert rung == []

    client.flushall()
    recovery.reconcile()
    assert {job_id: ledger.document(job_id) for job_id in before} == before
    assert ledger.status(running) is JobStatus.QUEUED
    assert sorted(rung) == sorted([(waiting, JOB_QUEUE), (running, JOB_QUEUE)])
    assert len(ledger.page(labels=("a=b",))[0]) == 1
    again = ledger.claim(running, "w")
    assert again is not None
    assert again.fence > 500, "above all fences on disk"
    assert again.attempt == claim.attempt + 1
    assert ledger.beat(running, claim.fence) == "fenced"


def test_an_accepted_job_that_never_reached_redis_is_submitted(
    recovery: Recovery, ledger: Ledger, files: JobFiles, rung: list[tuple[str, str]]
) -> None:
    record = make_record()
    files.put_spec(record.id, record)
    recovery.reconcile()
    recovery.reconcile()
    assert ledger.status(record.id) is JobStatus.QUEUED
    assert rung == [(record.id, JOB_QUEUE)]


def test_an_outcome_that_redis_missed_is_settled(
    recovery: Recovery, ledger: Ledger, files: JobFiles, submit: Submit
) -> None:
    job_id = submit()
    recovery.reconcile()
    files.put_outcome(job_id, make_outcome(job_id))
    recovery.reconcile()
    assert ledger.status(job_id) is JobStatus.SUCCEEDED


def test_one_broken_job_does_not_stop_the_others(
    recovery: Recovery, ledger: Ledger, files: JobFiles, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = make_record(), make_record()
    for record in (broken, good):
        files.put_spec(record.id, record)
    (files.folder(broken.id) / "SPEC.json").write_text("{")
    recovery.reconcile()
    assert ledger.status(good.id) is JobStatus.QUEUED
    assert broken.id in caplog.text


def test_commit_returns_the_winner(ledger: Ledger, files: JobFiles, submit: Submit) -> None:
    job_id = submit()
    first = make_outcome(job_id, JobStatus.CANCELLED)
    assert commit(files, ledger, first) == first
    assert commit(files, ledger, make_outcome(job_id)) == first
    assert ledger.status(job_id) is JobStatus.CANCELLED


def test_forget_takes_terminal_jobs_only(ledger: Ledger, files: JobFiles, submit: Submit) -> None:
    job_id = submit()
    assert forget(files, ledger, job_id) == "alive"
    commit(files, ledger, cancelled(job_id, datetime.now(UTC)))
    assert forget(files, ledger, job_id) == "deleted"
    assert forget(files, ledger, job_id) == "unknown"
    assert list(files.ids()) == []
    assert not ledger.exists(job_id)


def test_a_deleted_job_stays_deleted(
    recovery: Recovery, ledger: Ledger, files: JobFiles, submit: Submit
) -> None:
    crashed, gone = submit(), submit()
    for job_id in (crashed, gone):
        commit(files, ledger, make_outcome(job_id))
    files.delete(crashed)
    forget(files, ledger, gone)
    recovery.reconcile()
    recovery.clean()
    assert list(ledger.ids()) == []


def test_clean_removes_leftovers_old_plans_and_losing_attempts(
    recovery: Recovery, ledger: Ledger, files: JobFiles, blobs: Blobs, submit: Submit
) -> None:
    job_id, plan_id, live = submit(), submit(kind="plan"), submit()
    stale, fresh = blobs.new_upload(), blobs.new_upload()
    os.utime(stale.path, (1, 1))
    for fence in (1, 2):
        folder = files.attempt_dir(job_id, fence, fence)
        (folder / "artifacts" / "model.onnx").write_bytes(b"x")
    files.attempt_dir(live, 1, 3)
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    for done, directory in ((job_id, "a2-f2"), (plan_id, None)):
        commit(files, ledger, make_outcome(done, directory=directory, finished_at=long_ago))
    recovery.clean()
    assert not stale.path.exists()
    assert fresh.path.exists()
    assert files.spec(plan_id) is None
    assert not ledger.exists(plan_id)
    (_, _, lost), (_, _, won) = files.attempts(job_id)
    assert [path.name for path in lost.iterdir()] == ["log.txt"]
    assert (won / "artifacts" / "model.onnx").exists()
    assert (files.attempts(live)[0][2] / "artifacts").is_dir()
    for upload in (stale, fresh):
        blobs.abandon(upload)


def test_the_thread_survives_what_fails(
    files: JobFiles,
    tmp_path: Path,
    ledger: Ledger,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("REAP_SECONDS", "RECONCILE_SECONDS"):
        monkeypatch.setattr(recovery_module, name, 0.02)
    record, heard = make_record(), threading.Event()
    files.put_spec(record.id, record)
    failures = [redis.ConnectionError("away"), RuntimeError("a bug")]

    def ring(job_id: str, queue: str) -> None:
        if failures:
            raise failures.pop(0)
        heard.set()

    recovery = Recovery(ledger, files, ring, TenantBlobs(tmp_path))
    recovery.start()
    for _ in range(100):
        if heard.wait(0.05):
            break
        files.put_spec((extra := make_record()).id, extra)
    recovery.stop()
    recovery.stop()
    assert heard.is_set()
    assert "waits for Redis" in caplog.text
    assert "a bug" in caplog.text


def test_uploads_folder_is_private(tmp_path: Path, blobs: Blobs) -> None:
    assert (tmp_path / "uploads").stat().st_mode & 0o077 == 0
