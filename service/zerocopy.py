"""Files to sockets without copies: ASGI's ``http.response.zerocopysend`` over sendfile(2).

The message carries ``file`` (an object with `fileno`), ``offset`` and ``count``. Pages that are not
in the page cache are read by a thread first, so a cold disk never stops the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Message
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

EXTENSION = "http.response.zerocopysend"
WINDOW = 4 << 20
SAMPLE = 512 << 10
STALL_SECONDS = 60.0


async def send_file(cycle: RequestResponseCycle, message: Message) -> None:
    """Send ``count`` bytes of a file as (a part of) the response body.

    A client that is gone or reads nothing for a minute ends the connection; that is no error here,
    as with every other ASGI send.
    """
    file = message["file"].fileno()
    offset = int(message["offset"])
    end = offset + int(message["count"])
    if cycle.disconnected or cycle.transport.is_closing():
        return
    socket = os.dup(cycle.transport.get_extra_info("socket").fileno())
    try:
        await _flushed(cycle)
        while offset < end:
            edge = min(offset + WINDOW, end)
            await _load(file, offset, edge)
            await _Window(socket, file, offset, edge).sent()
            offset = edge
        cycle.expected_content_length -= int(message["count"])
    except (ConnectionError, TimeoutError):
        cycle.transport.abort()
        cycle.disconnected = True
    finally:
        os.close(socket)


async def _flushed(cycle: RequestResponseCycle) -> None:
    """Wait until the transport has sent the head: sendfile writes behind its back."""
    # a transport has no event for an empty buffer
    while cycle.transport.get_write_buffer_size() and not cycle.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    if cycle.transport.is_closing():
        raise ConnectionResetError


async def _load(file: int, start: int, end: int) -> None:
    """Bring a window into the page cache, unless it is there."""
    if not _cached(file, start, end):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, os.pread, file, end - start, start)


def _cached(file: int, start: int, end: int) -> bool:
    """Tell whether samples of a window, its last byte among them, are in the page cache."""
    try:
        for position in (*range(start, end, SAMPLE), end - 1):
            os.preadv(file, [bytearray(1)], position, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system that cannot tell
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return True


class _Window:
    """A window on its way: the socket's readiness drives it, one future ends it.

    The writer stays registered for the whole window. Waiting anew for each few hundred KiB that a
    socket takes costs a fifth of the throughput of one fast client.
    """

    def __init__(self, socket: int, file: int, start: int, end: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket, self._file = socket, file
        self._offset, self._end = start, end
        self._seen = start
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def sent(self) -> None:
        """Return when all of it is sent; raises what sendfile raises, and TimeoutError."""
        self._step()
        if self._done.done():
            return self._done.result()
        self._loop.add_writer(self._socket, self._step)
        self._watch = self._loop.call_later(STALL_SECONDS, self._check)
        try:
            await self._done
        finally:
            self._watch.cancel()
            self._loop.remove_writer(self._socket)

    def _step(self) -> None:
        if self._done.done():
            return
        try:
            sent = os.sendfile(self._socket, self._file, self._offset, self._end - self._offset)
        except BlockingIOError:
            return
        except OSError as error:
            self._done.set_exception(error)
            return
        if sent == 0:
            self._done.set_exception(ConnectionAbortedError("the file became shorter"))
            return
        self._offset += sent
        if self._offset >= self._end:
            self._done.set_result(None)

    def _check(self) -> None:
        """End a window in which nothing moved since the last look."""
        if self._done.done():
            return
        if self._offset == self._seen:
            self._done.set_exception(TimeoutError())
            return
        self._seen = self._offset
        self._watch = self._loop.call_later(STALL_SECONDS, self._check)
