"""`planish serve` from the outside: one command, and nothing stays behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import command, environment, run
from tests.conftest import missing


class Served:
    """A `planish serve` that is ready, and every process below it."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.process = subprocess.Popen(
            command("serve", "--port", self.port, "--data-dir", folder),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        if self.process.poll() is not None:
            missing(f"planish serve does not start: {self.process.communicate()[1]}")
        self.tree = psutil.Process(self.process.pid).children(recursive=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, number: signal.Signals, seconds: float = 60) -> tuple[int, list[str]]:
        """Signal it; return its exit code and what is left of the tree after some seconds."""
        self.process.send_signal(number)
        self.process.communicate(timeout=seconds)
        gone_by = time.monotonic() + seconds
        while time.monotonic() < gone_by and any(map(_runs, self.tree)):
            time.sleep(0.1)
        return self.process.returncode, [str(p) for p in self.tree if _runs(p)]

    def close(self) -> None:
        for process in [*self.tree, psutil.Process()][:-1]:
            if _runs(process):
                process.kill()
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path / "data")
    yield found
    found.close()


def test_serve_says_where_it_is_and_ctrl_c_stops_all_of_it(served: Served) -> None:
    assert served.url in served.line
    with urllib.request.urlopen(f"{served.url}/readyz", timeout=5) as answer:
        assert answer.status == 200
    taken = run("serve", "--port", served.port, "--data-dir", served.folder.parent / "other")
    assert taken.code == 1
    assert f"--port {served.port + 1}" in taken.err
    again = run("serve", "--port", 0, "--data-dir", served.folder)
    assert again.code == 1
    assert "another planish serve" in again.err
    assert len(served.tree) >= 4  # API, worker, keeper, Redis
    assert served.end(signal.SIGINT) == (0, [])


def test_nothing_survives_a_killed_serve(served: Served) -> None:
    code, left = served.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert left == []


def test_the_api_beyond_loopback_wants_a_key(tmp_path: Path) -> None:
    done = run("api", "--host", "0.0.0.0", "--port", 0, "--data-dir", tmp_path)
    assert done.code == 2
    assert "planish keys create" in done.err


def test_serve_names_an_address_that_is_not_this_machines(tmp_path: Path) -> None:
    done = run("serve", "--host", "192.0.2.1", "--port", 0, "--data-dir", tmp_path)
    assert done.code == 1
    assert "cannot listen on 192.0.2.1" in done.err
