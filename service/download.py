"""Sends a file: the ETag is its sha256, ranges work, 304 comes before the file is opened."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from planish.contract.errors import NotFound, RangeNotSatisfiable
from service.conditional import matches
from service.digest import repr_digest
from service.errors import problem_response
from service.zerocopy import EXTENSION

CHUNK = 1 << 20
_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$", re.ASCII)


@dataclass(frozen=True)
class Content:
    """A file as the outside sees it.

    Attributes:
        path: where it lies.
        name: what it is called when saved.
        size: in bytes.
        sha256: hex digest of the content.
        media_type: for ``Content-Type``.
    """

    path: Path
    name: str
    size: int
    sha256: str
    media_type: str


class Download(Response):
    """The response to ``GET`` or ``HEAD`` of a file.

    Several ranges in one request are answered with the whole file, as RFC 9110 allows.
    """

    def __init__(self, content: Content, disposition: str = "attachment") -> None:
        self.content = content
        self.status_code = 200
        self.background = None
        self.etag = f'"{content.sha256}"'
        self.init_headers(
            {
                "content-type": content.media_type,
                "content-disposition": f"{disposition}; {_filename(content.name)}",
                "etag": self.etag,
                "repr-digest": repr_digest(content.sha256),
                "accept-ranges": "bytes",
                "cache-control": "private, no-cache",
                "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
            }
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer: 200, 206, 304 or 416."""
        asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if (known := asked.get(b"if-none-match")) and matches(known.encode(), self.etag.encode()):
            self.status_code = 304
            del self.headers["content-type"]
            await self._send_head(send, last=True)
            return
        try:
            start, end = self._window(asked.get(b"range"), asked.get(b"if-range"))
        except RangeNotSatisfiable as error:
            headers = {"content-range": f"bytes */{self.content.size}"}
            await problem_response(error, scope, headers)(scope, receive, send)
            return
        self.headers["content-length"] = str(end - start)
        if (start, end) != (0, self.content.size) or self.status_code == 206:
            self.headers["content-range"] = f"bytes {start}-{end - 1}/{self.content.size}"
        if scope["method"] == "HEAD":
            await self._send_head(send, last=True)
        else:
            await self._send_window(scope, receive, send, start, end)

    def _window(self, wanted: str | None, if_range: str | None) -> tuple[int, int]:
        """Return the (start, end) to send; a range that is not understood is ignored."""
        size = self.content.size
        match = _RANGE.match(wanted.replace(" ", "")) if wanted else None
        if match is None or not (match[1] or match[2]) or if_range not in (None, self.etag):
            return 0, size
        if match[1]:
            start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        else:
            start, end = max(size - int(match[2]), 0), size
        if match[1] and match[2] and int(match[2]) < int(match[1]):
            return 0, size
        if start >= end:
            raise RangeNotSatisfiable(f"the file has {size} bytes; {wanted!r:.100} lies outside")
        self.status_code = 206
        return start, end

    async def _send_head(self, send: Send, *, last: bool) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        if last:
            await send({"type": "http.response.body", "body": b""})

    async def _send_window(
        self, scope: Scope, receive: Receive, send: Send, start: int, end: int
    ) -> None:
        try:
            file = await asyncio.to_thread(FileIO, self.content.path)
        except FileNotFoundError:
            error = NotFound(f"the file {self.content.name!r} is gone")
            await problem_response(error, scope)(scope, receive, send)
            return
        with file:
            if EXTENSION in scope.get("extensions", {}) and start < end:
                await self._send_head(send, last=False)
                window = {"file": file, "offset": start, "count": end - start}
                await send({"type": EXTENSION, **window, "more_body": False})
            else:
                pieces = _pieces(file, start, end)
                streamed = StreamingResponse(pieces, self.status_code, self.headers)
                await streamed(scope, receive, send)


async def _pieces(file: FileIO, start: int, end: int) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, start)
    while start < end:
        piece = await asyncio.to_thread(file.read, min(CHUNK, end - start))
        if not piece:
            return
        start += len(piece)
        yield piece


def _filename(name: str) -> str:
    """Return the filename parameter of RFC 6266; names of other alphabets in the extended form."""
    if re.fullmatch(r"[A-Za-z0-9._ -]+", name):
        return f'filename="{name}"'
    return f"filename*=UTF-8''{quote(name, safe='')}"
