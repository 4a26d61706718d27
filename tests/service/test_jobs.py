from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from planish.contract.job import Job, JobPage, Progress
from planish.store.ids import new_ulid
from tests.service.conftest import Api, problem

NOBODY = "job_01J00000000000000000000000"


def test_a_poll_carries_an_etag_and_is_answered_304(
    client: httpx.Client, submit: Callable[..., str]
) -> None:
    path = f"/jobs/{submit()}"
    first = client.get(path)
    Job.model_validate(first.json())
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get(path, headers={"if-none-match": '"other", W/"more"'}).status_code == 200


def test_both_ways_to_a_job_give_the_same_bytes(
    client: httpx.Client, submit: Callable[..., str]
) -> None:
    path = f"/jobs/{submit()}"
    fast, slow = client.get(path), client.get(path, headers={"prefer": "respond-async"})
    assert fast.content == slow.content
    assert fast.headers["etag"] == slow.headers["etag"]


def test_a_long_poll_answers_when_the_job_changes(
    api: Api, client: httpx.Client, submit: Callable[..., str]
) -> None:
    job_id = submit()
    threading.Timer(0.4, api.ledger.claim, (job_id, "test")).start()
    started = time.monotonic()
    answer = client.get(f"/jobs/{job_id}", headers={"prefer": "wait=10"})
    assert 0.3 < time.monotonic() - started < 5
    assert answer.json()["status"] == "running"
    assert answer.headers["preference-applied"] == "wait=10"


def test_a_long_poll_without_a_change_ends_in_time(
    client: httpx.Client, submit: Callable[..., str]
) -> None:
    path = f"/jobs/{submit()}"
    etag = client.get(path).headers["etag"]
    started = time.monotonic()
    answer = client.get(path, headers={"prefer": "wait=1", "if-none-match": etag})
    assert 0.9 < time.monotonic() - started < 3
    assert answer.status_code == 304


def test_a_long_poll_of_a_changed_or_finished_job_answers_at_once(
    client: httpx.Client, submit: Callable[..., str], succeed: Callable[..., str]
) -> None:
    started = time.monotonic()
    headers = {"prefer": "wait=9", "if-none-match": '"old"'}
    assert client.get(f"/jobs/{submit()}", headers=headers).status_code == 200
    done = client.get(f"/jobs/{succeed()}", headers={"prefer": "wait=9"})
    assert done.json()["succeeded"]
    assert time.monotonic() - started < 3


def test_progress_is_seen_by_the_next_poll(
    api: Api, client: httpx.Client, submit: Callable[..., str]
) -> None:
    job_id = submit()
    claim = api.ledger.claim(job_id, "test")
    assert claim is not None
    api.ledger.beat(job_id, claim.fence, progress=Progress(stage="prune", fraction=0.5))
    assert client.get(f"/jobs/{job_id}").json()["progress"]["stage"] == "prune"


@pytest.mark.parametrize(
    "job_id",
    [NOBODY, "job_x", "x", "%2e%2e", NOBODY.replace("job", "plan"), "job_" + "Z" * 26, "%00", "ä"],
)
@pytest.mark.parametrize("rest", ["", "/events", "/logs", "/report", "/artifacts", "/model"])
def test_unknown_ids_are_404(client: httpx.Client, job_id: str, rest: str) -> None:
    problem(client.get(f"/jobs/{job_id}{rest}"), 404, "not_found")


def test_cancelling_and_deleting_unknown_ids_is_404(client: httpx.Client) -> None:
    problem(client.post(f"/jobs/{NOBODY}/cancel"), 404, "not_found")
    problem(client.delete(f"/jobs/{NOBODY}"), 404, "not_found")


def test_a_queued_job_is_cancelled_at_once(
    client: httpx.Client, submit: Callable[..., str]
) -> None:
    job_id = submit()
    answer = client.post(f"/jobs/{job_id}/cancel")
    assert answer.status_code == 202
    job = Job.model_validate(answer.json())
    assert (job.status, job.terminal, job.cancel_requested) == ("cancelled", True, True)
    assert job.error is not None
    assert job.error.code == "cancelled"
    problem(client.post(f"/jobs/{job_id}/cancel"), 409, "already_terminal")


def test_a_running_job_is_asked_to_stop(
    api: Api, client: httpx.Client, submit: Callable[..., str]
) -> None:
    job_id = submit()
    claim = api.ledger.claim(job_id, "test")
    assert claim is not None
    job = client.post(f"/jobs/{job_id}/cancel").json()
    assert (job["status"], job["cancel_requested"]) == ("running", True)
    assert api.ledger.beat(job_id, claim.fence) == "cancel"


def test_only_finished_jobs_are_deleted(
    api: Api, client: httpx.Client, submit: Callable[..., str], succeed: Callable[..., str]
) -> None:
    problem(client.delete(f"/jobs/{submit()}"), 409, "not_terminal")
    job_id = succeed()
    assert client.delete(f"/jobs/{job_id}").status_code == 204
    problem(client.get(f"/jobs/{job_id}"), 404, "not_found")
    assert not api.files.folder(job_id).exists()


def test_pages_walk_all_jobs_newest_first(client: httpx.Client, submit: Callable[..., str]) -> None:
    tag = new_ulid()
    made = [submit(labels={"walk": tag}) for _ in range(5)]
    seen: list[str] = []
    query: dict[str, str | int] = {"label": f"walk={tag}", "limit": 2}
    while True:
        page = JobPage.model_validate(client.get("/jobs", params=query).json())
        seen += [job.id for job in page.items]
        if page.next is None:
            break
        query["after"] = page.next
    assert seen == made[::-1]


def test_lists_are_narrowed_by_status_and_by_all_labels(
    client: httpx.Client, submit: Callable[..., str]
) -> None:
    tag = new_ulid()
    submit(labels={"tag": tag, "kind": "a"})
    gone = submit(labels={"tag": tag, "kind": "b"})
    client.post(f"/jobs/{gone}/cancel")

    def ids(*pairs: tuple[str, str]) -> list[str]:
        return [job["id"] for job in client.get("/jobs", params=pairs).json()["items"]]

    assert len(ids(("label", f"tag={tag}"))) == 2
    assert ids(("label", f"tag={tag}"), ("label", "kind=b")) == [gone]
    assert ids(("label", f"tag={tag}"), ("status", "cancelled")) == [gone]
    assert ids(("label", f"tag={tag}"), ("label", "kind=c")) == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "status=done",
        "label=x",
        "label=",
        "after=x",
        "after=job_1",
    ],
)
def test_bad_queries_are_named(client: httpx.Client, query: str) -> None:
    body = problem(client.get(f"/jobs?{query}"), 400, "invalid_parameter")
    assert query.split("=")[0] in str(body["detail"])
