"""Our training loop against a plain hand-written one: ResNet-20 on images of 3x32x32.

    .venv/bin/python bench/training_loop.py [--steps 64] [--threads 2]

The plain loop is what one writes down in a minute: the same network as an ordinary nn.Module,
channels_last, SGD with momentum, cross entropy, batches gathered from a tensor, and the loss read
after each step. With augmentation, it shifts and mirrors each image of a batch the straightforward
way. Ours is `worker.engine.train.loop.train` as passes call it. Both see the same images, batch
size and threads, and take turns step by step, so that what else the machine does hits both: our
loss function runs a step of the plain loop each time it is called. Ours is charged with everything
between two of these calls, the ends of its epochs included. The figure is (time of the plain loop /
time of ours) over all steps: above 1, ours is faster. Floor: 0.97. The same ratio of processor time
stands beside it: it is what to look at on a machine that is shared. The images are noise: their
values change no time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planish.contract.architectures import CifarResNet
from planish.contract.recipe import Train
from worker.engine.load.architectures.build import build_network, export_network
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.remodularize import remodularize
from worker.engine.model import InputSpec, Model
from worker.engine.progress import Silent
from worker.engine.train.loop import Run, train
from worker.engine.train.losses import Inputs, Loss, cross_entropy

RESULT = Path(__file__).resolve().parents[1] / "bench" / "results" / "training_loop.json"
FLOOR = 0.97
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Task:
    """What both loops do in one round."""

    name: str
    images: Tensor
    labels: Tensor
    params: Train


def network() -> nn.Module:
    """Return ResNet-20 at seeded random weights."""
    torch.manual_seed(0)
    return build_network(CifarResNet.model_validate({"depth": 20}))


class Turns:
    """Our loss; each call lets the plain loop take a step, and keeps the time of both.

    Attributes:
        plain: (clock, processor) seconds of each step of the plain loop.
        ours: likewise of our loop, from one turn to the next.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        self.plain: list[tuple[float, float]] = []
        self.ours: list[tuple[float, float]] = []
        self._step = step
        self._since: tuple[float, float] | None = None

    def __call__(self, logits: Tensor, inputs: Inputs, targets: Tensor | None) -> Tensor:
        """Return our loss, and take a turn before."""
        came = now()
        if self._since is not None:
            self.ours.append(passed(self._since, came))
        with torch.enable_grad():
            self._step()
        self._since = now()
        self.plain.append(passed(came, self._since))
        return cross_entropy(logits, inputs, targets)


def ours(task: Task, loss: Loss) -> None:
    """Run our loop."""
    inputs = (InputSpec("input", ("batch", 3, 32, 32), torch.float32),)
    model = Model(remodularize(export_network(network().eval(), inputs)), inputs)
    source = Source(task.images.numpy(), (3, 32, 32), torch.float32)
    data = Dataset((source,), np.arange(len(task.images)), task.labels.numpy())
    train(model, loss, Run("retrain", 1, task.params, data, None, 0, CPU, Silent()))


def plain(task: Task) -> Callable[[], None]:
    """Return one step of the hand-written loop."""
    module = network().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    params = task.params
    optimizer = torch.optim.SGD(
        module.parameters(), params.lr, params.momentum, weight_decay=params.weight_decay
    )

    def step() -> None:
        rows = torch.randperm(len(task.images))[: params.batch_size]
        images = task.images[rows]
        if params.augment == "crop_flip":
            images = shifted_and_mirrored(images)
        outputs = module(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(outputs, task.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def shifted_and_mirrored(images: Tensor) -> Tensor:
    """Shift each image by up to 4 pixels and mirror half of them, image by image."""
    padded = F.pad(images, (4, 4, 4, 4))
    up, left = torch.randint(0, 9, (2, len(images))).tolist()
    moved = torch.stack(
        [p[:, y : y + 32, x : x + 32] for p, y, x in zip(padded, up, left, strict=True)]
    )
    mirrored = torch.rand(len(images)) < 0.5
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def now() -> tuple[float, float]:
    """Return the clock and the processor time of all threads, in seconds."""
    return time.perf_counter(), time.process_time()


def passed(since: tuple[float, float], until: tuple[float, float]) -> tuple[float, float]:
    """Return what passed between two moments."""
    return until[0] - since[0], until[1] - since[1]


def measure(task: Task) -> dict[str, object]:
    """Let both loops take turns; return the ratios and what they come from."""
    turns = Turns(plain(task))
    ours(task, turns)
    first = len(task.images) // task.params.batch_size  # an epoch to warm up
    sums = [
        [sum(step[which] for step in side[first:]) / len(side[first:]) for which in (0, 1)]
        for side in (turns.plain, turns.ours)
    ]
    return {
        "ratio": round(sums[0][0] / sums[1][0], 3),
        "processor_ratio": round(sums[0][1] / sums[1][1], 3),
        "milliseconds_of_a_step": {
            name: [round(1000 * value, 1) for value in both]
            for name, both in zip(("plain", "ours"), sums, strict=True)
        },
        "steps": len(turns.ours) - first,
    }


def main() -> int:
    """Measure, write the result, and say whether the floor is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(512, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (512,), generator=generator)
    results: dict[str, object] = {}
    reached = True
    for augment in ("none", "crop_flip"):
        params = Train.model_validate(
            {"epochs": given.steps // 4 + 1, "batch_size": 128, "augment": augment}
        )
        found = measure(Task(augment, images, labels, params))
        print(f"augment {augment}: {json.dumps(found)}", flush=True)
        results[augment] = found
        reached &= float(str(found["ratio"])) >= FLOOR
    environment = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": given.threads,
        "command": "python bench/training_loop.py " + " ".join(sys.argv[1:]),
    }
    content = {"floor": FLOOR, "reached": reached, "augment": results, "environment": environment}
    RESULT.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
