from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.client import events
from planish.client.events import Frames
from planish.contract.errors import NotFound, ServerUnreachable
from tests.client.conftest import JOB, Driver, problem
from tests.client.fault_server import Answer, FaultServer, Handler, Received

Serving = Callable[[Handler], FaultServer]
LAST = 40


def frame(number: int) -> bytes:
    kind = "job.finished" if number == LAST else "job.progress"
    data = {"id": number, "type": kind, "time": "2026-01-01T00:00:00Z", "data": {"n": number}}
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def replay(request: Received, until: int = LAST) -> bytes:
    after = int(request.headers.get("last-event-id", "0"))
    return b": hello\n\n" + b"".join(frame(n) for n in range(after + 1, until + 1))


def test_events_come_once_and_in_order_however_often_the_stream_breaks(
    serving: Serving, kind: str
) -> None:
    cuts = [0, 5, 150, 700, 1500, 2]

    def handle(request: Received) -> Answer:
        body = replay(request)
        if cuts:
            return Answer(200, body[: cuts.pop()], stated=len(body), reset=len(cuts) % 2 == 0)
        return Answer(200, body)

    server = serving(handle)
    found = Driver(kind, server.url).collect("events", JOB)
    assert [event.id for event in found] == list(range(1, LAST + 1))
    assert found[-1].type == "job.finished"
    assert len(server.requests) == 7


def test_a_server_that_repeats_events_is_corrected(serving: Serving, kind: str) -> None:
    bodies = [frame(1) + frame(2), frame(1) + frame(2) + frame(3) + frame(LAST)]
    server = serving(lambda _: Answer(200, bodies.pop(0)))
    found = Driver(kind, server.url).collect("events", JOB)
    assert [event.id for event in found] == [1, 2, 3, LAST]


def test_following_can_start_in_the_middle(serving: Serving) -> None:
    server = serving(lambda request: Answer(200, replay(request)))
    found = Driver("sync", server.url).collect("events", JOB, after=LAST - 2)
    assert [event.id for event in found] == [LAST - 1, LAST]
    assert server.requests[0].headers["last-event-id"] == str(LAST - 2)


def test_an_unknown_job_has_no_events(serving: Serving, kind: str) -> None:
    server = serving(lambda _: problem(404, "not_found", "no such job"))
    with pytest.raises(NotFound):
        Driver(kind, server.url).collect("events", JOB)
    assert len(server.requests) == 1


def test_a_server_that_stays_away_ends_the_following(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PATIENCE_SECONDS", 0.2)
    server = serving(lambda _: Answer(silent=True))
    with pytest.raises(ServerUnreachable):
        Driver("sync", server.url).collect("events", JOB)


def test_a_log_goes_on_where_the_connection_broke(serving: Serving, kind: str) -> None:
    text = "".join(f"line {n} — ready\n" for n in range(500)).encode()
    cuts = [3000, 1000]

    def handle(_: Received) -> Answer:
        size = cuts.pop() if cuts else len(text)
        return Answer(200, text[:size], stated=len(text))

    found = Driver(kind, serving(handle).url).collect("follow_logs", JOB)
    assert b"".join(found) == text


@given(st.lists(st.integers(0, 4000), max_size=20))
def test_frames_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    whole = b": comment\r\n\r\n" + b"".join(frame(n) for n in range(1, 20))
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    frames = Frames()
    found = [
        data for start, end in itertools.pairwise(edges) for data in frames.feed(whole[start:end])
    ]
    assert [json.loads(data)["id"] for data in found] == list(range(1, 20))
