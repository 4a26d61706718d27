"""Redis connections that never send a command twice.

redis-py retries a command up to ten times after a timeout by default, although the server may
have executed it: one ``INCR`` then counts twice. Here every client has its retries off, and the
callers that must survive a lost reply repeat a call that is idempotent by a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 10.0
HEALTH_CHECK_SECONDS = 25


@dataclass(frozen=True)
class Address:
    """A Redis URL in parts; either `path` (a unix socket) or `host` and `port`."""

    path: str | None
    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    tls: bool

    @staticmethod
    def parse(url: str) -> Address:
        """Read ``redis://[user:password@]host[:port][/db]`` or ``unix://path[?db=N]``.

        Raises:
            ValueError: another scheme, or a part that is not valid.
        """
        parts = urlsplit(url)
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        query = parse_qs(parts.query)
        if parts.scheme == "unix":
            db = int(query.get("db", ["0"])[0])
            return Address(unquote(parts.path), "", 0, db, username, password, tls=False)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError(
                f"not a Redis URL: {_redacted(url)!r}; use redis://, rediss:// or unix://"
            )
        db = int(parts.path.strip("/") or query.get("db", ["0"])[0])
        tls = parts.scheme == "rediss"
        return Address(None, parts.hostname, parts.port or 6379, db, username, password, tls)


def connect(url: str, blocking: bool = False) -> redis.Redis:
    """Return a client with retries off; it connects at the first command.

    Args:
        url: see `Address.parse`.
        blocking: for commands that wait in the server: no limit on the time of a reply.
    """
    return redis.Redis.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=None if blocking else REPLY_SECONDS,
        health_check_interval=HEALTH_CHECK_SECONDS,
        **_keepalive(url),
    )


def connect_async(url: str, blocking: bool = False) -> redis.asyncio.Redis:
    """Return an asyncio client with the same rules as `connect`."""
    return redis.asyncio.Redis.from_url(
        url,
        protocol=2,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=None if blocking else REPLY_SECONDS,
        health_check_interval=HEALTH_CHECK_SECONDS,
        **_keepalive(url),
    )


def broker_url(url: str) -> str:
    """Return Celery's broker URL on the same server, in the database after the ledger's.

    Celery's own keys (``unacked`` and its kin) have fixed names, so it gets a database to itself.
    """
    address = Address.parse(url)
    db = address.db + 1
    if address.path is not None:
        login = _login(url)
        return f"redis+socket://{login}{address.path}?virtual_host={db}"
    return urlunsplit(urlsplit(url)._replace(path=f"/{db}", query=""))


def _keepalive(url: str) -> dict[str, bool]:
    return {} if url.startswith("unix:") else {"socket_keepalive": True}


def _login(url: str) -> str:
    netloc = urlsplit(url).netloc
    return netloc.rpartition("@")[0] + "@" if "@" in netloc else ""


def _redacted(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
