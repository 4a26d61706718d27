"""The ledger: every transition on a real Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import cast

import pytest
import redis

from planish.contract.job import (
    Artifact,
    EventType,
    Job,
    JobStatus,
    Progress,
    Result,
    Summary,
    links_of,
)
from planish.contract.problem import ErrorInfo
from planish.store.connection import connect
from planish.store.jobs import Ledger
from planish.store.records import Outcome
from tests.store.conftest import make_outcome, make_record

Submit = Callable[..., str]


def document(ledger: Ledger, job_id: str) -> Job:
    raw = ledger.document(job_id)
    assert raw is not None
    return Job.model_validate_json(raw)


def test_document_is_exactly_the_contracts_job(ledger: Ledger) -> None:
    record = make_record(name='quote " and ü', labels={"team": "edge", "größe": "{}"}, seed=7)
    ledger.submit(record)
    raw = ledger.document(record.id)
    assert raw is not None
    assert list(json.loads(raw)) == list(Job.model_fields)
    job = Job.model_validate_json(raw)
    created = record.created_at.replace(microsecond=record.created_at.microsecond // 1000 * 1000)
    assert job == Job(
        id=record.id,
        name='quote " and ü',
        labels=record.spec.labels,
        status=JobStatus.QUEUED,
        terminal=False,
        succeeded=False,
        cancel_requested=False,
        attempt=0,
        created_at=created,
        started_at=None,
        finished_at=None,
        progress=Progress(),
        spec=record.spec,
        verdict=None,
        result=None,
        error=None,
        links=links_of(record.id),
    )


def test_document_shows_result_verdict_and_error_as_given(ledger: Ledger, submit: Submit) -> None:
    done, failed = submit(), submit()
    result = Result(
        model="model.onnx",
        artifacts=(Artifact(name="a", size=0, sha256="0", media_type="b", href="/c"),),
        report="/r",
        summary=Summary(metric="accuracy", size_ratio=3.9),
    )
    ledger.settle(make_outcome(done, verdict="not_evaluated", result=result, attempt=1))
    job = document(ledger, done)
    assert (job.result, job.verdict, job.terminal, job.succeeded) == (
        result,
        "not_evaluated",
        True,
        True,
    )
    assert job.progress.fraction == 1.0
    error = ErrorInfo(code="job_failed", title="t", detail='"\\ \n')
    ledger.settle(make_outcome(failed, JobStatus.FAILED, error=error))
    job = document(ledger, failed)
    assert (job.error, job.result, job.succeeded, job.terminal) == (error, None, False, True)


def test_submit_twice_changes_nothing(ledger: Ledger) -> None:
    record = make_record()
    assert ledger.submit(record)
    claim = ledger.claim(record.id, "w")
    assert claim is not None
    assert not ledger.submit(record)
    assert ledger.status(record.id) is JobStatus.RUNNING
    assert len(ledger.events(record.id)) == 2


def test_claim_takes_a_queued_job_once(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "one")
    assert claim is not None
    assert (claim.attempt, claim.crashes, claim.last_chance) == (1, 0, False)
    assert ledger.claim(job_id, "two") is None
    job = document(ledger, job_id)
    assert (job.status, job.attempt, job.started_at) == (JobStatus.RUNNING, 1, claim.started_at)
    assert abs((datetime.now(UTC) - claim.started_at).total_seconds()) < 60


def test_claim_of_an_unknown_job_is_none(ledger: Ledger) -> None:
    assert ledger.claim(make_record().id, "w") is None


def test_hundred_claims_at_once_have_one_winner(
    redis_url: str, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit()
    clients = [Ledger(connect(redis_url)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: clients[n % 8].claim(job_id, f"w{n}"), range(100)))
    assert sum(claim is not None for claim in claims) == 1


def test_a_claim_whose_reply_was_lost_is_repeated_under_its_token(
    ledger: Ledger, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, run = submit(), ledger._run
    lost: list[list[bytes]] = []

    def lossy(name: str, *args: str | int | bytes) -> object:
        reply = run(name, *args)
        if not lost:
            lost.append(cast("list[bytes]", reply))
            raise redis.ConnectionError("the reply is lost")
        return reply

    monkeypatch.setattr(ledger, "_run", lossy)
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    assert (claim.attempt, claim.fence) == (1, int(lost[0][1]))


def test_beat_extends_the_lease_and_shows_progress(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w", lease_ms=1)
    assert claim is not None
    time.sleep(0.01)
    assert ledger.expired() == [job_id]
    progress = Progress(stage="quantize", step=3, steps=5, fraction=0.42, message='12/32 "x"')
    assert ledger.beat(job_id, claim.fence, 30_000, progress) == "ok"
    assert ledger.expired() == []
    assert document(ledger, job_id).progress == progress
    last = ledger.events(job_id)[-1]
    assert (last.type, last.data["fraction"]) == (EventType.PROGRESS, 0.42)


def test_beat_and_event_with_an_old_fence_do_nothing(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    old = ledger.claim(job_id, "w")
    assert old is not None
    ledger.release(job_id, old.fence)
    new = ledger.claim(job_id, "w")
    assert new is not None
    assert new.fence > old.fence
    count = len(ledger.events(job_id))
    assert ledger.beat(job_id, old.fence, progress=Progress(stage="x")) == "fenced"
    assert not ledger.event(job_id, old.fence, EventType.WARNING, {})
    assert not ledger.release(job_id, old.fence)
    assert not ledger.holds(job_id, old.fence)
    assert ledger.holds(job_id, new.fence)
    assert len(ledger.events(job_id)) == count


def test_release_waits_before_the_next_claim(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    assert ledger.release(job_id, claim.fence, delay_ms=80, crashed=True)
    assert ledger.release(job_id, claim.fence, delay_ms=80, crashed=True), "repeated: no change"
    assert ledger.claim(job_id, "w") is None
    assert ledger.stale_pending() == []
    time.sleep(0.1)
    assert ledger.stale_pending() == [job_id]
    assert ledger.stale_pending() == [], "due again only after a while"
    again = ledger.claim(job_id, "w")
    assert again is not None
    assert (again.attempt, again.crashes) == (2, 1)


def test_an_expired_lease_is_requeued_until_crashes_are_exhausted(
    ledger: Ledger, submit: Submit
) -> None:
    job_id, fences = submit(), []
    for crash in range(3):
        claim = ledger.claim(job_id, "w", lease_ms=1)
        assert claim is not None
        assert claim.last_chance == (crash == 2)
        fences.append(claim.fence)
        time.sleep(0.01)
        assert ledger.reap(job_id) == ("exhausted" if crash == 2 else "requeued")
    assert fences == sorted(set(fences))
    assert ledger.reap(job_id) == "exhausted", "asked again, the same answer"
    assert ledger.expired() == [job_id], "until its outcome is settled"
    assert ledger.beat(job_id, fences[-1]) == "fenced"
    assert ledger.claim(job_id, "w") is None
    ledger.settle(make_outcome(job_id, JobStatus.FAILED))
    assert ledger.expired() == []


def test_reap_leaves_a_live_lease_alone(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    assert ledger.reap(job_id) == "alive"
    assert ledger.holds(job_id, claim.fence)


def test_cancel_of_a_queued_job_stops_claims(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    assert ledger.request_cancel(job_id) == "queued"
    assert ledger.request_cancel(job_id) == "queued"
    assert document(ledger, job_id).cancel_requested
    assert ledger.claim(job_id, "w") is None
    assert ledger.withdrawn() == [job_id]
    ledger.settle(make_outcome(job_id, JobStatus.CANCELLED))
    assert ledger.request_cancel(job_id) == "terminal"
    assert ledger.withdrawn() == []
    types = [event.type for event in ledger.events(job_id)]
    assert types == ["job.queued", "job.cancel_requested", "job.finished"]


def test_cancel_of_a_running_job_reaches_the_next_beat(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    assert ledger.request_cancel(job_id) == "running"
    assert ledger.beat(job_id, claim.fence) == "cancel"
    ledger.release(job_id, claim.fence)
    assert ledger.withdrawn() == [job_id], "a cancelled job that comes back is not run again"
    assert ledger.claim(job_id, "w") is None


def test_cancel_of_an_unknown_job(ledger: Ledger) -> None:
    assert ledger.request_cancel(make_record().id) == "unknown"


def test_a_job_that_nobody_started_in_time_is_closed(ledger: Ledger) -> None:
    resources = {"start_by_seconds": 1}
    late, started = make_record(resources=resources), make_record(resources=resources)
    ledger.submit(late)
    ledger.submit(started)
    claim = ledger.claim(started.id, "w")
    assert claim is not None
    assert ledger.overdue_start() == []
    time.sleep(1.05)
    assert ledger.overdue_start() == [late.id]
    assert ledger.claim(late.id, "w") is None
    ledger.release(started.id, claim.fence)
    assert ledger.overdue_start() == [late.id], "a job that ran once does not expire"


def test_a_terminal_state_never_changes(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    ledger.settle(make_outcome(job_id, JobStatus.SUCCEEDED))
    before = ledger.document(job_id)
    assert ledger.settle(make_outcome(job_id, JobStatus.FAILED))
    assert ledger.beat(job_id, claim.fence) == "fenced"
    assert not ledger.release(job_id, claim.fence)
    assert ledger.reap(job_id) == "alive"
    assert ledger.document(job_id) == before


def test_settle_of_an_unknown_job_says_so(ledger: Ledger) -> None:
    assert not ledger.settle(make_outcome(make_record().id))


def test_delete_leaves_nothing_of_a_terminal_job(client: redis.Redis, ledger: Ledger) -> None:
    record = make_record(labels={"a": "b"}, files={"model": f"sha256:{'0' * 64}"})
    ledger.submit(record)
    assert ledger.file_in_use(f"sha256:{'0' * 64}")
    assert ledger.delete(record.id) == "alive"
    ledger.settle(make_outcome(record.id))
    assert not ledger.file_in_use(f"sha256:{'0' * 64}")
    assert ledger.delete(record.id) == "deleted"
    assert ledger.delete(record.id) == "unknown"
    assert client.keys("*") == []


def test_event_ids_are_dense_and_pages_of_events_continue(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    for number in range(20):
        assert ledger.event(job_id, claim.fence, EventType.EPOCH, {"n": number, "empty": []})
    events = ledger.events(job_id)
    assert [event.id for event in events] == list(range(1, 23))
    assert events[2].data == {"n": 0, "empty": []}
    assert ledger.events(job_id, after=20) == events[20:]
    assert ledger.events(job_id, after=5, limit=2) == events[5:7]


def test_event_ids_stay_dense_beyond_the_cap(
    client: redis.Redis, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    for _ in range(10_500):
        ledger.event(job_id, claim.fence, EventType.PROGRESS, {})
    ids = [event.id for event in ledger.events(job_id, limit=20_000)]
    assert ids == list(range(10_502 - len(ids) + 1, 10_503))
    assert 10_000 <= len(ids) <= 10_200


def test_script_times_are_the_servers(client: redis.Redis, ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    seconds, micros = client.time()
    (event,) = ledger.events(job_id)
    assert abs(event.time.timestamp() - (seconds + micros / 1e6)) < 5
    assert event.time.tzinfo is not None
    assert abs((ledger.now() - event.time).total_seconds()) < 5


def test_outcome_times_survive_a_rebuild(client: redis.Redis, ledger: Ledger) -> None:
    record = make_record()
    outcome = Outcome.model_validate(
        make_outcome(record.id).model_dump() | {"attempt": 2, "started_at": datetime.now(UTC)}
    )
    ledger.submit(record)
    ledger.settle(outcome)
    before = document(ledger, record.id)
    client.flushall()
    ledger.submit(record, attempts=2)
    ledger.settle(outcome)
    assert document(ledger, record.id) == before


def test_scripts_are_loaded_again_when_the_server_forgot_them(
    client: redis.Redis, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit()
    client.script_flush()
    assert ledger.claim(job_id, "w") is not None


def test_fence_can_only_be_lifted(ledger: Ledger, submit: Submit) -> None:
    assert ledger.raise_fence(1000) == 1000
    assert ledger.raise_fence(10) == 1000
    claim = ledger.claim(submit(), "w")
    assert claim is not None
    assert claim.fence == 1001


def test_generation_changes_with_the_data(client: redis.Redis, ledger: Ledger) -> None:
    first = ledger.generation()
    assert ledger.generation() == first
    client.flushall()
    assert ledger.generation() != first


def test_fleet_forgets_workers_that_fall_silent(ledger: Ledger) -> None:
    assert ledger.fleet().gpus_max == 0
    ledger.register_worker("a", 2, ("planish.jobs",), ttl=30)
    ledger.register_worker("b", 4, ("planish.plans",), ttl=0.05)
    fleet = ledger.fleet()
    assert [worker.id for worker in fleet.workers] == ["a", "b"]
    assert (fleet.gpus_max, fleet.serves("planish.plans")) == (4, True)
    time.sleep(0.08)
    fleet = ledger.fleet()
    assert [worker.id for worker in fleet.workers] == ["a"]
    assert (fleet.gpus_max, fleet.serves("planish.plans")) == (2, False)
