"""Live events of any number of jobs for any number of watchers, over one reading connection.

One XREAD per process reads all watched streams; each frame is made once. A watcher first gets
what is stored, then what is new, filtered event by event, so nothing repeats and nothing is
missing. A watcher that cannot keep up, and all watchers when Redis goes away, are let go: they
come back with their last id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import cast

import redis
import redis.asyncio

from planish.contract.job import EventType
from planish.store.scripts import events_key

Frames = list[tuple[int, bytes]]

_BLOCK_MS = 200  # a job that gets its first watcher is read from the next turn on
_BATCH = 1_000
_BACKLOG = 256
_IDLE_SECONDS = 15.0
_FINISHED = f"event: {EventType.FINISHED.value}\n".encode()
_Entries = list[tuple[bytes, dict[bytes, bytes]]]
_Queue = asyncio.Queue[Frames | None]


class EventHub:
    """Follows jobs; belongs to one event loop."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        """Use `client`, made by `connect_async(url, blocking=True)`."""
        self._redis = client
        self._watchers: dict[str, set[_Queue]] = {}
        self._last: dict[str, int] = {}
        self._reader: asyncio.Task[None] | None = None

    async def follow(
        self, job_id: str, after: int = 0, idle: float = _IDLE_SECONDS
    ) -> AsyncIterator[Frames]:
        """Yield batches of (event id, SSE frame), from the first event after `after` on.

        An empty batch comes every `idle` seconds without events: time for a keep-alive. Ends after
        ``job.finished``, and early when the watcher is too slow or Redis goes away: whoever sent
        no ``job.finished`` yet closes, and its client comes back with its last id. An `after` that
        the job never reached (its ledger was rebuilt) counts as 0.

        Raises:
            redis.RedisError: Redis is away at the start.
        """
        newest = await self._newest(job_id)
        if newest is not None and after > newest[0]:
            after = 0
        if newest is not None and after == newest[0] and _ends([newest]):
            return
        queue = self._join(job_id, after if newest is None else newest[0])
        try:
            async for frames in self._stored(job_id, after):
                after = frames[-1][0]
                yield frames
                if _ends(frames):
                    return
            async for frames in _live(queue, idle):
                fresh = [frame for frame in frames if frame[0] > after]
                after = fresh[-1][0] if fresh else after
                if fresh or not frames:
                    yield fresh
                if _ends(fresh):
                    return
        finally:
            self._leave(job_id, queue)

    async def close(self) -> None:
        """Let all watchers go and stop reading."""
        self._dismiss()
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        await self._redis.aclose()

    async def _newest(self, job_id: str) -> tuple[int, bytes] | None:
        frames = _frames(cast("_Entries", await self._redis.xrevrange(events_key(job_id), count=1)))
        return frames[0] if frames else None

    async def _stored(self, job_id: str, after: int) -> AsyncIterator[Frames]:
        while True:
            start = f"({after}-0" if after else "-"
            found = await self._redis.xrange(events_key(job_id), min=start, count=_BATCH)
            frames = _frames(cast("_Entries", found))
            if frames:
                after = frames[-1][0]
                yield frames
            if len(frames) < _BATCH:
                return

    def _join(self, job_id: str, last: int) -> _Queue:
        queue: _Queue = asyncio.Queue(_BACKLOG)
        self._watchers.setdefault(job_id, set()).add(queue)
        self._last.setdefault(job_id, last)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return queue

    def _leave(self, job_id: str, queue: _Queue) -> None:
        watchers = self._watchers.get(job_id)
        if watchers is not None:
            watchers.discard(queue)
            if not watchers:
                del self._watchers[job_id], self._last[job_id]

    async def _read(self) -> None:
        try:
            while self._watchers:
                streams = {events_key(job_id): f"{n}-0" for job_id, n in self._last.items()}
                job_ids = {events_key(job_id).encode(): job_id for job_id in self._last}
                found = await self._redis.xread(streams, count=_BATCH, block=_BLOCK_MS)  # type: ignore[arg-type]  # invariant dict
                for key, entries in cast("list[tuple[bytes, _Entries]]", found or []):
                    self._hand_out(job_ids[key], _frames(entries))
        except redis.RedisError:
            self._dismiss()

    def _hand_out(self, job_id: str, frames: Frames) -> None:
        if job_id not in self._watchers or not frames:
            return
        self._last[job_id] = frames[-1][0]
        for queue in list(self._watchers[job_id]):
            try:
                queue.put_nowait(frames)
            except asyncio.QueueFull:
                self._leave(job_id, queue)
                _let_go(queue)

    def _dismiss(self) -> None:
        for queues in self._watchers.values():
            for queue in queues:
                _let_go(queue)
        self._watchers.clear()
        self._last.clear()


async def _live(queue: _Queue, idle: float) -> AsyncIterator[Frames]:
    while True:
        try:
            async with asyncio.timeout(idle):
                frames = await queue.get()
        except TimeoutError:
            yield []
            continue
        if frames is None:
            return
        yield frames


def _let_go(queue: _Queue) -> None:
    """Tell a watcher to end, in front of what it has not read."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)


def _frames(entries: _Entries) -> Frames:
    return [(int(name.split(b"-")[0]), _frame(name, fields)) for name, fields in entries]


def _frame(name: bytes, fields: dict[bytes, bytes]) -> bytes:
    number = name.split(b"-")[0]
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (number, fields[b"t"], fields[b"d"])


def _ends(frames: Frames) -> bool:
    return bool(frames) and _FINISHED in frames[-1][1]
