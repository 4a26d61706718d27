"""URLs, ids and settings."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import redis

from planish.contract.wire import JOB_ID
from planish.store.connection import Address, broker_url, connect
from planish.store.ids import new_id, new_ulid
from planish.store.settings import StoreSettings


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/1"),
        ("redis://redis", "redis://redis/1"),
        ("rediss://user:p%40ss@r.example:6380/3", "rediss://user:p%40ss@r.example:6380/4"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=1"),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=3"),
    ],
)
def test_the_broker_has_the_next_database(url: str, broker: str) -> None:
    assert broker_url(url) == broker


def test_address_parts() -> None:
    assert Address.parse("rediss://u:p%40@h:1/2") == Address(None, "h", 1, 2, "u", "p@", tls=True)
    assert Address.parse("unix:///a%20b?db=3").path == "/a b"


def test_a_wrong_url_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="not a Redis URL") as caught:
        Address.parse("http://user:secret@host")
    assert "secret" not in str(caught.value)


def test_a_command_is_sent_once_although_its_reply_is_late(redis_url: str) -> None:
    watcher, client = connect(redis_url), connect(redis_url)
    watcher.flushall()
    client.connection_pool.connection_kwargs["socket_timeout"] = 0.1
    watcher.client_pause(400, all=True)
    with pytest.raises(redis.TimeoutError):
        client.incr("n")
    time.sleep(0.5)
    assert int(watcher.get("n") or 0) <= 1


def test_ids_grow_and_have_the_contracts_form() -> None:
    ids = [new_id("job") for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(JOB_ID.match(job_id) for job_id in ids)
    assert JOB_ID.match(new_id("plan"))


def test_ids_of_threads_do_not_collide() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(new_ulid() for _ in range(2000)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8000


def test_settings_travel_through_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = StoreSettings(tmp_path, "unix:///x.sock")
    for name, value in settings.to_env().items():
        monkeypatch.setenv(name, value)
    assert StoreSettings.from_env() == settings
