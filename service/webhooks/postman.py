"""Delivers due messages, in a thread of the API process."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import redis

from planish.contract.job import Job
from planish.store.job_files import JobFiles
from planish.store.outbox import Delivery, Outbox
from planish.store.signing import signing_secret
from service.shown import document_from_files
from service.webhooks.guard import Reach, Unreachable, destination
from service.webhooks.message import body_of, signed_headers

log = logging.getLogger("planish.service")

LOOK_SECONDS = 1.0
CONNECT_SECONDS, TOTAL_SECONDS = 5.0, 10.0
MAX_ANSWER = 64 << 10


class Postman:
    """Takes what is due and tries it.

    Args:
        outbox: what is due, and the log.
        files: specs and outcomes of jobs.
        root: the data folder, for the signing secret.
        reach: where messages may go.
    """

    def __init__(self, outbox: Outbox, files: JobFiles, root: Path, reach: Reach) -> None:
        self._outbox, self._files, self._root, self._reach = outbox, files, root, reach
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run until `stop`; without reach there is nothing to do."""
        if self._reach is not Reach.OFF:
            self._thread = threading.Thread(target=self._run, name="postman", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the message at hand."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(TOTAL_SECONDS + 1)

    def deliver(self, job_id: str) -> Delivery | None:
        """Try a job's message once; None when there is nothing to say any more."""
        record, outcome = self._files.spec(job_id), self._files.outcome(job_id)
        if record is None or outcome is None or record.spec.webhook is None:
            self._outbox.drop(job_id)
            return None
        job = Job.model_validate_json(document_from_files(self._files, job_id))
        attempt = len(self._outbox.log(job_id)) + 1
        now, body = datetime.now(UTC), body_of(job)
        secret = signing_secret(self._root, record.tenant)
        try:
            status = self._send(record.spec.webhook.url, body, job_id, secret, now)
            delivered = 200 <= status < 300
            error = None if delivered else f"the receiver answered {status}"
            tried = Delivery(
                time=now, attempt=attempt, delivered=delivered, status=status, error=error
            )
        except (Unreachable, httpx.HTTPError) as failure:
            why = str(failure) or type(failure).__name__
            tried = Delivery(time=now, attempt=attempt, delivered=False, error=why[:300])
        self._outbox.note(job_id, tried)
        return tried

    def _send(self, url: str, body: bytes, job_id: str, secret: str, now: datetime) -> int:
        """Return the status of the answer, of which at most 64 KiB are read."""
        to = destination(url, self._reach)
        headers = {**signed_headers(job_id, body, secret, now), "host": to.host}
        timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        deadline = time.monotonic() + TOTAL_SECONDS
        with (
            httpx.Client(trust_env=False, follow_redirects=False, timeout=timeout) as client,
            client.stream(
                "POST",
                to.url,
                content=body,
                headers=headers,
                extensions={"sni_hostname": to.name},
            ) as answer,
        ):
            read = 0
            for piece in answer.iter_raw():
                read += len(piece)
                if read > MAX_ANSWER or time.monotonic() > deadline:
                    break
            return answer.status_code

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for job_id in self._outbox.due():
                    self.deliver(job_id)
            except (redis.RedisError, OSError) as error:
                log.warning("webhooks wait: %s", error)
            except Exception:
                log.exception("a webhook could not be delivered")
            self._stop.wait(LOOK_SECONDS)
