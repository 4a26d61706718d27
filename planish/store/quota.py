"""Shares of what everybody uses: token buckets and counts, one for each tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis

from planish.store.scripts import PREFIX, Scripts


@dataclass(frozen=True)
class Taken:
    """The answer of a bucket.

    Attributes:
        allowed: whether the tokens were there, and are taken now.
        left: whole tokens that are left.
        wait_seconds: until the asked tokens are there; 0 when they were.
    """

    allowed: bool
    left: int
    wait_seconds: float


class Quotas:
    """Buckets live in Redis, so that all API processes share them; its clock is theirs."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._run = Scripts(client)

    def take(self, bucket: str, capacity: int, per_second: float, cost: int = 1) -> Taken:
        """Take `cost` tokens out of a bucket of `capacity` that refills at `per_second`."""
        found = self._run("take", bucket, capacity, f"{per_second:.9f}", min(cost, capacity))
        taken, left, wait = (int(value) for value in cast("list[bytes]", found))
        return Taken(bool(taken), left, 0.0 if taken else wait / 1000)

    def live_jobs(self, tenant: str) -> int:
        """Return how many of a tenant's jobs are queued or running."""
        return self._redis.zcard(f"{PREFIX}index:live:{tenant}")
