"""What each of two processes does for test_spread.py; started by torchrun with a folder.

All cases in one start, because each start costs seconds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed as dist

from planish.contract.errors import TrainingDiverged
from planish.contract.recipe import Train
from tests.engine.passes.models import CPU, canonical, digit_splits
from tests.engine.train.runs import a_run, plain_net
from worker.engine.model import Model
from worker.engine.sparsity import Growth, Sparsity
from worker.engine.train.loop import deterministic
from worker.engine.train.losses import cross_entropy
from worker.engine.train.run import Run, Trained
from worker.engine.train.shards import local, tensors_of, whole
from worker.engine.train.spread.processes import Copies, Shards
from worker.engine.train.trainer import Trainer

PLAIN = Train(epochs=2, batch_size=61, lr=0.05, augment="crop_flip", clip_norm=1.0, accumulate=2)
AVERAGED = PLAIN.model_copy(
    update={"optimizer": "adamw", "lr": 0.01, "ema_decay": 0.9, "mixup": 0.4}
)
OFTEN = AVERAGED.model_copy(update={"checkpoint_every_seconds": 0})
SPARSE = Sparsity(("5.weight",), Growth({"5.weight": 2560}, "layer"))
WORLDS = {"ddp": Copies, "fsdp": Shards}


class Killed(Exception):
    """Stands for the end of the processes."""


class Fragile:
    """Cross entropy that ends the process, or is NaN, at one of its calls."""

    def __init__(self, lasts: int = 10**9, nan: bool = False):
        self.left, self.nan = lasts, nan

    def __call__(self, logits, inputs, targets):
        self.left -= 1
        loss = cross_entropy(logits, inputs, targets)
        if self.left >= 0:
            return loss
        if not self.nan:
            raise Killed
        return loss * float("nan")


class Scaled(torch.nn.Module):
    """A loss with a parameter of its own, a scale of the outputs."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, outputs, inputs, targets):
        return cross_entropy(outputs * self.factor, inputs, targets)


def wide_net() -> Model:
    """A network one of whose layers is sharded on its own."""
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(64, 1100), torch.nn.ReLU()]
    layers += [torch.nn.Linear(1100, 10)]
    return canonical(torch.nn.Sequential(*layers), (torch.randn(2, 1, 8, 8),))


def case(folder: Path, name: str, world: str, run: Run, net=plain_net, loss=None) -> Trained:
    """Train, and have rank 0 write the weights."""
    model = net()
    with deterministic(run, dist.get_rank()):
        trained = Trainer(model.module, loss or Fragile(), run, WORLDS[world](CPU)).train()
    state = {n: whole(local(t), t).contiguous() for n, t in tensors_of(model.module).items()}
    if dist.get_rank() == 0:
        save_file(state, folder / f"{name}-{world}.safetensors")
    return trained


def all_cases(folder: Path) -> None:
    validated = a_run(AVERAGED, validation=digit_splits().validation)
    for world in WORLDS:
        case(folder, "plain", world, a_run(PLAIN))
        case(folder, "wide", world, a_run(PLAIN), wide_net)
        case(folder, "averaged", world, validated)
        case(folder, "sparse", world, a_run(PLAIN, sparsity=SPARSE))
        case(folder, "norm", world, a_run(PLAIN), partial(plain_net, norm=True))
        case(folder, "scaled", world, a_run(PLAIN), loss=Scaled())
        _resume(folder, world, replace(validated, train=OFTEN))
        _diverge(world)


def _resume(folder: Path, world: str, run: Run) -> None:
    net = partial(plain_net, dropout=0.3)
    case(folder, "whole", world, run, net)
    run = replace(run, checkpoints=folder / f"checkpoints-{world}")
    try:
        case(folder, "killed", world, run, net, Fragile(2 * 5))
    except Killed:
        trained = case(folder, "resumed", world, run, net)
        # Many processes look at clock and losses every 20 steps, and when an epoch ends.
        assert trained.resumed_from == "epoch 2, step 5", trained.resumed_from


def _diverge(world: str) -> None:
    # Only one process meets the NaN; both must end.
    loss = Fragile(3, nan=True) if dist.get_rank() == 1 else Fragile()
    try:
        Trainer(plain_net().module, loss, a_run(PLAIN), WORLDS[world](CPU)).train()
    except TrainingDiverged as error:
        assert "became nan in epoch 1, step 2" in error.detail, error.detail
    else:
        raise AssertionError("a NaN in one process went unnoticed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    all_cases(Path(sys.argv[1]))
    dist.destroy_process_group()
