from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import pytest
import torch

from planish.contract.recipe import Train
from tests.engine.passes.models import digit_splits, same_weights, weights
from tests.engine.train.runs import a_run, plain_net, trained
from worker.engine.sparsity import Growth, Sparsity
from worker.engine.train.loop import train
from worker.engine.train.losses import cross_entropy

net = partial(plain_net, norm=True, dropout=0.3)
# 7 batches in an epoch, 21 in all; 0 seconds: a checkpoint after every step.
RUN = Train(epochs=3, batch_size=36, lr=0.05, augment="crop_flip").model_copy(
    update={"checkpoint_every_seconds": 0}
)


class Killed(Exception):
    """Stands for the end of the process."""


class Fragile:
    """Cross entropy that ends the process at one of its calls."""

    def __init__(self, lasts: int = 10**9):
        self.left = lasts

    def __call__(self, logits, inputs, targets):
        if not self.left:
            raise Killed
        self.left -= 1
        return cross_entropy(logits, inputs, targets)


def changed(**update) -> Train:
    return RUN.model_copy(update=update)


def interrupted(folder: Path, params: Train, *lasts: int, **other):
    """Train with a kill after so many steps of each attempt, then to the end."""
    for steps in lasts:
        with pytest.raises(Killed):
            trained(params, net, Fragile(steps), checkpoints=folder, **other)
    return trained(params, net, Fragile(), checkpoints=folder, **other)


@pytest.mark.parametrize(
    "update",
    [
        {},
        {"ema_decay": 0.9, "accumulate": 2},
        {"optimizer": "adamw", "lr": 0.01, "clip_norm": 1.0, "schedule": "cosine"},
        {"workers": 1, "amp": "bf16"},
    ],
    ids=str,
)
def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(tmp_path, update):
    params, other = changed(**update), {"validation": digit_splits().validation}
    whole, story = trained(params, net, Fragile(), **other)
    pieces = params.accumulate
    model, resumed = interrupted(tmp_path, params, 10 * pieces, 3 * pieces, **other)
    assert same_weights(weights(whole), weights(model))
    assert resumed.epochs == story.epochs
    assert resumed.best_epoch == story.best_epoch
    assert (story.resumed_from, resumed.resumed_from) == (None, "epoch 2, step 14")


def test_growing_sparsity_goes_on_where_it_was(tmp_path):
    sparsity = Sparsity(("5.weight",), Growth({"5.weight": 2560}, "layer"))
    whole, _ = trained(RUN, net, Fragile(), sparsity=sparsity)
    model, _ = interrupted(tmp_path, RUN, 5, 4, sparsity=sparsity)
    assert same_weights(weights(whole), weights(model))
    assert int((weights(model)["5.weight"] == 0).sum()) == 2560


def test_a_finished_run_is_not_done_again(tmp_path):
    first, story = trained(RUN, net, Fragile(), checkpoints=tmp_path)
    again, told = trained(RUN, net, Fragile(0), checkpoints=tmp_path)
    assert same_weights(weights(first), weights(again))
    assert told.epochs == story.epochs
    assert told.resumed_from == "its end"
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 50_000  # the weights to keep, no optimizer


def test_another_run_does_not_take_the_checkpoint(tmp_path):
    with pytest.raises(Killed):
        trained(RUN, net, Fragile(10), checkpoints=tmp_path)
    others = (
        {"params": changed(lr=0.04)},
        {"seed": 1},
        {"variant": "control"},
        {"data": digit_splits().train.head(239)},
        {"net": partial(plain_net, norm=True)},
        {"loss": cross_entropy},
    )
    for other in others:
        settings = {"params": RUN, "net": net, "loss": Fragile()} | other
        _, run = trained(checkpoints=tmp_path, **settings)
        assert run.resumed_from is None


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_checkpoint_is_as_none(tmp_path, damage, caplog):
    with pytest.raises(Killed):
        trained(RUN, net, Fragile(10), checkpoints=tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-100], "garbage": b"x" * 999, "empty": b""}[damage])
    whole, _ = trained(RUN, net, Fragile())
    model, run = trained(RUN, net, Fragile(), checkpoints=tmp_path)
    assert run.resumed_from is None
    assert same_weights(weights(whole), weights(model))
    assert "cannot be read" in caplog.text


def test_a_checkpoint_holds_tensors_and_json_and_nothing_else(tmp_path):
    with pytest.raises(Killed):
        trained(RUN, net, Fragile(10), checkpoints=tmp_path)
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    position = json.loads(header.pop("__metadata__")["position"])
    assert (position["epoch"], position["batch"]) == (2, 3)
    kinds = {name.partition("/")[0] for name in header}
    assert kinds == {"model", "kept", "optimizer", "random"}


def test_a_disk_that_takes_no_checkpoint_does_not_stop_the_run(tmp_path, caplog):
    model = net()
    run = a_run(RUN, checkpoints=tmp_path / "gone")

    def remove(*_args):
        for file in (tmp_path / "gone").iterdir():
            file.unlink()
        (tmp_path / "gone").rmdir()

    class Unplugged(Fragile):
        def __call__(self, *batch):
            if self.left == 5:
                remove()
            return super().__call__(*batch)

    done = train(model, Unplugged(9), a_run(changed(epochs=1), checkpoints=run.checkpoints))
    assert len(done.epochs) == 1
    assert "no checkpoint could be written" in caplog.text
    assert all(torch.isfinite(v).all() for v in weights(model).values())
