"""An uploaded ONNX file as a `RuntimeModel`, checked by running it.

The proto is parsed only after `planish.gate.onnx` has walked the same bytes. Weights that lie in
other parts of the upload are copied in here, by the gate's offsets: neither onnx nor ONNX Runtime
ever follows a path of an upload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto, TensorProto

from planish.contract.errors import InvalidModel, PlanishError
from planish.contract.spec import ModelSpec
from planish.gate.inputs import check_stated_inputs
from planish.gate.onnx import OnnxHeader, read_onnx
from planish.gate.onnx.batch import check_parts, graph_batch, graph_inputs
from planish.gate.parts import ModelFiles
from planish.gate.signature import Signature
from worker.engine.load.pt2 import input_spec
from worker.engine.measure.size import ParameterCount
from worker.engine.model import InputSpec
from worker.engine.report.build import Amount
from worker.engine.runtime_model.figures import count_macs, count_parameters
from worker.engine.runtime_model.layers import FLOATS, is_quantized, layers_of, values_of
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.session import open_session
from worker.engine.runtime_model.tidy import graphs_of, tidy

INPUT_TYPES = (torch.float32, torch.int64, torch.int32, torch.bool)
CANONICAL = "model.onnx"
TRIED_SIZES = (8, 32, 64, 128, 224)
"""What stands for dimensions that vary besides the batch: the first with which the graph runs."""
_MOST = (2 << 30) - (1 << 20)
_NOTHING = Amount(ParameterCount(0, 0), None)


def load_onnx(
    path: Path, spec: ModelSpec, parts: Mapping[str, Path] | None = None, part: str = "model"
) -> RuntimeModel:
    """Return an ONNX file ready to be worked on.

    Args:
        path: the ``.onnx`` file.
        spec: what the client says about its inputs.
        parts: files of the same upload that hold weights, by the names that the graph gives them.
        part: where it stands in the job, for the pointers of errors.

    Raises:
        InvalidModel: or one of its kinds: damage, an operator outside the table, weights that are
            missing or no numbers, a graph that does not run.
    """
    header = read_onnx(path)
    check_parts(header, parts or {})
    try:
        model = _load(path, header, parts or {}, spec, part)
        return replace(model, amount=amount_of(model))
    except (PlanishError, MemoryError):
        raise
    except Exception as error:
        # Nothing that strangers send may look like a fault of ours.
        detail = str(error).partition("\n")[0][:300]
        raise InvalidModel(f"the model cannot be read: {detail}") from error


def write_canonical(files: ModelFiles, spec: ModelSpec, folder: Path) -> Path:
    """Write an upload's graph in one piece, with its weights in it and nothing beside the network.

    Args:
        files: the graph, and the parts that hold its weights.
        spec: what the client says about its inputs.
        folder: exists and is empty.

    Raises:
        InvalidModel: see `load_onnx`.
    """
    model = load_onnx(files.main, spec, {part.name: part.path for part in files.beside})
    target = folder / CANONICAL
    target.write_bytes(model.proto.SerializeToString())
    return target


def amount_of(model: RuntimeModel) -> Amount:
    """Return parameters and work of a graph; sequences count with one step, as for a ``.pt2``."""
    short = {name: 1 for i in model.inputs if len(i.shape) < 4 for name in _varying(i.shape)}
    try:
        macs = _macs(replace(model, sizes={**model.sizes, **short}))
    except Exception:  # the runtime has no class of its own for "not with this size"
        macs = _macs(model)
    return Amount(count_parameters(model.proto), macs)


def _macs(model: RuntimeModel) -> int | None:
    samples = model.batch or 1
    return count_macs(model.proto, model.named(model.example(samples)), samples)


def _load(
    path: Path, header: OnnxHeader, parts: Mapping[str, Path], spec: ModelSpec, part: str
) -> RuntimeModel:
    if header.graph.weight_bytes > _MOST:
        raise InvalidModel(
            f"the model has {header.graph.weight_bytes} bytes of weights; a graph in one piece "
            f"holds at most {_MOST}"
        )
    signatures = graph_inputs(header)
    check_stated_inputs(spec, signatures, part)
    proto = ModelProto()
    proto.ParseFromString(path.read_bytes())
    _attach(proto, header, parts)
    _name_dimensions(proto, signatures, graph_batch(header))
    proto = tidy(proto)
    _check_weights(proto)
    inputs = tuple(map(input_spec, signatures))
    _check_inputs(inputs)
    model = RuntimeModel(
        proto=proto,
        inputs=inputs,
        amount=_NOTHING,
        batch=graph_batch(header),
        already_quantized=is_quantized(proto),
    )
    return _tried(model)


def _attach(proto: ModelProto, header: OnnxHeader, parts: Mapping[str, Path]) -> None:
    """Put the weights that lie in other parts into the graph."""
    places = {item.tensor: item for item in header.external}
    for tensor in chain.from_iterable(g.initializer for g in graphs_of(proto.graph)):
        if tensor.data_location == TensorProto.DataLocation.DEFAULT:
            continue
        place = places[tensor.name]
        with parts[place.part].open("rb") as file:
            file.seek(place.offset)
            tensor.raw_data = file.read(place.size)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DataLocation.DEFAULT


def _name_dimensions(
    proto: ModelProto, signatures: tuple[Signature, ...], batch: int | None
) -> None:
    """Give dimensions the names that the gate gave them, so that every runtime sees the same."""
    by_name = {value.name: value for value in proto.graph.input}
    for signature in signatures:
        dims = by_name[signature.name].type.tensor_type.shape.dim
        for index, (dim, size) in enumerate(zip(dims, signature.shape, strict=True)):
            if isinstance(size, str) and (batch is None or index):
                dim.dim_param = size


def _check_weights(proto: ModelProto) -> None:
    weights = {layer.weight for layer in layers_of(proto)}
    for tensor in proto.graph.initializer:
        if tensor.data_type not in FLOATS:
            continue
        values = values_of(tensor).astype(np.float32)
        # Masks of attention hold minus infinity by intent; a weight never does.
        wrong = np.isnan(values) if tensor.name not in weights else ~np.isfinite(values)
        if wrong.any():
            raise InvalidModel(f"the weight {tensor.name!r} holds NaN or infinity")


def _check_inputs(inputs: tuple[InputSpec, ...]) -> None:
    for item in inputs:
        if item.dtype not in INPUT_TYPES:
            kind = str(item.dtype).removeprefix("torch.")
            raise InvalidModel(f"input {item.name!r} is {kind}; export the model in float32")


def _tried(model: RuntimeModel) -> RuntimeModel:
    """Return the model with sizes that it runs with, at two batches where it takes any."""
    varying = {name for item in model.inputs for name in _varying(item.shape)}
    first: Exception | None = None
    for size in TRIED_SIZES if varying else (0,):
        tried = replace(model, sizes=dict.fromkeys(varying, size))
        try:
            for batch in (model.batch,) if model.batch else (2, 3):
                _check_run(tried, batch)
        except PlanishError:
            raise
        except Exception as error:  # the runtime has no class of its own
            first = first or error
            continue
        return tried
    detail = str(first).partition("\n")[0][:300]
    raise InvalidModel(f"the model does not run in ONNX Runtime: {detail}") from first


def _check_run(model: RuntimeModel, batch: int) -> None:
    output = open_session(model.proto).run(None, model.named(model.example(batch)))[0]
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f":
        raise InvalidModel(
            "the model's first output is no tensor of floats; export it with its logits first"
        )
    if not output.ndim or output.shape[0] % batch:
        raise InvalidModel(
            f"the model's first output has shape {output.shape} for a batch of {batch}; its first "
            "dimension must be the batch"
        )


def _varying(shape: tuple[int | str, ...]) -> list[str]:
    return [size for size in shape[1:] if isinstance(size, str)]
