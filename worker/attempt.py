"""One attempt at a job, watched: its lease is kept, its words passed on, its limits enforced."""

from __future__ import annotations

import logging
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

import redis

from planish.contract.job import Progress
from planish.store.jobs import Claim, Ledger
from worker.exchange import EventMessage, StageMessage
from worker.launcher import Child
from worker.lifeline import Lifeline
from worker.progress import Inbox, Tracker

log = logging.getLogger(__name__)

T = TypeVar("T")

BEAT_SECONDS = 1.0
UPDATE_SECONDS = 0.25
GRACE_SECONDS = 0.5
KILL_SECONDS = 10.0
AGAIN_SECONDS = 0.2


class End(Enum):
    """Why an attempt ends before its work does."""

    FENCED = "the job was given to another worker"
    CANCELLED = "somebody asked for a cancel"
    OVERDUE = "resources.run_seconds are over"
    STOPPING = "the worker stops"
    FLOODED = "it writes more than it may"


class Interrupted(Exception):
    """The attempt must end now."""

    def __init__(self, end: End) -> None:
        super().__init__(end.value)
        self.end = end


class Lease:
    """The hold on a job. Every beat extends it; when Redis is away, it ends by this clock.

    Args:
        ledger: where it is kept.
        claim: the hold.
        lease_ms: how long it lasts after a beat.
    """

    def __init__(self, ledger: Ledger, claim: Claim, lease_ms: int) -> None:
        self._ledger = ledger
        self._claim = claim
        self._lease_ms = lease_ms
        self._kept = self._tried = time.monotonic()
        self._every = min(BEAT_SECONDS, lease_ms / 3000)

    @property
    def due(self) -> float:
        """Seconds until the next beat; not above 0 when it is time."""
        return self._tried + self._every - time.monotonic()

    @property
    def over(self) -> bool:
        """Whether it has run out, as far as is known here."""
        return time.monotonic() - self._kept > self._lease_ms / 1000

    def ask(self, call: Callable[[], T]) -> T:
        """Call the ledger, again and again while Redis is away.

        Raises:
            Interrupted: the lease has run out meanwhile.
        """
        while True:
            try:
                return call()
            except redis.RedisError as error:
                log.warning("no answer", extra={"job": self._claim.job_id, "reason": str(error)})
                if self.over:
                    raise Interrupted(End.FENCED) from None
                time.sleep(AGAIN_SECONDS)

    def tick(self) -> None:
        """Beat if it is time to; raises like `beat`."""
        if self.due <= 0:
            self.beat(None)

    def beat(self, progress: Progress | None) -> bool:
        """Extend the lease, and show `progress`.

        Returns:
            False when Redis did not answer, so that the progress is not shown yet.

        Raises:
            Interrupted: the job is no longer ours, or is to be cancelled.
        """
        self._tried = time.monotonic()
        claim = self._claim
        try:
            answer = self._ledger.beat(claim.job_id, claim.fence, self._lease_ms, progress)
        except redis.RedisError as error:
            log.warning("no beat", extra={"job": claim.job_id, "reason": str(error)})
            if self.over:
                raise Interrupted(End.FENCED) from None
            return False
        self._kept = self._tried
        if answer == "fenced":
            raise Interrupted(End.FENCED)
        if answer == "cancel":
            raise Interrupted(End.CANCELLED)
        return True


class Attempt:
    """Watches one child from its start to its end.

    Args:
        ledger: told about events.
        claim: whose attempt this is.
        lease: kept while watching.
        child: the process that works.
        lifeline: says when the worker stops.
        run_seconds: how long the child may run.
        look: called about every second; may raise `Interrupted`.
    """

    def __init__(
        self,
        ledger: Ledger,
        claim: Claim,
        lease: Lease,
        child: Child,
        lifeline: Lifeline,
        run_seconds: float,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._claim = claim
        self._lease = lease
        self._child = child
        self._lifeline = lifeline
        self._deadline = time.monotonic() + run_seconds
        self._look = look
        self._inbox = Inbox(child.channel)
        self._tracker = Tracker()
        self._events: deque[EventMessage] = deque()
        self._changed = self._urgent = False
        self._shown = 0.0

    @property
    def stage(self) -> str:
        """Name of the stage that the child is in, or was in at its end."""
        return self._tracker.progress().stage

    def watch(self) -> int:
        """Return the child's exit code when it ends by itself; negative: by that signal.

        Raises:
            Interrupted: it had to end, and is dead with everything that it started.
        """
        try:
            while (code := self._child.poll()) is None:
                self._check()
                self._show()
                self._wait()
                self._listen()
            self._drain()
            return code
        finally:
            self._end()

    def _check(self) -> None:
        if self._lifeline.broken:
            raise Interrupted(End.STOPPING)
        if time.monotonic() >= self._deadline:
            raise Interrupted(End.OVERDUE)
        self._look()

    def _show(self) -> None:
        """Beat when it is time, or when there is something new to show."""
        since = time.monotonic() - self._shown
        if self._urgent or (self._changed and since >= UPDATE_SECONDS):
            self._changed = not self._lease.beat(self._tracker.progress())
            self._urgent = False
            self._shown = time.monotonic()
        else:
            self._lease.tick()

    def _wait(self) -> None:
        """Sleep until the child ends or says something, the worker stops, or a beat is due."""
        until = [self._lease.due, self._deadline - time.monotonic()]
        if self._changed:
            until.append(self._shown + UPDATE_SECONDS - time.monotonic())
        poll = select.poll()
        poll.register(self._child.fileno(), select.POLLIN)
        if self._lifeline.fileno() >= 0:
            poll.register(self._lifeline.fileno(), select.POLLIN)
        if not self._inbox.closed:
            poll.register(self._child.channel, select.POLLIN)
        poll.poll(max(0.0, min(until)) * 1000)

    def _listen(self) -> None:
        for message in self._inbox.receive():
            if isinstance(message, EventMessage):
                self._events.append(message)
                continue
            self._tracker.take(message)
            self._changed = True
            self._urgent |= isinstance(message, StageMessage)
        self._lease.ask(self._pass_events_on)

    def _pass_events_on(self) -> None:
        while self._events:
            event = self._events[0]
            self._ledger.event(self._claim.job_id, self._claim.fence, event.type, event.data)
            self._events.popleft()

    def _drain(self) -> None:
        """Take what the child wrote last; it is dead, so there is an end to it."""
        before = -1
        while not self._inbox.closed and self._inbox.taken != before:
            before = self._inbox.taken
            self._listen()
        if self._changed:
            self._lease.beat(self._tracker.progress())

    def _end(self) -> None:
        """Leave nothing running: ask, then kill."""
        if self._child.poll() is None:
            self._child.signal(signal.SIGTERM)
            if self._child.wait(GRACE_SECONDS) is None:
                self._child.signal(signal.SIGKILL)
                if self._child.wait(KILL_SECONDS) is None:
                    log.error("a child does not die", extra={"child": self._child.pid})
        self._child.close()
