"""From data files to the parts that passes and the report work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from planish.contract.columns import Columns
from planish.contract.errors import InvalidData
from planish.contract.spec import Spec
from planish.gate.arrays import identify_data, read_headers
from planish.gate.match import NO_NAMES, Feed, is_preprocessed, match_arrays
from planish.gate.signature import Signature
from worker.engine.load.arrays import Array, ArrayFile, span
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.finite import check_finite
from worker.engine.load.parquet import unpack_parquet
from worker.engine.load.scratch import Scratch
from worker.engine.load.splits import Splits, split
from worker.engine.load.targets import check_answers, read_scores, read_targets
from worker.engine.model import AnyModel, InputSpec

__all__ = ["Dataset", "Source", "Splits", "load_splits", "synthetic"]


def load_splits(
    spec: Spec, model: AnyModel, data: Path | None, test_data: Path | None
) -> Splits | None:
    """Return the parts of the data, None when there is none.

    Args:
        spec: says task, preprocessing and seed.
        model: what the data must fit.
        data: ``.npz``, ``.safetensors`` or ``.parquet``; trains and calibrates.
        test_data: the sealed part; without it a fifth of `data` is sealed.

    Raises:
        InvalidData: damaged files, wrong shapes, types, lengths or labels; NaN or infinity.
    """
    if data is None:
        if test_data is not None:
            raise InvalidData("test_data came without data; send data too, or no data at all")
        return None
    answer = check_answers(model, spec.data.task)
    main = _read(spec, model, data, "data", answer)
    test = None if test_data is None else _read(spec, model, test_data, "test_data", answer)
    return split(main, test, spec.seed)


def synthetic(model: AnyModel, samples: int, seed: int) -> Dataset:
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


def _read(spec: Spec, model: AnyModel, path: Path, part: str, answer: tuple[int, ...]) -> Dataset:
    inputs = [signature(item) for item in model.inputs]
    scratch, names = Scratch(), NO_NAMES
    columns = Columns.read(path)  # of a parquet file that was opened before
    if columns is None and identify_data(path) == "parquet":
        unpacked = unpack_parquet(path, inputs, spec, part, scratch)
        columns = Columns(names=dict(unpacked.names), has_images=unpacked.has_images)
        path = unpacked.path
    if columns is not None:
        names = columns.names
        if columns.has_images:
            spec = _with_channels_last(spec)
    match = match_arrays(inputs, read_headers(path), spec, part, names)
    file = ArrayFile(path, scratch)
    sources = []
    for feed, item in zip(match.feeds, model.inputs, strict=True):
        values = file.open(feed.array)
        check_finite(values, feed.array.name, part)
        _check_indices(values, item, model, f"{part}: {feed.array.name!r}")
        sources.append(_source(values, feed, item, inputs, spec))
    targets = read_targets(file, match, spec.data.task, answer, part)
    scores = read_scores(file, match, part)
    return Dataset(tuple(sources), np.arange(match.samples), targets, scores, scratch)


def _with_channels_last(spec: Spec) -> Spec:
    given = spec.data.preprocess.model_copy(update={"layout": "nhwc"})
    return spec.model_copy(update={"data": spec.data.model_copy(update={"preprocess": given})})


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


def _check_indices(values: Array, item: InputSpec, model: AnyModel, name: str) -> None:
    """Refuse token ids that an embedding fed by this input has no row for."""
    table = model.tables().get(item.name)
    if table is None or not len(values):
        return
    layer, rows = table
    low, high = span(values)
    if low < 0 or high >= rows:
        raise InvalidData(
            f"{name} holds values from {low} to {high}; the embedding {layer!r} takes 0 to "
            f"{rows - 1}"
        )
