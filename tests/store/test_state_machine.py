"""Whatever happens in whatever order: the ledger's invariants hold, on real Lua in a real Redis."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from planish.contract.job import TERMINAL, TRANSITIONS, EventType, Job, JobStatus, Progress
from planish.store.blobs import TenantBlobs
from planish.store.commit import cancelled, commit, forget
from planish.store.connection import connect
from planish.store.job_files import JobFiles
from planish.store.jobs import MAX_CRASHES, Claim, Ledger
from planish.store.recovery import Recovery
from tests.store.conftest import make_outcome, make_record

LIVE_MS, DEAD_MS = 600_000, 0
LABELS = ({}, {"team": "edge"}, {"team": "edge", "net": "r20"})


class Jobs(RuleBasedStateMachine):
    """A few jobs, workers that may die at any moment, and a Redis that may lose everything."""

    url: ClassVar[str]
    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.client: redis.Redis = connect(self.url)
        self.client.flushall()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        self.ledger, self.files = Ledger(self.client), JobFiles(root)
        self.recovery = Recovery(self.ledger, self.files, lambda *_: None, TenantBlobs(root))
        self.seen: dict[str, JobStatus] = {}
        self.outcomes: dict[str, bytes] = {}
        self.last_event: dict[str, int] = {}
        self.highest_fence: dict[str, int] = {}

    def teardown(self) -> None:
        self.client.close()
        self.folder.cleanup()

    # --- what clients do

    @rule(target=jobs, labels=st.sampled_from(LABELS), kind=st.sampled_from(["job", "job", "plan"]))
    def submit(self, labels: dict[str, str], kind: str) -> str:
        record = make_record(kind, labels=labels)
        self.files.put_spec(record.id, record)
        assert self.ledger.submit(record)
        return record.id

    @rule(target=jobs)
    def api_dies_between_spec_and_ledger(self) -> str:
        record = make_record()
        self.files.put_spec(record.id, record)
        return record.id

    @rule(job=jobs)
    def submit_again(self, job: str) -> None:
        record = self.files.spec(job)
        if record is not None and self.ledger.exists(job):
            assert not self.ledger.submit(record)

    @rule(job=jobs, api_dies=st.booleans())
    def cancel(self, job: str, api_dies: bool) -> None:
        was = self.ledger.request_cancel(job)
        if was == "queued" and not api_dies:
            commit(self.files, self.ledger, cancelled(job, self.ledger.now()))

    @rule(job=jobs)
    def delete(self, job: str) -> None:
        terminal = self.files.outcome(job) is not None
        assert (forget(self.files, self.ledger, job) == "deleted") == terminal
        if terminal:
            for memory in (self.seen, self.outcomes, self.last_event, self.highest_fence):
                memory.pop(job, None)

    # --- what workers do

    @rule(target=claims, job=jobs, lease=st.sampled_from([LIVE_MS, LIVE_MS, DEAD_MS]))
    def claim(self, job: str, lease: int) -> Claim | None:
        status, document = self.ledger.status(job), self.ledger.document(job)
        claim = self.ledger.claim(job, "worker", lease)
        if claim is None:
            return None
        assert status is JobStatus.QUEUED, "one live lease"
        assert document is not None
        assert not Job.model_validate_json(document).cancel_requested
        assert claim.fence > self.highest_fence.get(job, 0)
        assert claim.crashes < MAX_CRASHES
        self.highest_fence[job] = claim.fence
        self.files.attempt_dir(job, claim.attempt, claim.fence)
        return claim

    @rule(claim=claims, fraction=st.floats(0, 1))
    def beat(self, claim: Claim | None, fraction: float) -> None:
        if claim is not None:
            progress = Progress(stage="train", step=1, steps=2, fraction=fraction, message='"ü\\')
            answer = self.ledger.beat(claim.job_id, claim.fence, LIVE_MS, progress)
            assert (answer == "fenced") != self._holds(claim)

    @rule(claim=claims)
    def event(self, claim: Claim | None) -> None:
        if claim is not None:
            holds = self._holds(claim)
            assert self.ledger.event(claim.job_id, claim.fence, EventType.EPOCH, {"a": []}) == holds

    @rule(claim=claims, crashed=st.booleans())
    def release(self, claim: Claim | None, crashed: bool) -> None:
        if claim is None or (crashed and claim.last_chance):
            return
        holds = self._holds(claim)
        released = self.ledger.release(claim.job_id, claim.fence, crashed=crashed)
        assert released or not holds

    @rule(claim=claims, status=st.sampled_from([JobStatus.SUCCEEDED, JobStatus.FAILED]))
    def finish(self, claim: Claim | None, status: JobStatus) -> None:
        """Also of a worker that lost its lease long ago: the file alone decides."""
        if claim is not None:
            outcome = make_outcome(claim.job_id, status, attempt=claim.attempt, fence=claim.fence)
            commit(self.files, self.ledger, outcome)

    @rule(claim=consumes(claims))
    def die_between_outcome_and_ledger(self, claim: Claim | None) -> None:
        if claim is not None:
            self.files.put_outcome(claim.job_id, make_outcome(claim.job_id, attempt=claim.attempt))

    # --- what time, recovery and disaster do

    @rule(job=jobs)
    def lease_runs_out(self, job: str) -> None:
        if self.client.zscore("planish:leases", job) is not None:
            self.client.zadd("planish:leases", {job: 1})

    @rule(job=jobs)
    def start_by_runs_out(self, job: str) -> None:
        if self.client.zscore("planish:start_by", job) is not None:
            self.client.zadd("planish:start_by", {job: 1})

    @rule()
    def reap(self) -> None:
        self.recovery.reap()
        for job in self.ledger.expired():
            assert not self.files.spec(job), "all expired leases are dealt with"

    @rule(job=jobs)
    def reap_out_of_turn(self, job: str) -> None:
        expired = job in self.ledger.expired()
        assert (self.ledger.reap(job) == "alive") != expired

    @rule()
    def reconcile(self) -> None:
        self.recovery.reconcile()
        for job in self.files.ids():
            outcome, status = self.files.outcome(job), self.ledger.status(job)
            assert status is not None, "every accepted job is in the ledger"
            assert outcome is None or status is outcome.status

    @rule()
    def redis_loses_everything(self) -> None:
        self.client.flushall()
        self.last_event.clear()
        self.recovery.reconcile()

    # --- what always holds

    @invariant()
    def outcomes_never_change(self) -> None:
        for job in self.files.ids():
            path = self.files.folder(job) / "OUTCOME.json"
            if path.exists():
                assert self.outcomes.setdefault(job, path.read_bytes()) == path.read_bytes()

    @invariant()
    def states_move_along_the_picture(self) -> None:
        for job in self.files.ids():
            now, before = self.ledger.status(job), self.seen.get(job)
            if now is None:
                continue
            if before is not None and now is not before:
                path = TRANSITIONS[before] | {
                    s for t in TRANSITIONS[before] for s in TRANSITIONS[t]
                }
                assert now in path, f"{before} to {now}"
            if before in TERMINAL:
                assert now is before
            self.seen[job] = now

    @invariant()
    def documents_are_the_contracts_and_indexes_match(self) -> None:
        documents = [Job.model_validate_json(raw) for raw in self.ledger.page(limit=500)[0]]
        assert [d.id for d in documents] == sorted((d.id for d in documents), reverse=True)
        assert all(d.id.startswith("job_") for d in documents)
        for document in documents:
            assert document.status is self.ledger.status(document.id)
            assert document.terminal == (document.status in TERMINAL)
        for status in JobStatus:
            page = [Job.model_validate_json(raw) for raw in self.ledger.page(status, limit=500)[0]]
            assert page == [d for d in documents if d.status is status]
        edge = self.ledger.page(labels=("team=edge",), limit=500)[0]
        assert len(edge) == sum(d.labels.get("team") == "edge" for d in documents)

    @invariant()
    def queues_match_states(self) -> None:
        for job in self.ledger.ids():
            status = self.ledger.status(job)
            assert (self.client.zscore("planish:leases", job) is not None) == (
                status is JobStatus.RUNNING
            )
            assert (self.client.zscore("planish:pending", job) is not None) == (
                status is JobStatus.QUEUED
            )

    @invariant()
    def events_are_dense_and_only_grow(self) -> None:
        for job in self.ledger.ids():
            ids = [event.id for event in self.ledger.events(job)]
            assert ids == list(range(1, len(ids) + 1))
            assert len(ids) >= self.last_event.get(job, 0)
            self.last_event[job] = len(ids)

    def _holds(self, claim: Claim) -> bool:
        return self.ledger.holds(claim.job_id, claim.fence)


def test_ledger_keeps_its_invariants(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jobs, "url", redis_url, raising=False)
    examples = int(os.environ.get("PLANISH_STATE_EXAMPLES", "25"))
    run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
