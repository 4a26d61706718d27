"""Progress on both sides of the pipe: the engine's listener in the child, the estimate outside."""

from __future__ import annotations

import os
import threading
import time

from pydantic import JsonValue, ValidationError

from planish.contract.job import EventType, Progress
from worker.exchange import MESSAGE, EventMessage, Message, StageMessage, UpdateMessage

MAX_LINE = 1 << 20
MAX_MESSAGE = 500
UPDATE_SECONDS = 0.05
SHOWN_FROM = 0.02  # an estimate from less than this share of a stage would be noise


class ChannelProgress:
    """The engine's `Progress` in a job's process: JSON lines into a pipe.

    Updates closer than `UPDATE_SECONDS` to the last one are dropped; stages and events never are.
    When nobody reads any more, the writes are given up: the supervisor decides what that means.
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._last = 0.0

    def stage(self, name: str, step: int, steps: int) -> None:
        """Say that stage `step` (from 1) of `steps` begins."""
        self._send(StageMessage(name=name, step=step, steps=steps))

    def update(self, fraction: float, message: str) -> None:
        """Say how much of the current stage is done, 0 to 1."""
        now = time.monotonic()
        if now - self._last >= UPDATE_SECONDS:
            self._last = now
            share = min(max(fraction, 0.0), 1.0)
            self._send(UpdateMessage(fraction=share, message=message[:MAX_MESSAGE]))

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Pass on something worth keeping."""
        self._send(EventMessage.model_validate({"type": kind, "data": data}))

    def _send(self, message: Message) -> None:
        rest = memoryview(message.model_dump_json().encode() + b"\n")
        with self._lock:
            try:
                while rest:
                    rest = rest[os.write(self._channel, rest) :]
            except BrokenPipeError:
                return


class Inbox:
    """The supervisor's end of the pipe: bytes in, messages out.

    Attributes:
        closed: nobody can write into the pipe any more.
        taken: bytes read so far.
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._rest = b""
        self.closed = False
        self.taken = 0

    def receive(self) -> list[Message]:
        """Return the messages that have come, without waiting; a malformed line is skipped."""
        try:
            chunk = os.read(self._channel, MAX_LINE)
        except BlockingIOError:
            return []
        self.closed = not chunk
        self.taken += len(chunk)
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest if len(rest) <= MAX_LINE else b""
        return [message for line in lines if (message := _parse(line)) is not None]


class Tracker:
    """From a child's messages to the job's `Progress`: the whole job's fraction, and when it ends.

    Stages differ in length, so the estimate takes the current stage at its own pace and each later
    one at the mean of those that are over.
    """

    def __init__(self) -> None:
        self._stage = StageMessage(name="starting", step=0, steps=0)
        self._update = UpdateMessage(fraction=0.0, message="")
        self._began = time.monotonic()
        self._stage_began = self._began

    def take(self, message: StageMessage | UpdateMessage) -> None:
        """Take a message into account."""
        if isinstance(message, UpdateMessage):
            self._update = message
            return
        self._stage = message
        self._update = UpdateMessage(fraction=0.0, message="")
        self._stage_began = time.monotonic()

    def progress(self) -> Progress:
        """Return where the job stands now."""
        stage, part = self._stage, self._update.fraction
        done = (stage.step - 1 + part) / stage.steps if stage.steps and stage.step else 0.0
        return Progress(
            stage=stage.name,
            step=stage.step,
            steps=stage.steps,
            fraction=round(min(max(done, 0.0), 1.0), 4),
            eta_seconds=self._eta(),
            message=self._update.message,
        )

    def _eta(self) -> float | None:
        stage, part = self._stage, self._update.fraction
        if part < SHOWN_FROM or not stage.steps:
            return None
        now = time.monotonic()
        this = (now - self._stage_began) / part
        over = stage.step - 1
        mean = (self._stage_began - self._began + this) / (over + 1)
        return round(this * (1 - part) + mean * (stage.steps - stage.step), 1)


def _parse(line: bytes) -> Message | None:
    try:
        return MESSAGE.validate_json(line)
    except ValidationError:
        return None
