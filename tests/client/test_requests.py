from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

import planish
from planish.contract.errors import (
    AlreadyTerminal,
    InternalError,
    InvalidParameter,
    InvalidSpec,
    NotFound,
    ServerUnreachable,
    Unavailable,
    WaitTimeout,
)
from planish.contract.job import JobStatus
from planish.contract.problem import ErrorInfo
from tests.client.conftest import JOB, Driver, document, json_answer, problem
from tests.client.fault_server import Answer, FaultServer, Handler, Received

Serving = Callable[[Handler], FaultServer]


def failing_first(times: int, then: Answer, fault: Answer) -> Handler:
    """Answer with `fault` for some times, then with `then`."""
    seen: list[Received] = []

    def handle(request: Received) -> Answer:
        seen.append(request)
        return fault if len(seen) <= times else then

    return handle


@pytest.mark.parametrize(
    "fault",
    [
        Answer(silent=True, reset=True),
        Answer(body=b"{", stated=4000),
        problem(503, "unavailable", "busy", **{"Retry-After": "0"}),
        Answer(502, b"<html>bad gateway</html>"),
    ],
    ids=["reset", "cut short", "503", "502 of a proxy"],
)
def test_reading_is_repeated_until_there_is_an_answer(
    serving: Serving, kind: str, fault: Answer
) -> None:
    server = serving(failing_first(3, json_answer(document()), fault))
    assert Driver(kind, server.url).call("get", JOB).id == JOB
    assert len(server.requests) == 4


def test_a_server_that_stays_away_is_unreachable(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerUnreachable, match=r"planish serve"):
        Driver(kind, url).call("get", JOB)


def test_a_client_error_is_not_repeated_and_has_its_class(serving: Serving, kind: str) -> None:
    server = serving(lambda _: problem(404, "not_found", "no such job"))
    with pytest.raises(NotFound, match="no such job"):
        Driver(kind, server.url).call("get", JOB)
    assert len(server.requests) == 1


def test_retry_after_is_waited_for(serving: Serving) -> None:
    busy = problem(503, "unavailable", "busy", **{"Retry-After": "1"})
    server = serving(failing_first(1, json_answer(document()), busy))
    began = time.monotonic()
    Driver("sync", server.url).call("get", JOB)
    assert time.monotonic() - began >= 1


def test_an_answer_of_something_else_says_so(serving: Serving) -> None:
    server = serving(lambda _: Answer(body=b"<html>hello</html>"))
    with pytest.raises(InternalError, match="is this a Planish server"):
        Driver("sync", server.url).call("get", JOB)


def test_an_error_page_of_a_proxy_keeps_status_and_words(serving: Serving) -> None:
    server = serving(lambda _: Answer(404, b"nothing here, says nginx"))
    with pytest.raises(NotFound, match="404: nothing here, says nginx"):
        Driver("sync", server.url).call("get", JOB)


def test_a_job_id_cannot_lead_to_another_path(serving: Serving) -> None:
    server = serving(lambda _: problem(404, "not_found", "no"))
    with pytest.raises(NotFound):
        Driver("sync", server.url).call("get", "../files?x=1")
    assert server.requests[0].target == "/jobs/..%2Ffiles%3Fx%3D1"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://[::1"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter):
        planish.Client(url)


def test_the_key_is_sent_as_a_bearer_and_taken_from_the_environment(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(lambda _: json_answer(document()))
    monkeypatch.setenv("PLANISH_API_KEY", "from-environment")
    Driver("sync", server.url).call("get", JOB)
    with planish.Client(server.url, "given") as client:
        client.get(JOB)
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer from-environment", "Bearer given"]


def test_a_repeated_delete_of_what_is_gone_is_done(serving: Serving, kind: str) -> None:
    lost = Answer(silent=True, reset=True)
    server = serving(failing_first(1, problem(404, "not_found", "gone"), lost))
    Driver(kind, server.url).call("delete", JOB)
    with pytest.raises(NotFound):
        Driver(kind, server.url).call("delete", JOB)


def test_a_repeated_cancel_shows_the_job(serving: Serving) -> None:
    cancelled = json_answer(document(JobStatus.CANCELLED))
    conflict = problem(409, "already_terminal", "finished")
    losses: list[int] = []

    def handle(request: Received) -> Answer:
        if request.method == "GET":
            return cancelled
        losses.append(1)
        return Answer(silent=True, reset=True) if len(losses) == 1 else conflict

    server = serving(handle)
    assert Driver("sync", server.url).call("cancel", JOB).status == "cancelled"
    with pytest.raises(AlreadyTerminal):
        Driver("sync", server.url).call("cancel", JOB)


def test_wait_returns_when_the_job_has_succeeded(serving: Serving, kind: str) -> None:
    states = [
        json_answer(document(fraction=0.1), ETag='"1"'),
        Answer(304, headers={"ETag": '"1"'}),
        Answer(silent=True, reset=True),
        problem(503, "unavailable", "restarting", **{"Retry-After": "0"}),
        json_answer(document(fraction=0.6), ETag='"2"'),
        json_answer(document(JobStatus.SUCCEEDED)),
    ]
    first = json_answer(document())
    queue = [first, *states]
    server = serving(lambda _: queue.pop(0))
    seen: list[float] = []
    job = Driver(kind, server.url).call(
        "wait", JOB, timeout=30, on_change=lambda j: seen.append(j.progress.fraction)
    )
    assert job.succeeded
    assert seen == [0.0, 0.1, 0.6, 0.0]
    assert server.requests[1].headers["prefer"].startswith("wait=")
    assert server.requests[2].headers["if-none-match"] == '"1"'


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.FAILED, "training_diverged", "TrainingDiverged"),
        (JobStatus.FAILED, "a_code_of_a_newer_server", "JobFailed"),
        (JobStatus.CANCELLED, "cancelled", "JobCancelled"),
        (JobStatus.EXPIRED, "expired", "JobExpired"),
    ],
)
def test_wait_raises_what_the_job_ended_with(
    serving: Serving, kind: str, status: JobStatus, code: str, expected: str
) -> None:
    failed = document(status, error=ErrorInfo(code=code, title="t", detail="the reason"))
    server = serving(lambda _: json_answer(failed))
    with pytest.raises(planish.PlanishError, match="the reason") as caught:
        Driver(kind, server.url).call("wait", JOB)
    assert type(caught.value).__name__ == expected
    assert caught.value.job == failed


def test_wait_gives_up_after_its_timeout_and_says_that_the_job_goes_on(
    serving: Serving, kind: str
) -> None:
    server = serving(lambda _: json_answer(document()))
    with pytest.raises(WaitTimeout, match="goes on") as caught:
        Driver(kind, server.url).call("wait", JOB, timeout=0.5)
    assert caught.value.job == document()
    assert len(server.requests) <= 5  # a server that does not hold polls is not hammered


def test_a_recipe_with_a_fault_is_refused_before_anything_is_sent() -> None:
    with planish.Client("http://127.0.0.1:9") as client, pytest.raises(InvalidSpec, match="prnue"):
        client.optimize("model.pt2", recipe=[{"op": "prnue"}])
    with planish.Client("http://127.0.0.1:9") as client, pytest.raises(InvalidSpec, match="colour"):
        client.optimize("m.pt2", recipe=[planish.Quantize()], colour="red")  # type: ignore[call-arg]


def test_unavailable_is_what_remains_of_a_busy_server(serving: Serving) -> None:
    server = serving(lambda _: problem(503, "unavailable", "too many uploads"))
    with pytest.raises(Unavailable, match="too many uploads"):
        Driver("sync", server.url).call("get", JOB)
