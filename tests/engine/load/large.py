"""Trains and evaluates on files larger than the memory that this process may take.

A process of its own, started by `test_large`. Prints one JSON object: how many bytes the peak of
its resident memory rose at each file.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.PngImagePlugin
import pyarrow.parquet
import torch
from torch import Tensor, nn

from planish.contract.recipe import Simplify, Train
from planish.contract.spec import DataSpec, ModelSpec, Spec, Task
from tests.exports import export_pt2
from worker.engine.load import load_model
from worker.engine.load.data import load_splits
from worker.engine.load.splits import Splits
from worker.engine.measure.opened import Settings
from worker.engine.measure.outputs import stream_outputs
from worker.engine.model import Model
from worker.engine.progress import Silent
from worker.engine.train.loop import Run, fit
from worker.engine.train.losses import task_loss

IMPORTED = PIL.PngImagePlugin, pyarrow.parquet  # before the limit: a library is no data
ALLOWED = 256 << 20
SIDE = 128
TOKENS = 4096


class Words(nn.Module):
    """Logits over 4 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.head = nn.Linear(2, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (N, tokens, 4) of int64 ids."""
        return self.head(self.embed(inputs))


def status(field: str) -> int:
    """Return a figure of this process in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def used(file: Path, splits: Splits, model: Model, exported: Path, task: Task) -> None:
    """Train for an epoch where the name says so, and answer all sealed samples."""
    run = Run(
        op="retrain", step=1, seed=0, task=task, train=Train(epochs=1, batch_size=32, lr=1e-3),
        data=splits.train, validation=splits.validation, progress=Silent(),
        device=torch.device("cpu"),
    )  # fmt: skip
    if "trained" in file.name:
        fit(model, task_loss(task), run)
    assert splits.sealed is not None
    answers = 0
    for outputs in stream_outputs(exported, splits.sealed, Settings("torch", 1), 32):
        answers += len(outputs)
    assert answers == len(splits.sealed) > 0


def exported(folder: Path) -> dict[Task, Path]:
    """Write a network for each task."""
    pictures = nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.Flatten(), nn.Linear(256, 4))
    image, words = torch.zeros(2, 3, SIDE, SIDE), torch.zeros(2, TOKENS, dtype=torch.int64)
    return {
        "classification": export_pt2(pictures, (image,), folder / "pictures.pt2"),
        "language_modeling": export_pt2(Words(), (words,), folder / "words.pt2"),
    }


def rises(folder: Path, networks: dict[Task, Path]) -> Iterator[tuple[str, int]]:
    """Yield each file's name, and how far the peak rose."""
    for file in sorted(folder.glob("*.data")):
        task: Task = "language_modeling" if "words" in file.name else "classification"
        model = load_model(networks[task], ModelSpec())
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = status("VmRSS")
        spec = Spec(recipe=(Simplify(),), data=DataSpec(task=task))
        splits = load_splits(spec, model, file, None)
        assert splits is not None
        used(file, splits, model, networks[task], task)
        yield file.name, status("VmHWM") - before


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    made = exported(place)
    limit = status("VmData") + ALLOWED
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    print(json.dumps(dict(rises(place, made))))
