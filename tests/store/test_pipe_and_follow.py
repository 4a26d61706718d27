"""Hot reads and live events on a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from planish.contract.job import EventType, Progress
from planish.store.connection import connect_async
from planish.store.follow import EventHub, Frames
from planish.store.jobs import Ledger
from planish.store.pipe import Pipe
from tests.store.conftest import make_outcome, make_record

Submit = Callable[..., str]


@pytest.fixture
async def pipe(redis_url: str) -> AsyncIterator[Pipe]:
    pipe = Pipe(redis_url)
    yield pipe
    pipe.close()


@pytest.fixture
async def hub(redis_url: str) -> AsyncIterator[EventHub]:
    hub = EventHub(connect_async(redis_url, blocking=True))
    yield hub
    await hub.close()


def emit(ledger: Ledger, job_id: str, fence: int, count: int) -> None:
    for _ in range(count):
        assert ledger.event(job_id, fence, EventType.EPOCH, {})


async def collect(hub: EventHub, job_id: str, after: int = 0) -> list[int]:
    return [number async for frames in hub.follow(job_id, after) for number, _ in frames]


async def test_pipe_reads_documents(pipe: Pipe, ledger: Ledger, submit: Submit) -> None:
    ids = [submit() for _ in range(3)]
    documents = await asyncio.gather(*(pipe.document(ids[n % 3]) for n in range(300)))
    assert documents == [ledger.document(ids[n % 3]) for n in range(300)]
    assert await pipe.document(make_record().id) is None
    assert await pipe.snapshot(ids[0]) == (ledger.document(ids[0]), 1)
    assert await pipe.snapshot(make_record().id) is None
    assert await pipe.ping()


async def test_pipe_goes_on_after_a_cancelled_read_and_a_lost_connection(
    pipe: Pipe, client: redis.Redis, submit: Submit
) -> None:
    job_id = submit()
    await pipe.ping()
    task = asyncio.create_task(pipe.document(job_id))
    await asyncio.sleep(0)
    task.cancel()
    assert await pipe.document(job_id) is not None
    client.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.05)
    assert await pipe.document(job_id) is not None


async def test_pipe_says_when_redis_is_away_or_refuses(pipe: Pipe, client: redis.Redis) -> None:
    with pytest.raises(ConnectionError, match="refuses"):
        await pipe.read(b"HGET", b"one argument too few")
    away = Pipe("unix:///nowhere/redis.sock")
    with pytest.raises(ConnectionError, match="cannot be reached"):
        await away.document("job")
    assert not await away.ping()


async def test_pipe_uses_the_database_of_the_url(redis_url: str, client: redis.Redis) -> None:
    pipe = Pipe(f"{redis_url}?db=5")
    client.execute_command("SELECT", 0)
    assert await pipe.read(b"SET", b"k", b"v") == b"OK"
    assert client.get("k") is None
    assert await pipe.read(b"GET", b"k") == b"v"
    pipe.close()


async def test_a_watcher_gets_what_is_stored_then_what_comes(
    hub: EventHub, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    watching = asyncio.create_task(collect(hub, job_id))
    await asyncio.sleep(0.1)
    emit(ledger, job_id, claim.fence, 5)
    await asyncio.sleep(0.1)
    ledger.settle(make_outcome(job_id))
    assert await asyncio.wait_for(watching, 5) == list(range(1, 9))


async def test_frames_are_server_sent_events(hub: EventHub, ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    ledger.beat(job_id, claim.fence, progress=Progress(stage="x", message="ü\n"))
    ledger.settle(make_outcome(job_id))
    frames: Frames = [f async for batch in hub.follow(job_id) for f in batch]
    assert [number for number, _ in frames] == [1, 2, 3, 4]
    lines = frames[2][1].decode().split("\n")
    assert lines[:2] == ["id: 3", "event: job.progress"]
    assert json.loads(lines[2].removeprefix("data: "))["data"]["message"] == "ü\n"
    assert lines[3:] == ["", ""]


async def test_late_watchers_of_a_growing_stream_miss_and_repeat_nothing(
    hub: EventHub, redis_url: str, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    emit(ledger, job_id, claim.fence, 1500)
    watching = []
    for start in range(0, 60, 3):
        watching.append((start * 20, asyncio.create_task(collect(hub, job_id, start * 20))))
        await asyncio.to_thread(emit, ledger, job_id, claim.fence, 25)
    ledger.settle(make_outcome(job_id))
    total = 2 + 1500 + 20 * 25 + 1
    for after, task in watching:
        assert await asyncio.wait_for(task, 10) == list(range(after + 1, total + 1))
    assert hub._watchers == {}


async def test_a_finished_job_ends_at_once(hub: EventHub, ledger: Ledger, submit: Submit) -> None:
    job_id = submit()
    ledger.settle(make_outcome(job_id))
    assert await asyncio.wait_for(collect(hub, job_id), 1) == [1, 2]
    assert await asyncio.wait_for(collect(hub, job_id, 1), 1) == [2]
    assert await asyncio.wait_for(collect(hub, job_id, 2), 1) == []


async def test_an_id_from_before_a_rebuild_replays_all(
    hub: EventHub, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit()
    ledger.settle(make_outcome(job_id))
    assert await asyncio.wait_for(collect(hub, job_id, 40), 1) == [1, 2]


async def test_silence_is_an_empty_batch(hub: EventHub, submit: Submit) -> None:
    follow = hub.follow(submit(), idle=0.05)
    assert [n for n, _ in await anext(follow)] == [1]
    assert await anext(follow) == []
    assert await anext(follow) == []
    await follow.aclose()
    assert hub._watchers == {}


async def test_watchers_are_let_go_when_redis_goes_and_can_come_back(
    hub: EventHub, client: redis.Redis, ledger: Ledger, submit: Submit
) -> None:
    job_id = submit()
    watching = asyncio.create_task(collect(hub, job_id))
    await asyncio.sleep(0.1)
    client.client_kill_filter(_type="normal", skipme=True)
    assert await asyncio.wait_for(watching, 2) == [1]
    watching = asyncio.create_task(collect(hub, job_id, 1))
    await asyncio.sleep(0.1)
    ledger.settle(make_outcome(job_id))
    assert await asyncio.wait_for(watching, 2) == [2]


async def test_a_watcher_that_does_not_read_is_let_go(
    hub: EventHub, ledger: Ledger, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planish.store.follow._BACKLOG", 2)
    job_id = submit()
    claim = ledger.claim(job_id, "w")
    assert claim is not None
    slow = hub.follow(job_id)
    assert [n for n, _ in await anext(slow)] == [1, 2]
    for _ in range(5):
        emit(ledger, job_id, claim.fence, 1)
        await asyncio.sleep(0.05)
    assert [batch async for batch in slow] == []
    assert hub._watchers == {}


async def test_one_connection_reads_for_all_watchers(
    hub: EventHub, client: redis.Redis, submit: Submit
) -> None:
    jobs = [submit() for _ in range(20)]
    watching = [asyncio.create_task(collect(hub, job_id)) for job_id in jobs]
    await asyncio.sleep(0.3)
    blocked = [c for c in client.client_list() if c["cmd"] == "xread"]
    assert len(blocked) == 1
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
