"""From data files to the parts that passes and the report work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from planish.contract.errors import InvalidData, LabelOutOfRange, NonFiniteData
from planish.contract.spec import Spec
from planish.gate.arrays import read_headers
from planish.gate.match import Feed, is_preprocessed, match_arrays
from planish.gate.signature import Signature
from worker.engine.load.arrays import Array, open_array
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.splits import Splits, split
from worker.engine.model import InputSpec, Model, first_output

__all__ = ["Dataset", "Source", "Splits", "load_splits", "synthetic"]

_SCAN_BYTES = 64 << 20


def load_splits(
    spec: Spec, model: Model, data: Path | None, test_data: Path | None
) -> Splits | None:
    """Return the parts of the data, None when there is none.

    Args:
        spec: says task, preprocessing and seed.
        model: what the data must fit.
        data: ``.npz`` or ``.safetensors``; trains and calibrates.
        test_data: the sealed part; without it a fifth of `data` is sealed.

    Raises:
        InvalidData: damaged files, wrong shapes, types, lengths or labels; NaN or infinity.
    """
    if data is None:
        if test_data is not None:
            raise InvalidData("test_data came without data; send data too, or no data at all")
        return None
    classes = _classes(model) if spec.data.task == "classification" else None
    main = _read(spec, model, data, "data", classes)
    test = None if test_data is None else _read(spec, model, test_data, "test_data", classes)
    return split(main, test, spec.seed)


def synthetic(model: Model, samples: int, seed: int) -> Dataset:
    """Return seeded noise in the shape of the model's inputs, for jobs without data."""
    values = model.example(samples, seed)
    sources = tuple(
        Source(tensor.numpy(), _sample_shape(item), item.dtype)
        for tensor, item in zip(values, model.inputs, strict=True)
    )
    return Dataset(sources, np.arange(samples))


def signature(item: InputSpec) -> Signature:
    """Return an input in the words of the gate."""
    return Signature(item.name, item.shape, str(item.dtype).removeprefix("torch."))


def _read(spec: Spec, model: Model, path: Path, part: str, classes: int | None) -> Dataset:
    inputs = [signature(item) for item in model.inputs]
    match = match_arrays(inputs, read_headers(path), spec, part)
    sources = []
    for feed, item in zip(match.feeds, model.inputs, strict=True):
        values = open_array(path, feed.array)
        _check_finite(values, feed, part)
        _check_indices(values, item, model, f"{part}: {feed.array.name!r}")
        sources.append(_source(values, feed, item, inputs, spec))
    targets = None
    if match.targets is not None and classes is not None:
        targets = _labels(open_array(path, match.targets), classes, part)
    return Dataset(tuple(sources), np.arange(match.samples), targets)


def _source(
    values: Array, feed: Feed, item: InputSpec, inputs: list[Signature], spec: Spec
) -> Source:
    shape, last = _sample_shape(item), feed.layout == "nhwc"
    if not is_preprocessed(feed.input, inputs):
        return Source(values, shape, item.dtype, last)
    given = spec.data.preprocess
    return Source(values, shape, item.dtype, last, given.scale, given.mean, given.std)


def _sample_shape(item: InputSpec) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in item.shape[1:])


def _classes(model: Model) -> int:
    """Return the number of classes: the width of the logits."""
    with torch.no_grad():
        logits = first_output(model.module(*model.example()))
    if logits.ndim != 2:
        raise InvalidData(
            f"classification needs outputs of shape (batch, classes); this model's first output "
            f'has {logits.ndim} dimensions; set data.task to "none"'
        )
    return int(logits.shape[1])


def _labels(values: Array, classes: int, part: str) -> NDArray[np.int64]:
    stored = values.reshape(-1)
    labels = stored.astype(np.int64)
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        index = int(outside.argmax())
        raise LabelOutOfRange(
            f"{part}: targets[{index}] is {stored[index]}; the model has {classes} outputs, so "
            f"labels go from 0 to {classes - 1}"
        )
    return labels


def _check_finite(values: Array, feed: Feed, part: str) -> None:
    """Refuse NaN, infinity, and doubles that are too large for single precision."""
    if values.dtype.kind != "f":
        return
    rows = max(1, _SCAN_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(values), rows):
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(values[start : start + rows], np.float32))
        if not finite.all():
            place = tuple(int(axis[0]) for axis in np.nonzero(~finite))
            index = (start + place[0], *place[1:])
            raise NonFiniteData(
                f"{part}: {feed.array.name!r} holds {values[index]} at {list(index)}; "
                "only finite numbers are taken"
            )


def _check_indices(values: Array, item: InputSpec, model: Model, name: str) -> None:
    """Refuse token ids that an embedding fed by this input has no row for."""
    nodes = model.module.graph.find_nodes(op="placeholder")
    for given, node in zip(model.inputs, nodes, strict=True):
        for user in node.users if given is item else ():
            layer = model.module.get_submodule(user.target) if user.op == "call_module" else None
            if isinstance(layer, nn.Embedding) and len(values):
                low, high = int(values.min()), int(values.max())
                if low < 0 or high >= layer.num_embeddings:
                    raise InvalidData(
                        f"{name} holds values from {low} to {high}; the embedding {user.target!r} "
                        f"takes 0 to {layer.num_embeddings - 1}"
                    )
