"""The wheel alone is enough: nothing of the checkout is on the path."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(ROOT)],
        check=True,
        cwd=out,
    )
    return next(out.glob("planish-*.whl"))


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; its dependencies are borrowed from this one, not copied."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    site = next(venv.glob("lib/python*/site-packages"))
    # A path line adds the folder without running its .pth files, so the checkout stays invisible.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


def test_wheel_puts_nothing_generic_into_site_packages(wheel: Path) -> None:
    roots = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {r for r in roots if not r.endswith(".dist-info")} == {"planish"}


def test_wheel_carries_both_apps_and_the_lua_scripts(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "planish/_apps/service/main.py" in names
    assert "planish/_apps/worker/engine/pipeline.py" in names
    assert "planish/py.typed" in names
    assert any(n.startswith("planish/store/lua/") and n.endswith(".lua") for n in names)


def test_installed_client_is_not_the_checkout(fresh: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [str(fresh / "bin/python"), "-c", "import planish; print(planish.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert run.stdout.startswith(str(fresh))


@pytest.fixture
def served(fresh: Path, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PLANISH", "PYTHONPATH"))
    }
    process = subprocess.Popen(
        [
            str(fresh / "bin/planish"),
            "serve",
            "--port",
            str(port),
            "--data-dir",
            str(tmp_path / "data"),
        ],
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    try:
        yield _ready(f"http://127.0.0.1:{port}", process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _ready(url: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "planish serve ended"
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return url
        except OSError:
            time.sleep(0.2)
    raise AssertionError("planish serve was not ready in two minutes")


def test_serve_from_the_wheel_gets_ready_with_a_worker(served: str) -> None:
    with urllib.request.urlopen(f"{served}/passes", timeout=5) as answer:
        assert "prune" in {item["op"] for item in json.load(answer)["items"]}
