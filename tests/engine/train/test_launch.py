"""Passes whose training torchrun spreads: the whole way out to other processes and back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from planish.contract.errors import InvalidRecipe, TrainingDiverged, UnsatisfiableResources
from planish.contract.job import EventType
from planish.contract.recipe import Distill, Params, Retrain, Train, op_of
from tests.conftest import ROOT
from tests.engine.passes.models import context, digit_splits, weights
from tests.engine.train.runs import plain_net
from tests.worker.conftest import wait_for
from worker.engine.load.dataset import Dataset, Source
from worker.engine.model import Model
from worker.engine.passes import REGISTRY, Outcome
from worker.engine.progress import Silent
from worker.engine.train.run import Nodes
from worker.engine.train.spread.parcel import open_dataset, store_dataset

SHORT = Train(epochs=2, batch_size=60, lr=0.05)


class Listener(Silent):
    """Keeps the epochs that it hears of."""

    def __init__(self):
        self.epochs = []

    def event(self, kind, data):
        if kind is EventType.EPOCH:
            self.epochs.append(data["epoch"])


def run(model: Model, params: Params, **other) -> Outcome:
    splits = digit_splits()
    splits = replace(splits, train=splits.train.head(240))
    ctx = replace(context(model, params, splits=splits), **other)
    return REGISTRY[op_of(type(params))].run(model, params, ctx)


def furthest(a: Outcome, b: Outcome) -> float:
    ours, theirs = weights(a.model), weights(b.model)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_distillation_in_two_processes_equals_one():
    """Student and teacher go out as files, the weights come back, and so does the story."""
    params = Distill(method="hint", alpha=0.5, train=SHORT)
    told = Listener()
    one = run(plain_net(), params)
    spread = params.model_copy(update={"strategy": "ddp", "processes": 2})
    many = run(plain_net(), spread, progress=told)
    assert furthest(one, many) < 1e-5
    assert told.epochs == [1, 2]
    assert many.facts["best_epoch"] == one.facts["best_epoch"]
    assert len(many.training) == 2


def test_what_a_process_raises_is_raised_here():
    """Pixels so bright that the first loss overflows."""
    params = Retrain(strategy="fsdp", processes=2, train=SHORT)
    model, splits = plain_net(), digit_splits()
    blinding = replace(splits.train.inputs[0], scale=1e37)
    splits = replace(splits, train=replace(splits.train.head(240), inputs=(blinding,)))
    before = weights(model)
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1"):
        run(model, params, splits=splits)
    assert all((weights(model)[name] == before[name]).all() for name in before)


@pytest.mark.parametrize(
    ("params", "other", "error", "said"),
    [
        (
            Retrain(strategy="ddp", processes=61, train=SHORT),
            {},
            InvalidRecipe,
            "61 pieces",
        ),
        (
            Retrain(strategy="ddp", train=SHORT),
            {"nodes": Nodes(2)},
            UnsatisfiableResources,
            "PLANISH_RENDEZVOUS",
        ),
    ],
)
def test_what_cannot_work_starts_no_process(params, other, error, said):
    with pytest.raises(error, match=said):
        run(plain_net(), params, **other)


@pytest.mark.parametrize("mapped", [True, False])
def test_data_goes_out_by_path_or_as_a_file_of_its_own(tmp_path, mapped):
    values = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
    values.tofile(tmp_path / "all.raw")
    if mapped:
        raw = np.memmap(tmp_path / "all.raw", np.uint8, "r")
        values = raw.view(np.uint8).reshape(5, 3, 4)
    source = Source(values, (3, 4), torch.float32, scale=0.5, mean=(1.0,), std=(2.0,))
    data = Dataset((source,), np.array([4, 0, 2]), np.array([1, 0, 1]))
    folder = tmp_path / "parcel"
    folder.mkdir()
    stored = store_dataset(data, folder, "data")
    assert (folder / "input0.raw").exists() is not mapped
    again = open_dataset(stored.model_validate_json(stored.model_dump_json()))
    for ours, theirs in zip(data.prepare(np.arange(3)), again.prepare(np.arange(3)), strict=True):
        first = ours[0] if isinstance(ours, tuple) else ours
        second = theirs[0] if isinstance(theirs, tuple) else theirs
        assert torch.equal(first, second)


def _start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        stderr=subprocess.PIPE,
    )


ENDLESS = """
import sys
from tests.engine.train.test_launch import *
train = SHORT.model_copy(update={"epochs": 1000})
class Loud(Silent):
    def event(self, kind, data):
        open(sys.argv[1], "a").write("epoch\\n")
run(plain_net(), Retrain(strategy="ddp", processes=2, train=train), progress=Loud())
"""


def test_a_killed_job_leaves_no_process_of_its_training(tmp_path: Path):
    told = tmp_path / "told"
    job = _start(ENDLESS, str(told), TMPDIR=str(tmp_path))
    try:
        wait_for(told.exists, 120)
        family = psutil.Process(job.pid).children(recursive=True)
        assert len(family) >= 3  # torchrun and two processes
    finally:
        job.send_signal(signal.SIGKILL)
        job.communicate()
    assert psutil.wait_procs(family, 5)[1] == []


JOINER = "import sys; from worker.main import main; sys.exit(main(['--join']))"


def test_two_machines_train_as_one(tmp_path: Path):
    """Both on this one: a job's machine, and one that runs `planish worker --join`."""
    checkpoints = tmp_path / "jobs" / "job_1" / "checkpoints"
    checkpoints.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joiner = _start(
        JOINER,
        PLANISH_DATA_DIR=str(tmp_path),
        PLANISH_REDIS_URL="redis://127.0.0.1:1/0",
        GLOO_SOCKET_IFNAME="lo",
    )
    assert joiner.stderr is not None
    assert any(b'"ready"' in line for line in iter(joiner.stderr.readline, b""))
    params = Retrain(strategy="ddp", processes=1, train=SHORT)
    nodes = Nodes(2, f"127.0.0.1:{port}", "job_1")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        many = run(plain_net(), params, nodes=nodes, checkpoints=checkpoints)
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
        joiner.terminate()
        _, said = joiner.communicate(timeout=30)
    one = run(plain_net(), Retrain(train=SHORT))
    assert furthest(one, many) < 1e-5
    assert joiner.returncode == 0, said.decode()
    assert b'"joins"' in said
