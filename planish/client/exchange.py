"""The client without I/O: flows yield steps and receive answers; a driver performs the steps.

A flow is a generator. It says what to do next (`Send` this request, read a `Chunk`, `Sleep`), and
is resumed with the answer, or has the error thrown into it. All logic (retries, waiting, resuming)
is written once as flows; `planish.client.sync` and `planish.client.asynchronous` only drive them,
as httpx drives its ``auth_flow``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar, cast

import httpx

T = TypeVar("T")

READ_SECONDS = 60.0


@dataclass(frozen=True)
class FileBody:
    """A request body that is streamed from disk.

    Attributes:
        path: the file.
        size: bytes of it to send.
        report: called with the number of bytes sent so far.
        start: the first byte to send.
    """

    path: Path
    size: int
    report: Callable[[int], None]
    start: int = 0


@dataclass(frozen=True)
class Request:
    """What to ask the server.

    Attributes:
        method: HTTP method.
        path: below the server's URL.
        params: query.
        headers: beyond those that every request carries.
        body: bytes, a file, or nothing.
        repeatable: whether sending it twice does no harm; only then it is retried.
        read_seconds: how long the server may be silent.
    """

    method: str
    path: str
    params: Mapping[str, str | int | list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileBody | None = None
    repeatable: bool = True
    read_seconds: float = READ_SECONDS

    @property
    def name(self) -> str:
        """Return the request in words, for messages."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Reply:
    """What the server answered; `content` is empty for an opened stream."""

    status: int
    headers: httpx.Headers
    content: bytes


@dataclass(frozen=True)
class Send:
    """Send a request and read its whole answer: `Reply`."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send a request and read the head of its answer: `Reply`. Replaces an open stream."""

    request: Request


@dataclass(frozen=True)
class Chunk:
    """Read some bytes of the open stream: ``bytes``, empty at its end."""


@dataclass(frozen=True)
class Drain:
    """Read all that is left of the open stream: ``bytes``."""


@dataclass(frozen=True)
class Sleep:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Work(Generic[T]):
    """Call a function that blocks (disk, hashing); its result is the answer."""

    function: Callable[[], T]


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hand a value to whoever iterates over the flow."""

    value: T


Step = Send | Open | Chunk | Drain | Sleep | Work[object] | Emit[object]
Flow = Generator[Step, object, T]


class Running(Generic[T]):
    """A flow on its way.

    Attributes:
        step: what to do next; None when the flow is over.
    """

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self._result: list[T] = []
        self.step: Step | None = None
        self._advance(lambda: next(flow))

    @property
    def result(self) -> T:
        """What the flow returned, once it is over."""
        return self._result[0]

    def answer(self, value: object) -> None:
        """Resume the flow with the answer to its step."""
        self._advance(lambda: self._flow.send(value))

    def fail(self, error: Exception) -> None:
        """Resume the flow with the error that its step met."""
        self._advance(lambda: self._flow.throw(error))

    def close(self) -> None:
        """Let the flow clean up, wherever it is."""
        self._flow.close()

    def _advance(self, resume: Callable[[], Step]) -> None:
        try:
            self.step = resume()
        except StopIteration as stop:
            self.step = None
            self._result.append(stop.value)


def send(request: Request) -> Flow[Reply]:
    """Yield one request; raises `ServerUnreachable` when there is no answer."""
    return cast("Reply", (yield Send(request)))


def open_stream(request: Request) -> Flow[Reply]:
    """Yield one request whose answer is read piece by piece."""
    return cast("Reply", (yield Open(request)))


def read_chunk() -> Flow[bytes]:
    """Read some bytes of the open stream."""
    return cast("bytes", (yield Chunk()))


def drain() -> Flow[bytes]:
    """Read the rest of the open stream."""
    return cast("bytes", (yield Drain()))


def sleep(seconds: float) -> Flow[None]:
    """Wait."""
    yield Sleep(seconds)


def work(function: Callable[[], T]) -> Flow[T]:
    """Do something that blocks."""
    return cast("T", (yield Work(function)))


def emit(value: object) -> Flow[None]:
    """Hand a value out."""
    yield Emit(value)
