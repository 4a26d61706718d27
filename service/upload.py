"""Bytes from the connection to the disk: hashed and written by a thread while the next ones arrive.

At most `OUTSTANDING` bytes wait for the disk. Beyond that the next `receive` is not made, uvicorn
stops reading, and the client's TCP window closes: a slow disk costs no memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from planish.contract.errors import InvalidParameter, TooLarge
from planish.store.blobs import Upload

OUTSTANDING = 1 << 20
PIECE = 256 << 10
FIRST_BYTES = 64 << 10

Buffer = bytes | memoryview


class Sink(Protocol):
    """Takes bytes in the writer thread."""

    def write(self, data: Buffer) -> None:
        """Take all of `data`."""


class HashSink:
    """Only the digest of what goes through."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: Buffer) -> None:
        """Add `data` to the digest."""
        self._hash.update(data)

    @property
    def sha256(self) -> str:
        """Hex digest of everything so far."""
        return self._hash.hexdigest()


class FileSink(HashSink):
    """A file of the store on its way in, with its digest and size."""

    def __init__(self, upload: Upload) -> None:
        super().__init__()
        self.upload = upload
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append `data` to the file; raises OSError when the disk is full."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.upload.fd, rest[:PIECE]) :]
        self.size += len(data)
        super().write(data)


class EndSink:
    """Closes a file behind its last byte, so that a form of many files holds few open ones."""

    def __init__(self, file: FileSink) -> None:
        self._file = file

    def write(self, data: Buffer) -> None:
        """Close the file; `data` is empty."""
        self._file.upload.close()


@dataclass(frozen=True)
class Received:
    """A file that has arrived whole and is not yet kept."""

    upload: Upload
    sha256: str
    size: int
    name: str | None = None


class Writer:
    """One thread that empties a bounded queue into sinks.

    `_put` is only changed by the event loop and `_done` only by the thread: no lock is needed.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Sink, Buffer] | None] = queue.SimpleQueue()
        self._room = asyncio.Event()
        self._waiting = self._abandoned = False
        self._put = self._done = 0
        self._error: BaseException | None = None
        self._thread = self._loop.run_in_executor(pool, self._work)

    async def put(self, sink: Sink, data: Buffer) -> None:
        """Queue `data`; wait while too much is outstanding.

        Raises:
            OSError: an earlier write failed.
        """
        self._queue.put((sink, data))
        self._put += len(data)
        if self._put - self._done > OUTSTANDING:
            self._room.clear()
            self._waiting = True
            if self._put - self._done > OUTSTANDING // 2 and self._error is None:
                await self._room.wait()
            self._waiting = False
        if self._error is not None:
            raise self._error

    async def finish(self) -> None:
        """Wait until everything is written; raises OSError when something was not."""
        self._queue.put(None)
        await asyncio.shield(self._thread)
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        """Drop what is queued and wait until the thread lets go of the files."""
        self._abandoned = True
        self._queue.put(None)
        await asyncio.shield(self._thread)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            sink, data = item
            if self._error is None and not self._abandoned:
                try:
                    sink.write(data)
                except BaseException as error:  # handed to the event loop as it is
                    self._error = error
            self._done += len(data)
            if self._waiting and (self._error or self._put - self._done <= OUTSTANDING // 2):
                self._waiting = False
                self._loop.call_soon_threadsafe(self._room.set)


def check_length(content_length: str | None, limit: int) -> None:
    """Refuse a body by its announced length, before any of it is read.

    Raises:
        TooLarge: above `limit`.
        InvalidParameter: not a number.
    """
    if content_length is None:
        return
    if not (content_length.isascii() and content_length.isdigit()):
        raise InvalidParameter(f"Content-Length: not a number: {content_length[:50]!r}")
    if int(content_length) > limit:
        raise TooLarge(f"the body has {content_length} bytes; at most {limit} are taken")


async def chunks(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Raises:
        TooLarge: more than `limit` bytes came.
        ClientDisconnect: the client left before the end.
    """
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        received += len(body)
        if received > limit:
            raise TooLarge(f"the body is larger than the {limit} bytes that are taken")
        if body:
            yield body
        if not message.get("more_body", False):
            return


async def begun(receive: Receive) -> Receive:
    """Wait for the first bytes of a body; return a `receive` that gives them, then the others.

    Whoever is to hold a place among the uploads must have begun: a client that drips bytes is cut
    off before it has sent so many. They stay in memory, `FIRST_BYTES` for each connection.

    Raises:
        ClientDisconnect: the client left, or was cut off, before that.
    """
    messages: deque[Message] = deque()
    size = 0
    while size < FIRST_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        messages.append(message)
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return again


async def small_body(receive: Receive, limit: int) -> bytes:
    """Return a body that fits into memory; raises as `chunks`."""
    return b"".join([chunk async for chunk in chunks(receive, limit)])


async def write_body(receive: Receive, limit: int, sink: Sink, pool: ThreadPoolExecutor) -> None:
    """Write a whole body into one sink; raises as `chunks`, or OSError."""
    writer = Writer(pool)
    try:
        async for chunk in chunks(receive, limit):
            await writer.put(sink, chunk)
        await writer.finish()
    finally:
        await writer.stop()
