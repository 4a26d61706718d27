"""Sends a request again when that can help and does no harm."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from planish.client.exchange import Flow, Reply, Request, send, sleep
from planish.client.failures import check
from planish.contract.errors import ServerUnreachable

TRIES = 6
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 60.0
RETRY_STATUS = frozenset({429, 502, 503, 504})


def answered(request: Request, done_before: int | None = None) -> Flow[Reply]:
    """Send until there is a final answer, with growing pauses.

    Args:
        request: is sent once only, unless it is repeatable.
        done_before: an error status that, after a lost answer, only says that an earlier try was
            carried out; the reply is then returned.

    Raises:
        ServerUnreachable: no answer after all tries.
        PlanishError: the answer is an error.
    """
    tries = TRIES if request.repeatable else 1
    for attempt in range(tries):
        last = attempt == tries - 1
        try:
            reply = yield from send(request)
        except ServerUnreachable:
            if last:
                raise
            yield from sleep(pause(attempt))
            continue
        if attempt and reply.status == done_before:
            return reply
        if reply.status not in RETRY_STATUS or last:
            return check(request, reply)
        yield from sleep(retry_after(reply) or pause(attempt))
    raise AssertionError("the last try returns or raises")


def pause(attempt: int) -> float:
    """Return seconds to wait after failed try `attempt` (from 0): exponential, with jitter."""
    full = min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE)
    return full * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, guards nothing


def retry_after(reply: Reply) -> float | None:
    """Return the server's own wish in seconds, at most a minute; None when it has none."""
    text = reply.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
