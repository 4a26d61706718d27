"""Where an interrupted run goes on: one file, written whole or not at all; no pickles.

A safetensors file whose tensors are weights, optimizer, averages and random states, and whose
metadata holds the position as JSON.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx

from planish.contract.report import Epoch
from worker.engine.load.data import Dataset
from worker.engine.train.losses import Loss
from worker.engine.train.run import Run
from worker.engine.train.shards import Tensors

log = logging.getLogger(__name__)

CHEAP_SHARE = 0.05  # of the time may go into checkpoints at the ends of epochs
_SAMPLED_ROWS = 64
_POSITION = "position"


class Position(BaseModel):
    """How far a run is.

    Attributes:
        epoch: that is under way, from 1; one more than `epochs` long.
        batch: how many of its batches are done.
        losses: of these batches.
        epochs: those that are finished.
        best_score: of the weights that are kept; None before any.
        best_epoch: whose weights are kept; 0: those of the start.
        stale: epochs without a better score.
        scaler: state of the fp16 loss scale.
        warnings: said so far.
        done: nothing is left to do; only the weights to keep are in the file.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=False)

    epoch: int = 1
    batch: int = 0
    losses: list[float] = []
    epochs: list[Epoch] = []
    best_score: float | None = None
    best_epoch: int = 0
    stale: int = 0
    scaler: dict[str, float] = {}
    warnings: list[str] = []
    done: bool = False


class Checkpoints:
    """The checkpoint file of one run.

    Args:
        folder: holds the files of all runs of a job; made if it is not there.
        name: of this run's file: what it is, and the fingerprint of all that it depends on.
        every_seconds: how much work may be lost.
    """

    def __init__(self, folder: Path, name: str, every_seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{name}.safetensors"
        self._every = every_seconds
        self._written = time.monotonic()
        self._cost = 0.0

    @property
    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        return time.monotonic() - self._written >= self._every

    @property
    def cheap(self) -> bool:
        """Whether one at the end of an epoch would cost little beside the training itself."""
        return (time.monotonic() - self._written) * CHEAP_SHARE >= self._cost

    def write(self, tensors: Tensors, position: Position) -> None:
        """Replace the checkpoint. A full disk is logged; training goes on without."""
        began = time.monotonic()
        part = self._path.with_suffix(f".{os.getpid()}.part")
        try:
            save_file(tensors, part, {_POSITION: position.model_dump_json()})
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            part.replace(self._path)
        except (OSError, SafetensorError) as error:
            log.warning("no checkpoint could be written: %s", error)
            part.unlink(missing_ok=True)
        self._written = time.monotonic()
        self._cost = self._written - began

    def read(self) -> tuple[Tensors, str] | None:
        """Return tensors and position as JSON; None when there is no whole checkpoint."""
        try:
            with safe_open(self._path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                position = file.metadata()[_POSITION]
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            log.warning("the checkpoint %s cannot be read: %s", self._path.name, error)
            return None
        return tensors, position


def name_of(module: fx.GraphModule, loss: Loss, run: Run, processes: int) -> str:
    """Return a file name that only the same run has: op, step and a hash of what it depends on."""
    kind = getattr(loss, "__qualname__", type(loss).__qualname__)
    words: dict[str, object] = {
        "train": run.train.model_dump(exclude={"checkpoint_every_seconds"}),
        "task": run.task,
        "loss": kind,
        "variant": run.variant,
        "seed": run.seed,
        "device": run.device.type,
        "processes": processes,
        "torch": torch.__version__,
        "graph": f"{module.code}{module!r}",
    }
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        _add(digest, value)
    for data in (run.data, run.validation):
        if data is not None:
            _add_data(digest, data)
    return f"{run.step}-{run.op}-{digest.hexdigest()[:32]}"


def _add(digest: hashlib._Hash, value: Tensor) -> None:
    digest.update(str((value.dtype, tuple(value.shape))).encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _add_data(digest: hashlib._Hash, data: Dataset) -> None:
    """Hash which rows there are, and the contents of some: the files of a job never change."""
    digest.update(data.rows.tobytes())
    if data.targets is not None:
        digest.update(np.ascontiguousarray(data.targets[:_SAMPLED_ROWS]).tobytes())
    inputs, _ = data.prepare(np.arange(min(_SAMPLED_ROWS, len(data))))
    for value in inputs:
        _add(digest, value)
