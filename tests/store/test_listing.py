"""Pages of jobs: filters, cursors and bounds."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import redis

from planish.contract.job import JobStatus
from planish.store import jobs
from planish.store.jobs import Ledger
from tests.store.conftest import make_outcome, make_record

Submit = Callable[..., str]


def ids(documents: list[bytes]) -> list[str]:
    return [json.loads(document)["id"] for document in documents]


def walk(ledger: Ledger, limit: int, **filters: object) -> list[list[str]]:
    """All pages of a listing."""
    pages, after = [], None
    while True:
        documents, after = ledger.page(limit=limit, after=after, **filters)  # type: ignore[arg-type]
        pages.append(ids(documents))
        if after is None:
            return pages


@pytest.mark.parametrize("limit", [1, 3, 7, 8, 250])
def test_pages_hold_every_job_once_newest_first(ledger: Ledger, submit: Submit, limit: int) -> None:
    made = [submit() for _ in range(7)]
    pages = walk(ledger, limit)
    assert [job_id for page in pages for job_id in page] == made[::-1]
    assert all(pages), "no empty page at the end"


def test_empty_listing(ledger: Ledger) -> None:
    assert ledger.page() == ([], None)


def test_filters_narrow_together(ledger: Ledger, submit: Submit) -> None:
    edge = submit(labels={"team": "edge", "net": "r20"})
    other = submit(labels={"team": "edge", "net": "r56"})
    submit(labels={"team": "core"})
    ledger.settle(make_outcome(other))
    page = ledger.page
    assert ids(page(labels=("team=edge",))[0]) == [other, edge]
    assert ids(page(labels=("team=edge", "net=r20"))[0]) == [edge]
    assert ids(page(JobStatus.SUCCEEDED, ("team=edge",))[0]) == [other]
    assert ids(page(JobStatus.RUNNING)[0]) == []
    assert page(labels=("team=nobody",)) == ([], None)


def test_filters_follow_the_state(ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    assert ids(ledger.page(JobStatus.RUNNING)[0]) == [job_id]
    assert ids(ledger.page(JobStatus.QUEUED)[0]) == []
    assert ledger.counts() == {s: int(s is JobStatus.RUNNING) for s in JobStatus}
    ledger.release(job_id, claim.fence)
    assert ids(ledger.page(JobStatus.QUEUED)[0]) == [job_id]


def test_plans_are_in_no_listing(ledger: Ledger, client: redis.Redis) -> None:
    plan = make_record("plan", labels={"a": "b"})
    ledger.submit(plan)
    ledger.claim(plan.id, "w")
    assert ledger.page() == ([], None)
    assert ledger.page(JobStatus.RUNNING) == ([], None)
    assert ledger.page(labels=("a=b",)) == ([], None)
    assert list(ledger.ids()) == [plan.id]
    ledger.settle(make_outcome(plan.id))
    assert ledger.page(JobStatus.SUCCEEDED) == ([], None)
    assert ledger.delete(plan.id) == "deleted"
    assert [key for key in client.keys("*") if key != b"planish:fence"] == []


def test_a_bounded_walk_gives_short_pages_that_go_on(
    ledger: Ledger, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAGE_BOUND", 10)
    rare = [submit(labels={"rare": "1", "all": "1"})]
    for _ in range(25):
        submit(labels={"all": "1", "other": "1"})
    for _ in range(26):
        submit(labels={"rare": "1"})
    pages = walk(ledger, 5, labels=("rare=1", "all=1"))
    assert [job_id for page in pages for job_id in page] == rare
    assert len(pages) > 1
