"""Our training loop against a plain hand-written one: ResNet-20 on images of 3x32x32.

    .venv/bin/python bench/training_loop.py [--rounds 8] [--threads 2] [--images 1024]

The plain loop is what one writes down in a minute: the same network as an ordinary nn.Module,
channels_last, SGD with momentum, cross entropy, batches gathered from a tensor, and the loss read
after each step. With augmentation, it shifts and mirrors each image of a batch the straightforward
way. Ours is `worker.engine.train.loop.train` as passes call it. Both see the same images, batch
size, number of steps and threads; a round lets one train and then the other, and the next round
the other way about, so that what else the machine does hits both. The figure is the median over
rounds of (seconds of the plain loop / seconds of ours): above 1, ours is faster. Floor: 0.97. The
same ratio of processor time stands beside it: it is what to look at on a machine that is shared.
The images are noise: their values change no time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
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
from worker.engine.train.losses import cross_entropy

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


def ours(task: Task) -> Callable[[], None]:
    """Return our loop, its model and data at hand."""
    inputs = (InputSpec("input", ("batch", 3, 32, 32), torch.float32),)
    model = Model(remodularize(export_network(network().eval(), inputs)), inputs)
    source = Source(task.images.numpy(), (3, 32, 32), torch.float32)
    data = Dataset((source,), np.arange(len(task.images)), task.labels.numpy())
    run = Run("retrain", 1, task.params, data, None, 0, CPU, Silent())

    def work() -> None:
        train(model, cross_entropy, run)

    return work


def plain(task: Task) -> Callable[[], None]:
    """Return the hand-written loop."""
    module = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    params = task.params
    optimizer = torch.optim.SGD(
        module.parameters(), params.lr, params.momentum, weight_decay=params.weight_decay
    )

    def work() -> None:
        module.train()
        for _ in range(params.epochs):
            for rows in torch.randperm(len(task.images)).split(params.batch_size):
                images = task.images[rows]
                if params.augment == "crop_flip":
                    images = shifted_and_mirrored(images)
                outputs = module(images.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(outputs, task.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()

    return work


def shifted_and_mirrored(images: Tensor) -> Tensor:
    """Shift each image by up to 4 pixels and mirror half of them, image by image."""
    padded = F.pad(images, (4, 4, 4, 4))
    up, left = torch.randint(0, 9, (2, len(images))).tolist()
    moved = torch.stack(
        [p[:, y : y + 32, x : x + 32] for p, y, x in zip(padded, up, left, strict=True)]
    )
    mirrored = torch.rand(len(images)) < 0.5
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return how long some work takes by the clock, and in processor time of all threads."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def measure(task: Task, rounds: int) -> dict[str, object]:
    """Let both loops take turns; return the ratio and what it comes from."""
    sides = {"plain": plain(task), "ours": ours(task)}
    for work in sides.values():
        work()  # caches, thread pools
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            times[name].append(seconds(sides[name]))
    count = len(task.images) * task.params.epochs
    clock, processor = (_ratios(times, which) for which in (0, 1))
    return {
        "ratio": round(statistics.median(clock), 3),
        "ratios": [round(ratio, 3) for ratio in clock],
        "processor_ratio": round(statistics.median(processor), 3),
        "processor_ratios": [round(ratio, 3) for ratio in processor],
        "images_per_second": {
            name: round(count / statistics.median(taken for taken, _ in both))
            for name, both in times.items()
        },
        "rounds": rounds,
        "steps_in_a_round": count // task.params.batch_size,
    }


def _ratios(times: dict[str, list[tuple[float, float]]], which: int) -> list[float]:
    return [a[which] / b[which] for a, b in zip(times["plain"], times["ours"], strict=True)]


def main() -> int:
    """Measure, write the result, and say whether the floor is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=1024)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(given.images, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (given.images,), generator=generator)
    results: dict[str, object] = {}
    reached = True
    for augment in ("none", "crop_flip"):
        params = Train.model_validate({"epochs": 2, "batch_size": 128, "augment": augment})
        found = measure(Task(augment, images, labels, params), given.rounds)
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
