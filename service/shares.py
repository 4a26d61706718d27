"""What one tenant may use, and what a request that goes over it is told.

Changes are counted in Redis, for all API processes together. Reads are counted in each process: a
status poll must not cost a second trip to Redis. When Redis is away, nothing is counted; what needs
Redis is refused then anyway.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import redis
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as RequestScope

from planish.contract.errors import QuotaExceeded, RateLimited
from planish.store.quota import Quotas, Taken
from service.auth import READING, is_open
from service.errors import problem_response
from service.principal import principal_of_scope

MAX_TENANTS = 10_000
_DAY = 86_400


@dataclass(frozen=True)
class Shares:
    """Of each tenant.

    Attributes:
        reads_per_minute: GET and HEAD, in each API process.
        writes_per_minute: everything else, all processes together.
        live_jobs: queued and running at the same time.
        upload_bytes_per_day: of files and parts; the share refills steadily.
    """

    reads_per_minute: int = 600_000
    writes_per_minute: int = 60_000
    live_jobs: int = 100_000
    upload_bytes_per_day: int = 1 << 44


@dataclass
class LocalBucket:
    """A token bucket in this process; `capacity` tokens refill in a minute."""

    capacity: int
    tokens: float
    at: float = field(default_factory=time.monotonic)

    def take(self) -> Taken:
        """Take one token."""
        now, rate = time.monotonic(), self.capacity / 60
        self.tokens = min(self.capacity, self.tokens + (now - self.at) * rate)
        self.at = now
        if self.tokens < 1:
            return Taken(False, 0, (1 - self.tokens) / rate)
        self.tokens -= 1
        return Taken(True, int(self.tokens), 0.0)


class ReadShare:
    """The reads of all tenants in this process."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, LocalBucket] = {}

    def take(self, tenant: str) -> Taken:
        """Count a read."""
        bucket = self._buckets.get(tenant)
        if bucket is None:
            if len(self._buckets) >= MAX_TENANTS:
                self._buckets.clear()
            bucket = self._buckets[tenant] = LocalBucket(self._per_minute, self._per_minute)
        return bucket.take()


class ShareMiddleware:
    """Answers 429 to a tenant that sends too much, and tells everybody what is left."""

    def __init__(self, app: ASGIApp, shares: Shares, reads: ReadShare, quotas: Quotas) -> None:
        self.app, self.shares, self.reads, self.quotas = app, shares, reads, quotas

    async def __call__(self, scope: RequestScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        limit, taken = await self._take(scope)
        headers = rate_headers(limit, taken)
        if not taken.allowed:
            seconds = str(math.ceil(taken.wait_seconds))
            error = RateLimited(
                f"the tenant may send {limit} such requests a minute; wait {seconds} s"
            )
            answer = problem_response(error, scope, {**headers, "retry-after": seconds})
            await answer(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        await self.app(scope, receive, told)

    async def _take(self, scope: RequestScope) -> tuple[int, Taken]:
        tenant = principal_of_scope(scope).tenant
        if scope["method"] in READING:
            return self.shares.reads_per_minute, self.reads.take(tenant)
        limit = self.shares.writes_per_minute
        try:
            bucket = f"writes:{tenant}"
            taken = await asyncio.to_thread(self.quotas.take, bucket, limit, limit / 60)
        except redis.RedisError:
            taken = Taken(True, limit, 0.0)
        return limit, taken


def rate_headers(limit: int, taken: Taken) -> Mapping[str, str]:
    """Return the RateLimit headers (draft-ietf-httpapi-ratelimit-headers-03, section 4)."""
    reset = math.ceil((limit - taken.left) * 60 / limit)
    return {
        "ratelimit-limit": str(limit),
        "ratelimit-remaining": str(taken.left),
        "ratelimit-reset": str(reset),
    }


def check_live_jobs(quotas: Quotas, shares: Shares, tenant: str) -> None:
    """Refuse a job beyond a tenant's share of the queue.

    Raises:
        QuotaExceeded: as many are queued or running as may be.
    """
    with suppress(redis.RedisError):
        live = quotas.live_jobs(tenant)
        if live >= shares.live_jobs:
            raise QuotaExceeded(
                f"{live} jobs of the tenant are queued or running, and {shares.live_jobs} may be; "
                "wait for one to finish, or cancel one"
            )


def count_upload(quotas: Quotas, shares: Shares, tenant: str, size: int) -> None:
    """Count the bytes of an upload against a tenant's share of the day.

    Raises:
        QuotaExceeded: the share is used up; says how long it takes to refill.
    """
    capacity = shares.upload_bytes_per_day
    with suppress(redis.RedisError):
        taken = quotas.take(f"bytes:{tenant}", capacity, capacity / _DAY, size)
        if not taken.allowed:
            raise QuotaExceeded(
                f"the tenant may upload {capacity} bytes a day and {taken.left} are left; "
                f"{size} fit again in {math.ceil(taken.wait_seconds)} s"
            )
