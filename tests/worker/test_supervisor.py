"""One doorbell, one supervisor, real Redis, real processes; the entries stand in for the engine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from planish.contract.job import EventType, Job, JobStatus
from planish.store.commit import cancelled
from tests.worker.conftest import Bench, house_at, marked, serve_redis, wait_for
from worker.attempt import Interrupted, Lease
from worker.supervisor import Answer


def _in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _job(bench: Bench, job_id: str) -> Job:
    document = bench.house.ledger.document(job_id)
    assert document is not None
    return Job.model_validate_json(document)


def test_success_publishes_result_events_progress_and_log(bench: Bench) -> None:
    job_id = bench.house.submit()
    assert bench.supervisor("succeed").answer(job_id) is Answer.ANSWERED

    job, outcome = _job(bench, job_id), bench.house.outcome(job_id)
    assert job.succeeded
    assert job.verdict == "not_evaluated"
    assert job.result == outcome.result
    artifacts = bench.house.files.published(job_id)
    assert artifacts is not None
    assert (artifacts / "model.onnx").read_bytes() == b"a smaller model"
    assert sorted(p.name for p in artifacts.parent.iterdir()) == ["artifacts", "log.txt"]
    assert "printed by the job" in (artifacts.parent / "log.txt").read_text()
    events = [event.type for event in bench.house.ledger.events(job_id)]
    told = [EventType.PASS_STARTED, EventType.PASS_FINISHED]
    assert [kind for kind in events if kind in told] == told
    assert events.count(EventType.FINISHED) == 1  # the child's own was refused
    assert events[-1] == EventType.FINISHED


def test_doorbells_of_a_finished_a_running_and_an_unknown_job_do_nothing(bench: Bench) -> None:
    supervisor = bench.supervisor("succeed")
    job_id = bench.house.submit()
    supervisor.answer(job_id)
    events = bench.house.ledger.events(job_id)
    running = bench.house.submit()
    assert bench.house.ledger.claim(running, "somebody")
    for doorbell in (job_id, running, "job_" + "0" * 26):
        assert supervisor.answer(doorbell) is Answer.ANSWERED
    assert bench.house.ledger.events(job_id) == events
    assert bench.house.files.attempts(running) == []


@pytest.mark.parametrize(
    ("entry", "named"),
    [("lie", "not what the result says"), ("add_file", "extra.so"), ("link_out", "model.onnx")],
)
def test_artifacts_that_differ_from_the_result_are_never_published(
    bench: Bench, entry: str, named: str
) -> None:
    job_id = bench.house.submit()
    bench.supervisor(entry).answer(job_id)
    outcome = bench.house.outcome(job_id)
    assert outcome.status is JobStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.code == "internal_error"
    assert named in outcome.error.detail
    assert outcome.directory is None
    (_, _, folder) = bench.house.files.attempts(job_id)[0]
    assert [path.name for path in folder.iterdir()] == ["log.txt"]


def test_cancel_kills_everything_that_the_job_started(bench: Bench) -> None:
    job_id = bench.house.submit()
    thread = _in_thread(lambda: bench.supervisor("grow_a_tree").answer(job_id))
    wait_for(lambda: _job(bench, job_id).progress.stage == "grown", 5)
    wait_for(lambda: len(marked(job_id)) == 2, 5)
    assert bench.house.ledger.request_cancel(job_id) == "running"
    took = wait_for(lambda: _job(bench, job_id).terminal, 4)
    assert marked(job_id) == []
    assert took < 2.0  # although it is deaf to SIGTERM
    assert _job(bench, job_id).status is JobStatus.CANCELLED
    thread.join()


def test_deadline_ends_the_job(bench: Bench) -> None:
    job_id = bench.house.submit({"resources": {"run_seconds": 1}})
    began = time.monotonic()
    bench.supervisor("grow_a_tree").answer(job_id)
    assert time.monotonic() - began < 3
    error = bench.house.outcome(job_id).error
    assert error is not None
    assert error.code == "deadline_exceeded"
    assert "1 s" in error.detail
    assert marked(job_id) == []


def test_crash_is_tried_again(bench: Bench) -> None:
    job_id = bench.house.submit()
    supervisor = bench.supervisor("die_once")
    supervisor.answer(job_id)
    assert _job(bench, job_id).status is JobStatus.QUEUED
    assert bench.house.ledger.stale_pending() == [job_id]  # recovery will ring again
    supervisor.answer(job_id)
    outcome = bench.house.outcome(job_id)
    assert outcome.status is JobStatus.SUCCEEDED
    assert outcome.attempt == 2
    assert len(bench.house.files.attempts(job_id)) == 1  # the lost attempt's folder is gone


def test_job_that_always_crashes_ends_as_worker_lost(bench: Bench) -> None:
    job_id = bench.house.submit()
    supervisor = bench.supervisor("die")
    for _ in range(5):
        supervisor.answer(job_id)
    outcome = bench.house.outcome(job_id)
    assert outcome.attempt == 3
    assert outcome.error is not None
    assert outcome.error.code == "worker_lost"
    assert "signal 9" in outcome.error.detail


def test_crashed_job_waits_before_the_next_attempt(bench: Bench) -> None:
    job_id = bench.house.submit()
    supervisor = bench.supervisor("die", retry_seconds=30.0)
    supervisor.answer(job_id)
    supervisor.answer(job_id)
    assert _job(bench, job_id).attempt == 1
    assert bench.house.ledger.stale_pending() == []


def test_fenced_attempt_stops_and_leaves_nothing(bench: Bench) -> None:
    job_id = bench.house.submit()
    supervisor = bench.supervisor("grow_a_tree", lease_seconds=0.3)
    client = bench.house.ledger._redis
    thread = _in_thread(lambda: supervisor.answer(job_id))
    wait_for(lambda: _job(bench, job_id).progress.stage == "grown", 5)
    client.zadd("planish:leases", {job_id: 1})  # its lease is over, as if it had slept
    assert bench.house.ledger.reap(job_id) == "requeued"
    thread.join(5)
    assert not thread.is_alive()
    assert marked(job_id) == []
    assert bench.house.files.attempts(job_id) == []
    assert bench.house.files.outcome(job_id) is None
    assert _job(bench, job_id).status is JobStatus.QUEUED


def test_attempt_that_loses_the_race_for_the_outcome_leaves_nothing(bench: Bench) -> None:
    job_id = bench.house.submit()
    thread = _in_thread(lambda: bench.supervisor("succeed_slowly").answer(job_id))
    wait_for(lambda: _job(bench, job_id).status is JobStatus.RUNNING, 5)
    first = cancelled(job_id, bench.house.ledger.now())
    assert bench.house.files.put_outcome(job_id, first)
    thread.join(10)
    assert bench.house.outcome(job_id) == first
    assert _job(bench, job_id).status is JobStatus.CANCELLED
    assert bench.house.files.attempts(job_id) == []


def test_job_lives_through_a_pause_of_redis_and_loses_no_event(
    bench: Bench, redis_pid: int
) -> None:
    job_id = bench.house.submit()
    supervisor = bench.supervisor("tell_and_wait")
    thread = _in_thread(lambda: supervisor.answer(job_id))
    wait_for(lambda: _job(bench, job_id).progress.stage == "retrain", 5)
    for client in bench.house.ledger._redis.client_list():  # every connection breaks at once
        bench.house.ledger._redis.client_kill_filter(_id=client["id"], skipme=False)
    os.kill(redis_pid, signal.SIGSTOP)
    time.sleep(1.0)
    os.kill(redis_pid, signal.SIGCONT)
    thread.join(20)
    assert _job(bench, job_id).succeeded
    events = bench.house.ledger.events(job_id)
    epochs = [event.data["epoch"] for event in events if event.type == EventType.EPOCH]
    assert sorted(set(epochs)) == list(range(20))


def test_lease_that_redis_does_not_confirm_ends_by_the_workers_clock(tmp_path: Path) -> None:
    with serve_redis() as url:
        house = house_at(url, tmp_path / "data")
        job_id = house.submit()
        claim = house.ledger.claim(job_id, "test", 1000)
        assert claim is not None
        lease = Lease(house.ledger, claim, lease_ms=1000)
        assert lease.beat(None)
    assert lease.beat(None) is False  # the server is gone; the lease still holds
    time.sleep(1.1)
    with pytest.raises(Interrupted, match="another worker"):
        lease.beat(None)
    with pytest.raises(Interrupted, match="another worker"):
        lease.ask(house.ledger.now)


def test_progress_is_shown_at_most_four_times_a_second(bench: Bench) -> None:
    job_id = bench.house.submit()
    bench.supervisor("succeed_slowly").answer(job_id)
    events = bench.house.ledger.events(job_id)
    shown = [event.data for event in events if event.type == EventType.PROGRESS]
    assert 6 <= len(shown) <= 14  # in 2 s
    fractions = [float(str(data["fraction"])) for data in shown]
    assert fractions == sorted(fractions)
    assert shown[len(shown) // 2]["eta_seconds"] == pytest.approx(1.0, abs=0.7)


def test_child_gets_no_secret_no_connection_and_no_core_dump(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANISH_API_KEY", "hunter2")
    monkeypatch.setenv("PLANISH_REDIS_URL", bench.house.settings.redis_url)
    job_id = bench.house.submit()
    bench.supervisor("show_environment").answer(job_id)
    log = bench.house.files.log(job_id)
    assert log is not None
    text = log.read_text()
    assert "PLANISH" not in text
    assert "hunter2" not in text
    assert "redis" not in text
    assert "socket" not in text
    assert "session True core 0" in text


def test_job_that_needs_more_gpus_is_left_for_another_worker(bench: Bench) -> None:
    job_id = bench.house.submit({"resources": {"gpus": 1}})
    assert bench.supervisor("succeed").answer(job_id) is Answer.UNSUITABLE
    assert _job(bench, job_id).status is JobStatus.QUEUED


def test_job_whose_file_is_gone_fails_with_its_name(bench: Bench) -> None:
    file_id = "sha256:" + "ab" * 32
    job_id = bench.house.submit(model=file_id)
    bench.supervisor("succeed").answer(job_id)
    error = bench.house.outcome(job_id).error
    assert error is not None
    assert error.code == "not_found"
    assert file_id in error.detail


def test_zygote_that_was_killed_is_replaced(bench: Bench) -> None:
    supervisor = bench.supervisor("succeed")
    supervisor.answer(bench.house.submit())
    pid = supervisor.launcher.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    job_id = bench.house.submit()
    supervisor.answer(job_id)
    assert _job(bench, job_id).succeeded
    assert supervisor.launcher.pid != pid
