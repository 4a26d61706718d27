"""What both drivers share: where the server is, and how httpx's world maps to ours."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import BinaryIO

import httpx

from planish.client.exchange import FileBody, Request
from planish.contract.errors import InvalidParameter, ServerUnreachable

ENV_URL = "PLANISH_URL"
ENV_API_KEY = "PLANISH_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 10.0
UPLOAD_BYTES = 256 << 10
STREAM_HEADERS = {"Accept-Encoding": "identity"}  # pieces are taken as they lie on the wire


class Address:
    """Server URL and headers of a client.

    Args:
        url: server; None takes ``PLANISH_URL``, else ``http://127.0.0.1:8000``.
        api_key: None takes ``PLANISH_API_KEY``; no key is needed on loopback.

    Raises:
        InvalidParameter: not an http(s) URL, or a key that no header can carry.
    """

    def __init__(self, url: str | None, api_key: str | None) -> None:
        text = url or os.environ.get(ENV_URL) or DEFAULT_URL
        key = api_key or os.environ.get(ENV_API_KEY) or None
        self.url = _parsed(text)
        self.headers = {"User-Agent": f"planish/{_version()}"}
        if key is not None:
            if not (key.isascii() and key.isprintable()):
                raise InvalidParameter("the API key holds characters that no header can carry")
            self.headers["Authorization"] = f"Bearer {key.strip()}"

    @property
    def trust_env(self) -> bool:
        """Whether proxy variables count: never for this very machine."""
        return not _is_loopback(self.url.host)


def timeout_of(request: Request) -> httpx.Timeout:
    """Return the time limits of one exchange; none on the whole, only on silence."""
    silence = request.read_seconds
    return httpx.Timeout(connect=CONNECT_SECONDS, read=silence, write=silence, pool=None)


def unreachable(request: Request, url: httpx.URL, error: Exception) -> ServerUnreachable:
    """Return what a transport error means for a caller."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ServerUnreachable(
            f"{url} cannot be reached ({error}); is `planish serve` running there?"
        )
    reason = str(error) or type(error).__name__
    return ServerUnreachable(f"{request.name}: the connection to {url} broke ({reason})")


def query_of(request: Request) -> dict[str, str | list[str]]:
    """Return the query in the form that httpx takes."""
    return {
        key: [str(item) for item in value] if isinstance(value, list) else str(value)
        for key, value in request.params.items()
    }


def pieces(body: FileBody) -> Iterator[bytes]:
    """Read a file body, exactly `size` bytes of it."""
    with body.path.open("rb") as file:
        file.seek(body.start)
        sent = 0
        while piece := file.read(min(UPLOAD_BYTES, body.size - sent)):
            yield piece
            sent += len(piece)
            body.report(sent)


async def pieces_async(body: FileBody) -> AsyncIterator[bytes]:
    """Read a file body in a thread."""
    file: BinaryIO = await asyncio.to_thread(open, body.path, "rb")
    with file:
        file.seek(body.start)
        sent = 0
        while piece := await asyncio.to_thread(file.read, min(UPLOAD_BYTES, body.size - sent)):
            yield piece
            sent += len(piece)
            body.report(sent)


def _parsed(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise InvalidParameter(f"{text!r} is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidParameter(f"{text!r} is not a server's URL; e.g. {DEFAULT_URL}")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _version() -> str:
    try:
        return version("planish")
    except PackageNotFoundError:
        return "0"
