from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import httpx
import pytest

from planish.contract.errors import DeadlineExceeded, PlanishError, StateDictMismatch
from planish.contract.job import JobStatus
from planish.contract.report import Plan, PlanSize
from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE
from planish.store.commit import commit
from planish.store.records import Outcome
from tests.service.conftest import SPEC, Api, form, problem

PLAN = Plan(
    inputs=(),
    before=PlanSize(params=10, size_bytes=40, macs=None),
    after=PlanSize(params=5, size_bytes=20, macs=None),
    passes=(),
)


def planner(api: Api, error: PlanishError | None) -> threading.Thread:
    """Does a worker's part for the next plan."""

    def work() -> None:
        while not (ids := [i for i in api.files.ids() if i.startswith("plan_")]):
            time.sleep(0.02)
        claim = None
        while claim is None:
            claim = api.ledger.claim(ids[0], "test")
        outcome = Outcome(
            job_id=ids[0],
            status=JobStatus.FAILED if error else JobStatus.SUCCEEDED,
            attempt=claim.attempt,
            fence=claim.fence,
            finished_at=datetime.now(UTC),
            plan=None if error else PLAN,
            error=error.info() if error else None,
        )
        commit(api.files, api.ledger, outcome)

    api.ledger.register_worker("test", 0, (JOB_QUEUE, PLAN_QUEUE), 10)
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def no_plan_left(api: Api) -> bool:
    for _ in range(100):
        if not any(job_id.startswith("plan_") for job_id in api.files.ids()):
            return True
        time.sleep(0.05)
    return False


def test_without_a_worker_plans_are_unavailable(client: httpx.Client, model: bytes) -> None:
    answer = client.post("/plans", files=form(SPEC, model=model))
    problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_a_plan_is_answered_and_forgotten(api: Api, client: httpx.Client, model: bytes) -> None:
    worker = planner(api, None)
    answer = client.post("/plans", files=form(SPEC, model=model))
    worker.join()
    assert answer.status_code == 200, answer.text
    assert Plan.model_validate(answer.json()) == PLAN
    assert no_plan_left(api)
    assert all(job["id"].startswith("job_") for job in client.get("/jobs").json()["items"])


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StateDictMismatch("missing key conv.bias"), 422, "state_dict_mismatch"),
        (DeadlineExceeded("too slow"), 503, "unavailable"),
    ],
)
def test_a_plan_that_fails_is_that_problem(
    api: Api, client: httpx.Client, model: bytes, error: PlanishError, status: int, code: str
) -> None:
    worker = planner(api, error)
    answer = client.post("/plans", files=form(SPEC, model=model))
    worker.join()
    assert error.detail in str(problem(answer, status, code)["detail"])
    assert no_plan_left(api)


def test_a_bad_spec_is_refused_before_any_worker(client: httpx.Client, model: bytes) -> None:
    answer = client.post("/plans", files=form({"recipe": []}, model=model))
    problem(answer, 422, "invalid_spec")
