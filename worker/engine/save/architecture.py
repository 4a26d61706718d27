"""A canonical graph as data: its layers with their options, its calls, how they are wired.

`worker.engine.save.rebuild` holds the tables and reads what is written here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import torch
from pydantic import JsonValue
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx.node import Argument

from planish.contract.errors import InvalidModel
from worker.engine.model import InputSpec
from worker.engine.save.rebuild import FORMAT, FUNCTIONS, LAYERS, VERSION

Json: TypeAlias = dict[str, JsonValue]
State: TypeAlias = dict[str, Tensor]

_FUNCTIONS = {function: name for name, function in FUNCTIONS.items()}


def describe(
    module: fx.GraphModule, inputs: tuple[InputSpec, ...], weights: str
) -> tuple[Json, State]:
    """Return the description of a graph and the tensors that go with it, shared ones once.

    Args:
        module: read from a ``.pt2`` and re-modularized: nothing but torch.nn layers and ATen calls.
        inputs: what it takes.
        weights: name of the file that the tensors will lie in.

    Raises:
        InvalidModel: a layer or an argument that no description holds.
    """
    layers = {path: _layer(path, item) for path, item in module.named_modules() if _is_layer(item)}
    state, shared = _state(module)
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    description: Json = {
        "format": FORMAT,
        "version": VERSION,
        "torch": torch.__version__.partition("+")[0],
        "weights": weights,
        "inputs": [_input(item, node) for item, node in zip(inputs, places, strict=True)],
        "layers": dict(layers),
        "tensors": dict(_bare(module, layers)),
        "shared": dict(shared),
        "calls": [_call(node) for node in module.graph.nodes if node.op not in _ENDS],
        "output": _argument(module.graph.output_node().args[0]),
    }
    return description, state


_ENDS = ("placeholder", "output")


def _is_layer(module: nn.Module) -> bool:
    return type(module) is not nn.Module and not isinstance(module, fx.GraphModule)


def _input(spec: InputSpec, node: fx.Node) -> Json:
    kind = str(spec.dtype).removeprefix("torch.")
    return {"name": spec.name, "shape": list(spec.shape), "dtype": kind, "value": node.name}


def _layer(path: str, layer: nn.Module) -> Json:
    kind = type(layer).__name__
    if kind not in LAYERS:
        raise InvalidModel(f"layer {path!r} is a {kind}, which architecture.json has no word for")
    return {"kind": kind, "options": {name: _option(layer, name) for name in LAYERS[kind]}}


def _option(layer: nn.Module, name: str) -> JsonValue:
    value = getattr(layer, name)
    if name == "bias":
        return value is not None
    return list(value) if isinstance(value, tuple | list) else value


def _tensors(module: nn.Module) -> State:
    """Return parameters and buffers by every name that they have, temporary ones included."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _state(module: nn.Module) -> tuple[State, dict[str, str]]:
    """Return each tensor under its first name, and which other names mean the same."""
    first: dict[int, str] = {}
    state: State = {}
    shared: dict[str, str] = {}
    for name, tensor in _tensors(module).items():
        if id(tensor) in first:
            shared[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            state[name] = tensor.detach().contiguous()
    return state, shared


def _bare(module: nn.Module, layers: Mapping[str, Json]) -> dict[str, JsonValue]:
    """Return the tensors that belong to no layer: class tokens, position ids, integers."""
    found: dict[str, JsonValue] = {}
    for name, tensor in _tensors(module).items():
        host, _, leaf = name.rpartition(".")
        if host not in layers:
            hidden = leaf in module.get_submodule(host)._non_persistent_buffers_set
            is_parameter = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
            found[name] = {"parameter": is_parameter, "persistent": not hidden}
    return found


def _call(node: fx.Node) -> JsonValue:
    if node.op == "get_attr":
        return {"name": node.name, "kind": "tensor", "target": str(node.target)}
    kinds = {"call_module": "layer", "call_function": "function"}
    call: Json = {
        "name": node.name,
        "kind": kinds[node.op],
        "target": _target(node),
        "args": [_argument(item) for item in node.args],
    }
    if node.kwargs:
        call["kwargs"] = {name: _argument(item) for name, item in node.kwargs.items()}
    return call


def _target(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, str):
        return target
    if isinstance(target, OpOverload):
        return str(target)
    return _FUNCTIONS[target]


def _argument(item: Argument) -> JsonValue:
    if item is None or isinstance(item, bool | int | str):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else {"float": str(item)}
    if isinstance(item, fx.Node):
        return {"value": item.name}
    if isinstance(item, tuple):
        return {"tuple": [_argument(part) for part in item]}
    if isinstance(item, list):
        return [_argument(part) for part in item]
    if isinstance(item, dict):
        return {"dict": {str(name): _argument(part) for name, part in item.items()}}
    if isinstance(item, torch.device):
        return {"device": "cpu"}
    for kind in (torch.dtype, torch.memory_format, torch.layout):
        if isinstance(item, kind):
            return {kind.__name__: str(item).removeprefix("torch.")}
    raise InvalidModel(f"a call has an argument of type {type(item).__name__}")
