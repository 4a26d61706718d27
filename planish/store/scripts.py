"""The Lua transitions: sent as EVALSHA; a server that does not know one is given its text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import redis

PREFIX = "planish:"
NAMES = (
    "submit",
    "claim",
    "beat",
    "event",
    "release",
    "reap",
    "settle",
    "request_cancel",
    "due",
    "overdue",
    "page",
    "delete",
    "raise_fence",
    "register_worker",
    "fleet",
    "clock",
    "generation",
    "take",
)


@cache
def source(name: str) -> str:
    """Return the full text of a script: the shared part, then its own."""
    folder = files("planish.store") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("common", name))


class Scripts:
    """Calls a script by its name."""

    def __init__(self, client: redis.Redis) -> None:
        self._scripts = {name: client.register_script(source(name)) for name in NAMES}

    def __call__(self, name: str, *args: str | int | bytes) -> object:
        """Run a script and return Redis' reply, which only the caller knows the shape of.

        Raises:
            redis.RedisError: the server is away or refuses; after a lost reply the script may
                have run.
        """
        return self._scripts[name](args=args)


def job_key(job_id: str) -> str:
    """Return the key of a job's hash."""
    return f"{PREFIX}job:{job_id}"


def events_key(job_id: str) -> str:
    """Return the key of a job's event stream."""
    return f"{PREFIX}events:{job_id}"
