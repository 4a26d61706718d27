"""Messages about finished jobs that are still to be delivered, and the log of their deliveries.

The ledger notes that a job with a webhook is finished (``planish:webhooks``, due times in ms); what
was tried lies in ``jobs/<id>/deliveries.jsonl``. A message is taken for a while and then due again,
so that a sender that dies delays it at most by that while; it may then arrive twice, under one id.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import redis
from pydantic import BaseModel, ConfigDict

from planish.store.job_files import JobFiles
from planish.store.scripts import PREFIX, Scripts

LOG = "deliveries.jsonl"
TAKEN_MS = 60_000
RETRY_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400)
"""Pauses after each failure, about 32 hours together (the schedule of Standard Webhooks)."""
_KEY = f"{PREFIX}webhooks"


class Delivery(BaseModel):
    """One try: the status that came back, or why nothing did."""

    model_config = ConfigDict(frozen=True)

    time: datetime
    attempt: int
    delivered: bool
    status: int | None = None
    error: str | None = None


class Outbox:
    """What is due, and what became of it."""

    def __init__(self, client: redis.Redis, files: JobFiles) -> None:
        self._redis, self._files = client, files
        self._run = Scripts(client)

    def due(self, limit: int = 20) -> list[str]:
        """Take the jobs whose message is due; each is due again after a minute."""
        found = self._run("due", "webhooks", limit, TAKEN_MS)
        return [job_id.decode() for job_id in cast("list[bytes]", found)]

    def put(self, job_id: str, delay_seconds: float = 0.0) -> None:
        """Make a job's message due after a delay."""
        at = datetime.now(UTC).timestamp() + delay_seconds
        self._redis.zadd(_KEY, {job_id: int(at * 1000)})

    def drop(self, job_id: str) -> None:
        """Forget a job's message."""
        self._redis.zrem(_KEY, job_id)

    def log(self, job_id: str) -> tuple[Delivery, ...]:
        """Return every try, oldest first."""
        try:
            lines = self._path(job_id).read_bytes().splitlines()
        except FileNotFoundError:
            return ()
        return tuple(Delivery.model_validate_json(line) for line in lines)

    def note(self, job_id: str, delivery: Delivery) -> None:
        """Write a try down, and decide whether and when there is another one."""
        with self._path(job_id).open("ab") as file:
            file.write(delivery.model_dump_json().encode() + b"\n")
        tried = delivery.attempt - 1
        if delivery.delivered or tried >= len(RETRY_SECONDS):
            self.drop(job_id)
        else:
            self.put(job_id, RETRY_SECONDS[tried])

    def _path(self, job_id: str) -> Path:
        return self._files.folder(job_id) / LOG
