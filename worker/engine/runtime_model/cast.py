"""Cast of an ONNX graph: weights and arithmetic in 16-bit floats, where the values fit.

fp16 by ONNX Runtime's own converter (onnxruntime.transformers.float16). bf16 is stored in 16 bits
and computed in float32, for want of kernels: see `worker.engine.save.bfloat16`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from pydantic import JsonValue

from planish.contract.errors import NothingChanged
from planish.contract.onnx_models import computes_in_integers
from planish.contract.recipe import Cast
from planish.contract.report import LayerChanged, PassPlan
from worker.engine.cast.ranges import HEADROOM
from worker.engine.load.data import synthetic
from worker.engine.passes.layers import matching_names
from worker.engine.passes.protocol import Surroundings
from worker.engine.runtime_model import simplify
from worker.engine.runtime_model.layers import Graph, Layer, layers_of
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import Chosen, RuntimeOutcome, chosen
from worker.engine.runtime_model.session import exposing, open_session
from worker.engine.runtime_model.tidy import recompact
from worker.engine.save.bfloat16 import store_in_bfloat16

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_NOISE_WARNING = (
    "no data came along: ranges of values were measured on synthetic noise; send data, so that "
    "layers whose values leave the range of fp16 are found"
)
_FLOAT = "float32"


def run(model: RuntimeModel, params: Cast, around: Surroundings) -> RuntimeOutcome:
    """Lower a float graph, after simplifying it; inputs and outputs stay float32.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: every layer stays float32.
    """
    if not model.already_quantized:
        model = simplify.run(model, simplify.EVERYTHING, around).model
    large = _too_large(model, params, around) if params.dtype == "fp16" else {}
    found = _select(model, params, large, around.step)
    if not found.names:
        raise NothingChanged(f"no layer can become {params.dtype} ({found.why()})")
    before = _weight_bytes(model.proto)
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    proto = _half(proto, found, large) if params.dtype == "fp16" else _bfloat(proto, found)
    recompact(proto)
    kind = "float16" if params.dtype == "fp16" else "bfloat16"
    return RuntimeOutcome(
        model=replace(model, proto=proto, precision=DTYPES[params.dtype]),
        changed=True,
        layers=tuple(LayerChanged(name=n, what=f"float32 → {kind}") for n in found.names),
        skipped=found.skipped,
        facts={
            "dtype": params.dtype,
            "weight_bytes": [before, _weight_bytes(proto)],
            "largest_values": {**large},
            **_warning(params, around),
        },
    )


def plan(model: RuntimeModel, params: Cast, around: Surroundings) -> tuple[RuntimeModel, PassPlan]:
    """Do it, and say what would be lowered."""
    outcome = run(model, params, around)
    return outcome.model, PassPlan(
        op=params.op,
        layers_changed=len(outcome.layers),
        layers=outcome.layers,
        layers_skipped=outcome.skipped,
        facts=outcome.facts,
    )


def _select(model: RuntimeModel, params: Cast, large: dict[str, float], step: int) -> Chosen:
    layers = layers_of(model.proto)
    pointer = f"/recipe/{step - 1}/keep_float"
    kept = set(matching_names([layer.name for layer in layers], params.keep_float, pointer))
    whys = {layer.name: _why(model.proto, layer, kept, large, params) for layer in layers}
    wide = {layer.weight for layer in layers if whys[layer.name]}
    return chosen(
        [
            (
                layer.name,
                whys[layer.name]
                or (
                    "shares its weight with a layer that stays float32"
                    if layer.weight in wide
                    else ""
                ),
            )
            for layer in layers
        ]
    )


def _why(
    proto: ModelProto, layer: Layer, kept: set[str], large: dict[str, float], params: Cast
) -> str:
    if layer.name in kept:
        return "named in keep_float"
    if layer.dtype != TensorProto.FLOAT:
        return "its weight is no float32"
    node = next(node for node in proto.graph.node if node.name == layer.name)
    peaks = [large[name] for name in (*node.input, *node.output) if name in large]
    if peaks:
        return f"values up to {max(peaks):.4g} leave {params.dtype}'s range"
    return ""


def _too_large(model: RuntimeModel, params: Cast, around: Surroundings) -> dict[str, float]:
    """Return the values and weights that leave half of the type's range, with their largest."""
    limit = float(torch.finfo(torch.float16).max) / HEADROOM
    graph = Graph(model.proto)
    peaks = {
        name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
        for name, tensor in graph.constants.items()
        if tensor.data_type == TensorProto.FLOAT
    }
    for name, peak in _observed(model, params, around):
        peaks[name] = max(peak, peaks.get(name, 0.0))
    return {name: peak for name, peak in peaks.items() if limit < peak < float("inf")}


def _observed(
    model: RuntimeModel, params: Cast, around: Surroundings
) -> Iterator[tuple[str, float]]:
    """Yield the largest finite magnitude of every float value in every call."""
    if around.splits is None:
        samples = synthetic(model, params.samples, around.seed)
    else:
        samples = around.splits.calibration.head(params.samples)
    names = [name for node in model.proto.graph.node for name in node.output if name]
    session = open_session(exposing(model.proto, names))
    done = 0
    for call in model.calls(samples):
        around.progress.update(
            min(done / len(samples), 1.0), f"measuring ranges {done}/{len(samples)}"
        )
        for name, value in zip(names, session.run(names, call), strict=True):
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                finite = value[np.isfinite(value)]
                yield name, float(np.abs(finite).max(initial=0.0))
        done += len(next(iter(call.values())))


def _half(proto: ModelProto, found: Chosen, large: dict[str, float]) -> ModelProto:
    wide = [layer.name for layer in found.skipped]
    wide += [
        node.name
        for node in proto.graph.node
        if any(name in large for name in (*node.input, *node.output))
    ]
    integers = {n.op_type for n in proto.graph.node if computes_in_integers(n.op_type)}
    half: ModelProto = convert_float_to_float16(
        proto,
        keep_io_types=True,
        disable_shape_infer=False,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *sorted(integers)],
        node_block_list=list(dict.fromkeys(wide)),
    )
    _never_narrow(half)
    # The converter puts the casts of inputs at the end.
    ordered = ir.from_proto(half)
    ordered.graph.sort()
    done: ModelProto = ir.to_proto(ordered)
    return done


def _never_narrow(proto: ModelProto) -> None:
    """Join neighbours that stay float32: the converter casts to fp16 and back between them."""
    graph = Graph(proto)
    casts = {node.output[0]: node for node in proto.graph.node if node.op_type == "Cast"}
    wide = {name for name, node in casts.items() if _type_of(node) == TensorProto.FLOAT}
    replaced: dict[str, str] = {}
    for name in wide:
        narrow = casts.get(casts[name].input[0])
        if narrow is not None and _type_of(narrow) == TensorProto.FLOAT16:
            replaced[name] = narrow.input[0]
    for name, source in replaced.items():
        casts[name].input[0] = source
        for user, index in graph.users.get(name, ()):
            user.input[index] = source
    read = {name for node in proto.graph.node for name in node.input}
    read |= {value.name for value in proto.graph.output}
    kept = [n for n in proto.graph.node if n.op_type != "Cast" or n.output[0] in read]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def _type_of(cast: NodeProto) -> int:
    return int(next(attribute.i for attribute in cast.attribute if attribute.name == "to"))


def _bfloat(proto: ModelProto, found: Chosen) -> ModelProto:
    """Round the weights and biases of the chosen layers, and store them in 16 bits."""
    names = set(found.names)
    rounded = {
        name
        for layer in layers_of(proto)
        if layer.name in names
        for name in (layer.weight, layer.bias)
        if name is not None
    }
    for tensor in proto.graph.initializer:
        if tensor.name in rounded and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    store_in_bfloat16(proto)
    return proto


def _weight_bytes(proto: ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def _warning(params: Cast, around: Surroundings) -> dict[str, JsonValue]:
    return {"warning": _NOISE_WARNING} if around.splits is None and params.dtype == "fp16" else {}
