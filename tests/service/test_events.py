from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
import pytest

from planish.contract.job import EventList, EventType, JobStatus
from planish.store.commit import commit
from planish.store.records import Outcome
from tests.service.conftest import Api, problem


def frames(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, object]]]:
    """(id, type, data) of each SSE frame."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def test_events_of_a_finished_job_replay_in_order_and_end(
    client: httpx.Client, succeed: Callable[..., str]
) -> None:
    with client.stream("GET", f"/jobs/{succeed()}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = list(frames(answer.iter_lines()))
    assert [number for number, _, _ in seen] == list(range(1, len(seen) + 1))
    assert [kind for _, kind, _ in seen] == ["job.queued", "job.started", "job.finished"]
    assert all(data["id"] == number and data["type"] == kind for number, kind, data in seen)


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_client_that_comes_back_gets_what_it_missed(
    client: httpx.Client, succeed: Callable[..., str], how: str
) -> None:
    path = f"/jobs/{succeed()}/events"
    headers = {"last-event-id": "2"} if how == "header" else {}
    query = {"after": "2"} if how == "query" else {}
    with client.stream("GET", path, headers=headers, params=query) as answer:
        assert [number for number, _, _ in frames(answer.iter_lines())] == [3]


def test_a_live_stream_shows_each_event_once_and_ends_with_the_job(
    api: Api, client: httpx.Client, submit: Callable[..., str]
) -> None:
    job_id = submit()

    def work() -> None:
        claim = api.ledger.claim(job_id, "test")
        assert claim is not None
        for number in range(50):
            api.ledger.event(job_id, claim.fence, EventType.EPOCH, {"epoch": number})
            time.sleep(0.005)
        outcome = Outcome(
            job_id=job_id,
            status=JobStatus.CANCELLED,
            attempt=1,
            fence=claim.fence,
            finished_at=datetime.now(UTC),
        )
        commit(api.files, api.ledger, outcome)

    threading.Timer(0.2, work).start()
    with client.stream("GET", f"/jobs/{job_id}/events") as answer:
        seen = list(frames(answer.iter_lines()))
    assert [number for number, _, _ in seen] == list(range(1, 54))
    assert seen[-1][1] == "job.finished"


def test_the_list_form_is_json(client: httpx.Client, succeed: Callable[..., str]) -> None:
    path = f"/jobs/{succeed()}/events"
    answer = client.get(path, headers={"accept": "application/json"})
    events = EventList.model_validate(answer.json())
    assert [event.id for event in events.items] == [1, 2, 3]
    later = client.get(path, headers={"accept": "application/json"}, params={"after": 2})
    assert [event["id"] for event in later.json()["items"]] == [3]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "²", "9" * 5000])
def test_a_bad_event_id_is_refused(
    client: httpx.Client, succeed: Callable[..., str], value: str
) -> None:
    path = f"/jobs/{succeed()}/events"
    problem(client.get(path, params={"after": value}), 400, "invalid_parameter")


def test_logs_are_empty_before_the_first_attempt(
    client: httpx.Client, submit: Callable[..., str]
) -> None:
    answer = client.get(f"/jobs/{submit()}/logs")
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_logs_of_all_attempts_follow_each_other(
    api: Api, client: httpx.Client, succeed: Callable[..., str]
) -> None:
    job_id = succeed()
    later = api.files.attempt_dir(job_id, 9, 10**9)
    (later / "log.txt").write_text("second attempt\n")
    assert client.get(f"/jobs/{job_id}/logs").text == "first line\nlast line\nsecond attempt\n"


def test_followed_logs_end_with_the_job(
    api: Api, client: httpx.Client, submit: Callable[..., str]
) -> None:
    job_id = submit()

    def work() -> None:
        claim = api.ledger.claim(job_id, "test")
        assert claim is not None
        folder = api.files.attempt_dir(job_id, 1, claim.fence)
        (folder / "log.txt").write_text("while it runs\n")
        time.sleep(0.3)
        client.post(f"/jobs/{job_id}/cancel")
        now = datetime.now(UTC)
        outcome = Outcome(job_id=job_id, status=JobStatus.CANCELLED, finished_at=now)
        commit(api.files, api.ledger, outcome)

    threading.Timer(0.1, work).start()
    answer = client.get(f"/jobs/{job_id}/logs", params={"follow": "1"})
    assert answer.text == "while it runs\n"


def test_stopping_the_api_ends_open_streams(
    api: Api, client: httpx.Client, submit: Callable[..., str]
) -> None:
    """Runs last: it lets all watchers of this module's API go."""
    with client.stream("GET", f"/jobs/{submit()}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "id: 1"
        started = time.monotonic()
        api.server.should_exit = True
        for _ in lines:
            pass
        assert time.monotonic() - started < 3
