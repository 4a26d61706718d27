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
        loaded = offset
        while offset < end:
            if offset >= loaded:
                loaded = min(offset + WINDOW, end)
                await _load(file, offset, loaded)
            offset += await _send_some(socket, file, offset, loaded - offset)
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


async def _send_some(socket: int, file: int, offset: int, count: int) -> int:
    """Send what the socket takes; when that is not all, wait until it takes more."""
    try:
        sent = os.sendfile(socket, file, offset, count)
    except BlockingIOError:
        sent = 0
    else:
        if sent == 0:
            raise ConnectionAbortedError("the file became shorter while it was sent")
    if sent < count:
        await _writable(socket)
    return sent


async def _writable(socket: int) -> None:
    """Wait until the socket takes more; raises TimeoutError.

    Once for each few hundred KiB, so without `asyncio.wait_for`, which costs more than the copy.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(socket, _set, ready)
    deadline = loop.call_later(STALL_SECONDS, _expire, ready)
    try:
        await ready
    finally:
        deadline.cancel()
        loop.remove_writer(socket)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _expire(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_exception(TimeoutError())
