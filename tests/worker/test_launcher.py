"""Zygotes and settings: what is refused, and what is said about it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from worker.exchange import StageMessage, UpdateMessage
from worker.launcher import Launcher, ZygoteFailed
from worker.machine import cores
from worker.progress import Tracker
from worker.settings import WorkerSettings, parse_gpus


def test_zygote_with_a_second_thread_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZygoteFailed, match="ended at its start"):
        Launcher(("tests.worker.threaded",)).start()
    assert "2 threads" in capfd.readouterr().err


def test_zygote_that_cannot_import_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZygoteFailed):
        Launcher(("no_such_module",)).start()
    assert "no_such_module" in capfd.readouterr().err


@pytest.mark.parametrize("options", [["--concurrency", "0"], ["--gpus", "0", "--concurrency", "2"]])
def test_worker_refuses_settings_that_cannot_work(options: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "worker.main", *options],
        cwd=ROOT,
        env=os.environ | {"PLANISH_REDIS_URL": "unix:///nowhere/redis.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "worker" in run.stderr or "concurrency" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("text", ["0,0", "-1", "a"])
def test_gpus_are_different_indices(text: str) -> None:
    with pytest.raises(ValueError):
        parse_gpus(text)


def test_settings_reach_a_child_process_through_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = WorkerSettings.from_env()
    settings = WorkerSettings(defaults.store, gpus=(1, 3), lease_seconds=7.5, retry_seconds=0.5)
    for name, value in settings.to_env().items():
        monkeypatch.setenv(name, value)
    assert WorkerSettings.from_env() == settings
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,3"


def test_cores_are_those_that_may_be_used() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


def test_fraction_grows_over_the_stages_and_an_estimate_waits_for_facts() -> None:
    tracker = Tracker()
    assert tracker.progress().fraction == 0
    tracker.take(StageMessage(name="prune", step=1, steps=4))
    assert tracker.progress().eta_seconds is None
    tracker.take(UpdateMessage(fraction=0.5, message="halfway"))
    half = tracker.progress()
    assert (half.fraction, half.message) == (0.125, "halfway")
    assert half.eta_seconds is not None
    tracker.take(StageMessage(name="distill", step=2, steps=4))
    assert tracker.progress().fraction == 0.25
    assert tracker.progress().message == ""
