"""Redis: one that is named, or the one that `planish serve` would start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import cast

from planish.contract.errors import PlanishError
from planish.doctor.check import Check

OLDEST = (6, 2)
MAX_SKEW = 2.0


def look_at_redis(url: str | None) -> Iterator[Check]:
    """Yield what there is to say about Redis.

    Args:
        url: of a running server; None: look for a binary that can be embedded.
    """
    if find_spec("redis") is None:
        detail = "the redis library is not installed; clients do not need it"
        yield Check(name="redis", outcome="note", detail=detail)
    elif url is None:
        yield _embedded()
    else:
        yield from _running(url)


def _embedded() -> Check:
    from planish.store.server_binary import find_server

    try:
        server = find_server()
    except PlanishError as error:
        return Check(name="redis", outcome="failure", detail=error.detail)
    shown = ".".join(map(str, server.version))
    return Check(name="redis", outcome="ok", detail=f"{server.path}, version {shown}")


def _running(url: str) -> Iterator[Check]:
    import redis

    from planish.store.connection import connect

    try:
        client = connect(url)
        facts = cast("dict[str, object]", client.info())
        seconds, micros = client.time()
    except (redis.RedisError, ValueError) as error:
        detail = f"the server does not answer: {str(error)[:200]}"
        yield Check(name="redis", outcome="failure", detail=detail)
        return
    version = str(facts["redis_version"])
    old = tuple(int(part) for part in version.split(".")[:2]) < OLDEST
    yield Check(
        name="redis",
        outcome="failure" if old else "ok",
        detail=f"version {version}" + ("; 6.2 or newer is needed" if old else ""),
    )
    if str(facts.get("maxmemory_policy")) != "noeviction":
        detail = f"maxmemory-policy is {facts.get('maxmemory_policy')}; set noeviction"
        yield Check(name="redis_memory", outcome="failure", detail=detail)
    if not facts.get("aof_enabled"):
        detail = "appendonly is off; after a restart progress is lost until the files are read anew"
        yield Check(name="redis_durability", outcome="warning", detail=detail)
    skew = abs(time.time() - seconds - micros / 1e6)
    if skew > MAX_SKEW:
        detail = f"this clock and that of Redis are {skew:.1f} s apart; run NTP on both"
        yield Check(name="redis_clock", outcome="warning", detail=detail)
