"""What the processes of a run are given: files that any of them can read, and no pickle.

model.pt2, teacher.pt2   graphs, read by the strict reader
*.safetensors            their weights, and what a growing sparsity ranks by
*.raw                    arrays of the data that are not files already
parcel.json              everything else
progress.jsonl           what rank 0 tells, line by line
result.*, error.json     what comes back
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from planish.contract.recipe import Distill, Retrain
from planish.contract.spec import ModelSpec, Spec
from worker.engine.load import load_model
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.deferred import Deferred, Rows, Targets
from worker.engine.model import Model
from worker.engine.save.pt2 import save_pt2
from worker.engine.sparsity import Growth, Sparsity

PARCEL = "parcel.json"
PROGRESS = "progress.jsonl"
RESULT = "result.json"
WEIGHTS = "result.safetensors"
ERROR = "error.json"
Trains = Annotated[Distill | Retrain, Field(discriminator="op")]


class Written(BaseModel):
    """Base: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredArray(Written):
    """Where the values of an array lie: raw, in row order."""

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]


class StoredSource(Written):
    """A `Source`, its values by place."""

    values: StoredArray
    shape: tuple[int | None, ...]
    dtype: str
    channels_last: bool
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class StoredTargets(Written):
    """Targets that stay in their file, of all its samples; see `Deferred`."""

    values: StoredArray
    shape: tuple[int, ...]
    dtype: Literal["int64", "float32"]
    mask: StoredArray | None


class StoredDataset(Written):
    """A `Dataset`, its arrays by place."""

    inputs: tuple[StoredSource, ...]
    rows: StoredArray
    targets: StoredArray | StoredTargets | None


class StoredSparsity(Written):
    """A `Sparsity`; scores and candidates of its growth are among the tensors."""

    weights: tuple[str, ...]
    zeros: dict[str, int] | None
    scope: Literal["layer", "global"] = "layer"


class Parcel(Written):
    """One run for many processes.

    Attributes:
        spec: of the job.
        params: of the pass.
        taught: whether the loss is the pass's distillation; else it is the task's, on the targets.
        run: of `Run`: op, step, seed, task, variant and the checkpoints folder.
        data: what is learnt from.
        validation: likewise judged.
        frozen: parameters that are not trained.
        sparsity: zeros to keep.
        device: kind of device.
        threads: of each process.
    """

    spec: Spec
    params: Trains
    taught: bool
    op: str
    step: int
    seed: int
    task: Literal["classification", "regression", "language_modeling", "embedding", "none"]
    variant: str
    checkpoints: Path | None
    data: StoredDataset
    validation: StoredDataset | None
    frozen: tuple[str, ...]
    sparsity: StoredSparsity | None
    device: str
    threads: int


def write_model(model: Model, folder: Path, name: str, *, training: bool) -> None:
    """Write a model's graph and weights.

    Args:
        model: in eval mode, and so it is afterwards.
        folder: where to.
        name: of the two files, without ending.
        training: keep what an export in eval mode leaves out: dropout.
    """
    state = {n: t.detach().contiguous().clone() for n, t in model.module.state_dict().items()}
    try:
        save_pt2(model.with_module(model.module.train(training)), folder / f"{name}.pt2")
    finally:
        model.module.eval()
        model.module.load_state_dict(state)  # tracing may have run BatchNorm
    save_file(state, folder / f"{name}.safetensors")


def read_model(folder: Path, name: str) -> Model:
    """Return a model that `write_model` wrote."""
    model = load_model(folder / f"{name}.pt2", ModelSpec())
    model.module.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return model


def store_dataset(data: Dataset, folder: Path, name: str) -> StoredDataset:
    """Write a dataset's arrays, except those that are files already."""
    inputs = tuple(
        StoredSource(
            values=_stored(source.values, folder / f"input{index}.raw"),
            shape=source.shape,
            dtype=str(source.dtype).removeprefix("torch."),
            channels_last=source.channels_last,
            scale=source.scale,
            mean=source.mean,
            std=source.std,
        )
        for index, source in enumerate(data.inputs)
    )
    targets = None if data.targets is None else _stored_targets(data.targets, folder, name)
    rows = _stored(data.rows, folder / f"{name}-rows.raw")
    return StoredDataset(inputs=inputs, rows=rows, targets=targets)


def _stored_targets(targets: Targets, folder: Path, name: str) -> StoredArray | StoredTargets:
    if not isinstance(targets, Deferred):
        return _stored(targets, folder / f"{name}-targets.raw")
    mask = None if targets.mask is None else _stored(targets.mask, folder / "mask.raw")
    return StoredTargets(
        values=_stored(targets.values, folder / "targets.raw"),
        shape=targets.shape,
        dtype="int64" if targets.dtype is np.int64 else "float32",
        mask=mask,
    )


def open_dataset(stored: StoredDataset) -> Dataset:
    """Return a dataset, its arrays mapped into memory."""
    inputs = tuple(
        Source(
            values=_opened(source.values),
            shape=source.shape,
            dtype=getattr(torch, source.dtype),
            channels_last=source.channels_last,
            scale=source.scale,
            mean=source.mean,
            std=source.std,
        )
        for source in stored.inputs
    )
    rows = np.array(_opened(stored.rows))
    return Dataset(inputs, rows, _opened_targets(stored.targets, rows))


def _opened_targets(stored: StoredArray | StoredTargets | None, rows: Rows) -> Targets | None:
    if stored is None:
        return None
    if isinstance(stored, StoredArray):
        return np.array(_opened(stored))
    mask = None if stored.mask is None else _opened(stored.mask)
    dtype = np.int64 if stored.dtype == "int64" else np.float32
    return Deferred(_opened(stored.values), rows, stored.shape, dtype, mask)


def store_sparsity(sparsity: Sparsity | None, folder: Path) -> StoredSparsity | None:
    """Write what a run keeps or makes zero."""
    if sparsity is None:
        return None
    growth = sparsity.growth
    if growth is None:
        return StoredSparsity(weights=sparsity.weights, zeros=None)
    tensors = _named("scores", growth.scores) | _named("candidates", growth.candidates)
    save_file(tensors, folder / "growth.safetensors")
    return StoredSparsity(weights=sparsity.weights, zeros=dict(growth.zeros), scope=growth.scope)


def open_sparsity(stored: StoredSparsity | None, folder: Path) -> Sparsity | None:
    """Return what `store_sparsity` wrote."""
    if stored is None:
        return None
    if stored.zeros is None:
        return Sparsity(stored.weights)
    tensors = load_file(folder / "growth.safetensors")
    growth = Growth(
        stored.zeros, stored.scope, _kind("scores", tensors), _kind("candidates", tensors)
    )
    return Sparsity(stored.weights, growth)


def _named(kind: str, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    return {f"{kind}/{name}": t.contiguous().clone() for name, t in (tensors or {}).items()}


def _kind(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    found = {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"{kind}/")}
    return found or None


def _stored(values: NDArray[np.generic], path: Path) -> StoredArray:
    """Return where an array lies; one that is no plain part of a file is written to `path`."""
    kind = {"dtype": values.dtype.str, "shape": values.shape}
    root = _root(values)
    if root is not None:
        return StoredArray(path=Path(str(root.filename)), offset=root.offset, **kind)
    if not path.exists():
        np.ascontiguousarray(values).tofile(path)
    return StoredArray(path=path, offset=0, **kind)


def _root(values: NDArray[np.generic]) -> np.memmap[tuple[int, ...], np.dtype[np.generic]] | None:
    """Return the map of a file that an array is all of, in row order; None for any other array."""
    root: object = values
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if not isinstance(root, np.memmap) or not values.flags.c_contiguous:
        return None
    same = values.ctypes.data == root.ctypes.data and values.nbytes == root.nbytes
    return root if same else None


def _opened(stored: StoredArray) -> NDArray[np.generic]:
    if 0 in stored.shape:
        return np.empty(stored.shape, stored.dtype)
    return np.memmap(stored.path, stored.dtype, "r", stored.offset, stored.shape)
