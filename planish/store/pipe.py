"""One auto-pipelined Redis connection for hot reads.

All reads of one turn of the event loop leave in one write, and replies are matched in order:
redis-py's own asyncio client costs several times a bare HTTP route, this costs next to nothing.
Reads only; nothing is retried. A lost connection fails what is under way, the next read connects.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import cast

import hiredis

from planish.contract.wire import DEFAULT_TENANT
from planish.store.connection import CONNECT_SECONDS, REPLY_SECONDS, Address
from planish.store.scripts import job_key

Reply = bytes | int | None | list["Reply"]


class Pipe:
    """Reads Job documents; belongs to one event loop."""

    def __init__(self, url: str) -> None:
        """Remember where Redis is; see `Address.parse` for the forms of `url`."""
        self._address = Address.parse(url)
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()

    async def document(self, job_id: str) -> bytes | None:
        """Return the Job document as ready JSON, None when the job is unknown.

        Raises:
            ConnectionError: Redis is away, or did not answer in time.
        """
        reply = await self.read(b"HGET", job_key(job_id).encode(), b"doc")
        return reply if isinstance(reply, bytes) else None

    async def owned(self, job_id: str) -> tuple[bytes, str] | None:
        """Return the Job document and its tenant, None when the job is unknown."""
        reply = await self.read(b"HMGET", job_key(job_id).encode(), b"doc", b"tenant")
        if not isinstance(reply, list) or not isinstance(reply[0], bytes):
            return None
        return reply[0], reply[1].decode() if isinstance(reply[1], bytes) else DEFAULT_TENANT

    async def snapshot(self, job_id: str) -> tuple[bytes, int] | None:
        """Return the Job document and the id of the last event that it reflects."""
        reply = await self.read(b"HMGET", job_key(job_id).encode(), b"doc", b"events")
        if not isinstance(reply, list) or not isinstance(reply[0], bytes):
            return None
        last = reply[1]
        return reply[0], int(last) if isinstance(last, bytes) else 0

    async def ping(self) -> bool:
        """Say whether Redis answers."""
        try:
            return await self.read(b"PING") == b"PONG"
        except ConnectionError:
            return False

    async def read(self, *command: bytes) -> Reply:
        """Send a command that does not block and return its reply.

        Raises:
            ConnectionError: Redis is away, did not answer in time, or refused (while it loads).
        """
        wire = self._wire
        if wire is None or not wire.alive:
            wire = await self._connect()
        return await wire.call(command)

    def close(self) -> None:
        """Drop the connection."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _connect(self) -> _Wire:
        async with self._connecting:
            if self._wire is not None and self._wire.alive:
                return self._wire
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    wire = await self._open()
                    await self._greet(wire)
            except OSError as error:
                raise ConnectionError(f"Redis cannot be reached: {error}") from error
            self._wire = wire
            return wire

    async def _open(self) -> _Wire:
        loop, address = asyncio.get_running_loop(), self._address
        if address.path is not None:
            _, wire = await loop.create_unix_connection(lambda: _Wire(loop), address.path)
            return wire
        context = ssl.create_default_context() if address.tls else None
        _, wire = await loop.create_connection(
            lambda: _Wire(loop), address.host, address.port, ssl=context
        )
        return wire

    async def _greet(self, wire: _Wire) -> None:
        if self._address.password is not None:
            user = [self._address.username.encode()] if self._address.username else []
            await wire.call((b"AUTH", *user, self._address.password.encode()))
        if self._address.db:
            await wire.call((b"SELECT", b"%d" % self._address.db))


class _Wire(asyncio.Protocol):
    """The protocol of one connection: a queue of replies to come, in the order of the commands."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._answered = 0
        self._watch: asyncio.TimerHandle | None = None
        self.alive = False

    async def call(self, command: tuple[bytes, ...]) -> Reply:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection to Redis is lost")
        future: asyncio.Future[Reply] = self._loop.create_future()
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(command))
        self._waiting.append(future)
        if self._watch is None:
            self._watch_over(self._answered)
        return await future

    def close(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's
        self._transport = cast("asyncio.Transport", transport)
        self.alive = True

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._answered += 1
            future = self._waiting.popleft()
            if future.done():  # whoever asked was cancelled
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(ConnectionError(f"Redis refuses: {reply}"))
            else:
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._unsent.clear()
        if self._watch is not None:
            self._watch.cancel()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionError("the connection to Redis is lost"))

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and unsent:
            self._transport.write(b"".join(unsent))

    def _watch_over(self, answered: int) -> None:
        """Cut the connection when no reply comes in `REPLY_SECONDS`; one timer for all reads."""
        self._watch = self._loop.call_later(REPLY_SECONDS, self._look, answered)

    def _look(self, answered: int) -> None:
        self._watch = None
        if not self._waiting:
            return
        if self._answered == answered and self._transport is not None:
            self._transport.abort()
        else:
            self._watch_over(self._answered)
