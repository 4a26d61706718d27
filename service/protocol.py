"""uvicorn's httptools protocol with the limits that uvicorn lacks, and zero-copy sends.

What it adds to each connection:

* a deadline for the request head, a minimum rate for the body, a size limit for the head (431),
  a number of connections per address;
* after an early answer (413, 422, 401 …) the rest of the body is read and thrown away for a while,
  so that the client gets to see the answer instead of a reset connection;
* answers to bytes that are not HTTP are problem+json like all others;
* the ASGI extension ``http.response.zerocopysend``, see `service.zerocopy`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from planish.contract.problem import PROBLEM_MEDIA_TYPE, Problem
from service.request_id import new_request_id, response_headers
from service.zerocopy import EXTENSION, send_file

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn._types import ASGISendEvent, HTTPResponseBodyEvent

SWEEP_SECONDS = 0.5


@dataclass(frozen=True)
class Limits:
    """What one connection may take.

    Attributes:
        head_seconds: from the first byte (or the connection) to the end of the request head.
        head_bytes: size of a request head.
        body_window_seconds: length of the windows over which the body's rate is looked at.
        body_bytes_per_second: least rate; time in which the server itself was not reading is free.
        linger_seconds: how long the rest of a body is read after an early answer; its least rate is
            the body's.
        per_address: connections from one address at the same time.
    """

    head_seconds: float = 10.0
    head_bytes: int = 32 << 10
    body_window_seconds: float = 10.0
    body_bytes_per_second: int = 4 << 10
    linger_seconds: float = 30.0
    per_address: int = 1024


class Phase(Enum):
    """What a connection is waiting for."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    LINGER = 3


class HeadTooLargeError(ValueError):
    """Raised inside a parser callback; httptools turns it into a parser error."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Use `guarded_protocol` to make a class with limits of its own."""

    limits: ClassVar[Limits] = Limits()
    per_address: ClassVar[Counter[str]] = Counter()
    sweeping: ClassVar[bool] = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection against its address and start the head's clock."""
        self._phase = Phase.HEAD
        self._since = self.loop.time()
        self._head_bytes = self._received = 0
        self._linger_close = False
        super().connection_made(transport)
        self._address = self.client[0] if self.client else "unix"
        self.per_address[self._address] += 1
        if self.per_address[self._address] > self.limits.per_address:
            transport.abort()
        type(self)._start_sweeping(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the address its connection back."""
        self.per_address[self._address] -= 1
        if self.per_address[self._address] <= 0:
            del self.per_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse a head that grows over the limit before it is complete."""
        if self._phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        if self._phase is Phase.HEAD:
            self._head_bytes += len(data)
            super().data_received(data)
            if self._phase is Phase.HEAD and self._head_bytes > self.limits.head_bytes:
                self._refuse_head()
        else:
            super().data_received(data)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self.loop.time()
        self._head_bytes = self._received = 0

    # Parser callbacks

    def on_message_begin(self) -> None:
        """Start the next request of this connection."""
        self._field_bytes = 0
        if self._phase is not Phase.HEAD:
            self._enter(Phase.HEAD)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the target against the head's limit: a head in one packet is complete at once."""
        self._field_bytes += len(url)
        if self._field_bytes > self.limits.head_bytes:
            raise HeadTooLargeError
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field against the head's limit."""
        self._field_bytes += len(name) + len(value) + 4
        if self._field_bytes > self.limits.head_bytes:
            raise HeadTooLargeError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the head's clock, start the body's."""
        self._enter(Phase.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count body bytes; after an early answer they are thrown away by the base class."""
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is here."""
        if self._linger_close:
            self.transport.close()
        self._phase = Phase.IDLE
        super().on_message_complete()

    # The application's side

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        """Run the application with a cycle that knows the extension and early answers."""
        cycle.__class__ = GuardedCycle
        cycle.protocol = self  # type: ignore[attr-defined]
        if self.scheme == "http":
            cycle.scope["extensions"] = {EXTENSION: {}}
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def linger(self, cycle: RequestResponseCycle) -> None:
        """Go on reading (and dropping) the rest of a body that an early answer made useless."""
        if cycle is self.cycle and self._phase is Phase.BODY:
            self._linger_close = not cycle.keep_alive
            self._answered = self.loop.time()
            cycle.keep_alive = True  # the base class would close, and the close would be a reset
            self._enter(Phase.LINGER)

    # Deadlines

    @classmethod
    def _start_sweeping(cls, connection: GuardedProtocol) -> None:
        if not cls.sweeping:
            cls.sweeping = True
            connection.loop.call_later(SWEEP_SECONDS, cls._sweep, connection)

    @classmethod
    def _sweep(cls, connection: GuardedProtocol) -> None:
        """Look at all connections of the server; one timer instead of two for each request."""
        now = connection.loop.time()
        mine = [c for c in connection.server_state.connections if isinstance(c, cls)]
        for each in mine:
            each.check_deadline(now)
        cls.sweeping = bool(mine)
        if mine:
            connection.loop.call_later(SWEEP_SECONDS, cls._sweep, connection)

    def check_deadline(self, now: float) -> None:
        """Close the connection when its client is too slow."""
        waited = now - self._since
        if self.transport.is_closing() or self._phase is Phase.IDLE:
            return
        if self._phase is Phase.HEAD and waited > self.limits.head_seconds:
            self._late()
        elif self._phase is Phase.LINGER and now - self._answered > self.limits.linger_seconds:
            self.transport.abort()
        elif self._phase is not Phase.HEAD and waited > self.limits.body_window_seconds:
            if (
                self.flow.read_paused
                or self._received >= self.limits.body_bytes_per_second * waited
            ):
                self._since, self._received = now, 0
            elif self._phase is Phase.LINGER:
                self.transport.abort()
            else:
                self._late()

    def _late(self) -> None:
        if (
            self.cycle is not None
            and self.cycle.response_started
            and not self.cycle.response_complete
        ):
            self.transport.abort()
        else:
            self._answer(408, "request_timeout", "The request came too slowly", "send it faster")

    # Answers without the application

    def _refuse_head(self) -> None:
        detail = f"the request line and headers may have {self.limits.head_bytes} bytes"
        self._answer(431, "request_head_too_large", "The request head is too large", detail)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that the parser refuses."""
        if self._field_bytes > self.limits.head_bytes:
            self._refuse_head()
        else:
            self._answer(
                400, "malformed_request", "The request is malformed", "this is not HTTP/1.1"
            )

    def _answer(self, status: int, code: str, title: str, detail: str) -> None:
        request_id = new_request_id().decode()
        problem = Problem(
            code=code, title=title, status=status, detail=detail, request_id=request_id
        )
        body = problem.model_dump_json(exclude_none=True).encode()
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\ncache-control: no-store\r\n"
        ).encode()
        more = b"".join(b"%s: %s\r\n" % header for header in response_headers(request_id.encode()))
        if not self.transport.is_closing():
            self.transport.write(head + more + b"\r\n" + body)
            self.transport.close()

    _field_bytes = 0


class GuardedCycle(RequestResponseCycle):
    """One request and its response; uvicorn makes it, `GuardedProtocol` gives it this class."""

    protocol: GuardedProtocol

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message of the application."""
        if message["type"] == EXTENSION:
            await send_file(self, dict(message))
            message = _body_event(bool(message.get("more_body")))
        if (
            self.more_body
            and message["type"] == "http.response.body"
            and not message.get("more_body")
        ):
            self.protocol.linger(self)
        await super().send(message)


def _body_event(more_body: bool) -> HTTPResponseBodyEvent:
    return {"type": "http.response.body", "body": b"", "more_body": more_body}


def guarded_protocol(limits: Limits) -> type[GuardedProtocol]:
    """Return a protocol class with these limits and counters of its own, for ``uvicorn.Config``."""
    members = {"limits": limits, "per_address": Counter(), "sweeping": False}
    return type("LimitedProtocol", (GuardedProtocol,), members)
