"""What a webhook says, and the signature that proves who says it (Standard Webhooks 1.0)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

from planish.contract.job import Job
from planish.store.signing import SECRET_PREFIX


def body_of(job: Job) -> bytes:
    """Return the message about a finished job; the spec stays out of it."""
    shown = job.model_dump(
        mode="json",
        include={"id", "name", "labels", "status", "succeeded", "verdict", "error", "links"},
    )
    summary = None if job.result is None else job.result.summary.model_dump(mode="json")
    finished = (job.finished_at or datetime.now(UTC)).isoformat()
    data = {**shown, "summary": summary}
    message = {"type": "job.finished", "timestamp": finished, "data": data}
    return json.dumps(message, separators=(",", ":")).encode()


def signed_headers(job_id: str, body: bytes, secret: str, now: datetime) -> dict[str, str]:
    """Return the headers of a message; every try of it has the same id.

    Args:
        job_id: names the message.
        body: exactly the bytes that are sent.
        secret: as `signing_secret` gives it.
        now: of this try.
    """
    message_id, stamp = f"msg_{job_id}", str(int(now.timestamp()))
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = b".".join((message_id.encode(), stamp.encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "user-agent": "planish-webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }
