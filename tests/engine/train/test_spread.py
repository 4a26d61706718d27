"""Many processes against one: real ones, started by torchrun, over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from planish.contract.recipe import Train
from tests.conftest import ROOT
from tests.engine.passes.models import digit_splits, weights
from tests.engine.train.ranks import AVERAGED, PLAIN, SPARSE, Scaled, wide_net
from tests.engine.train.runs import plain_net, trained

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all cases of ranks.py in two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "tests.engine.train.ranks", str(folder)],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def result(cases: Path, name: str, world: str) -> State:
    return load_file(cases / f"{name}-{world}.safetensors")


def furthest(a: State, b: State) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def alone(params: Train, net=plain_net, **other) -> State:
    return weights(trained(params, net, **other)[0])


@pytest.mark.parametrize("world", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["plain", "wide", "averaged"])
def test_two_processes_train_as_one_with_the_same_batches(cases, name, world):
    """Uneven batches, two pieces each, augmentation, clipping; averages and AdamW in the last."""
    params = AVERAGED if name == "averaged" else PLAIN
    validation = digit_splits().validation if name == "averaged" else None
    one = alone(params, wide_net if name == "wide" else plain_net, validation=validation)
    assert furthest(one, result(cases, name, world)) < 1e-5


@pytest.mark.parametrize("name", ["plain", "wide", "averaged", "sparse", "norm"])
def test_shards_train_as_copies(cases, name):
    assert furthest(result(cases, name, "ddp"), result(cases, name, "fsdp")) < 1e-5


@pytest.mark.parametrize("world", ["ddp", "fsdp"])
def test_what_a_loss_learns_itself_is_learnt_together(cases, world):
    loss = Scaled()
    one = alone(PLAIN, loss=loss)
    assert float(loss.factor.detach()) != 1
    assert furthest(one, result(cases, "scaled", world)) < 1e-5


@pytest.mark.parametrize("world", ["ddp", "fsdp"])
def test_zeros_grow_and_stay_in_many_processes(cases, world):
    """The very weights that one process takes away."""
    one = alone(PLAIN, sparsity=SPARSE)["5.weight"]
    many = result(cases, "sparse", world)["5.weight"]
    assert int((many == 0).sum()) == 2560
    assert torch.equal(many == 0, one == 0)


@pytest.mark.parametrize("world", ["ddp", "fsdp"])
def test_batchnorm_learns_from_every_process(cases, world):
    """Each normalizes its own part of a batch; the running statistics are the mean of theirs."""
    one = alone(PLAIN, partial(plain_net, norm=True))
    many = result(cases, "norm", world)
    assert furthest(one, many) > 1e-5
    torch.testing.assert_close(many["1.running_mean"], one["1.running_mean"], atol=0.02, rtol=0.05)


@pytest.mark.parametrize("world", ["ddp", "fsdp"])
def test_killed_processes_go_on_with_the_same_bits(cases, world):
    assert furthest(result(cases, "whole", world), result(cases, "resumed", world)) == 0
