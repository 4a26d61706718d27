"""ATen calls with lifted weights become `torch.nn` layers again, under the names they had.

The result trains, prunes and quantizes like the module that was exported: same state_dict keys,
same outputs bit for bit, `train` and `eval` as usual.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from worker.engine.load.call import Layer, arguments_of
from worker.engine.load.graph import LAYER
from worker.engine.load.inplace import drop_batch_counters, make_functional, name_of
from worker.engine.load.layers import layer_of
from worker.engine.model import keep_persistence

FUNCTIONS = "fn"

_CHECKS = frozenset(
    (
        "_assert_tensor_metadata",
        "_assert_scalar",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    )
)
_TUPLES = frozenset(("_native_batch_norm_legit_no_training", "native_layer_norm"))
_RECURRENT = frozenset(("lstm", "gru"))
_COUNTER = "num_batches_tracked"
_LAST = 2**63 - 1


def remodularize(module: fx.GraphModule) -> fx.GraphModule:
    """Return the canonical form of a graph read by `read_graph`, in eval mode.

    Layers with weights keep their names; those without sit under ``fn.`` and the node's name. The
    given module is used up.
    """
    graph = module.graph
    _drop_run_time(graph)
    drop_batch_counters(graph)
    make_functional(graph)
    _drop_whole_slices(graph)
    graph.eliminate_dead_code()
    tensors = {n: _fetch(module, str(n.target)) for n in graph.nodes if n.op == "get_attr"}
    builder = _Builder(module, _free_name(module, FUNCTIONS), tensors)
    for node in list(graph.nodes):
        builder.visit(node)
    graph.eliminate_dead_code()
    graph.lint()
    for node in graph.nodes:
        node.meta.clear()
    return keep_persistence(module, fx.GraphModule(module, graph).eval())


def _drop_run_time(graph: fx.Graph) -> None:
    """Erase run-time asserts and baked modes; let `view` take any memory format."""
    for node in reversed(list(graph.nodes)):
        if name_of(node) in _CHECKS:
            graph.erase_node(node)
        elif node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        elif name_of(node) in _RECURRENT:
            node.kwargs = {**arguments_of(node, node.target), "train": False}
            node.args = ()


def _drop_whole_slices(graph: fx.Graph) -> None:
    """Take out slices from the first to the last element, as ``x[:, :, ::2]`` exports them.

    They change nothing, but each costs a copy of its input's size in every backward pass.
    """
    for node in list(graph.nodes):
        if node.target is not torch.ops.aten.slice.Tensor:
            continue
        given = arguments_of(node, node.target)
        source, end = given["self"], given["end"]
        whole = given["start"] in (None, 0) and end in (None, _LAST) and given["step"] == 1
        # A tensor that is handed out twice would have two names in a saved file.
        if whole and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(source)
            graph.erase_node(node)


@dataclass
class _Builder:
    """Puts layers in the place of calls, one node after the other."""

    module: fx.GraphModule
    functions: str
    tensors: dict[fx.Node, Tensor]
    built: dict[tuple[str, tuple[tuple[str, str], ...]], str] = field(default_factory=dict)

    def visit(self, node: fx.Node) -> None:
        """Replace a call by a layer, where it was one."""
        layer = layer_of(node, self.tensors)
        if layer is None:
            return
        path = self._weighted(node, layer) if layer.weights else f"{self.functions}.{node.name}"
        if not layer.weights:
            self.module.add_submodule(path, layer.module)
        with self.module.graph.inserting_before(node):
            call = self.module.graph.call_module(path, layer.inputs)  # type: ignore[arg-type]
        call.meta = dict(node.meta)
        if name_of(node) in _TUPLES:
            _unpack(node, call)
        node.replace_all_uses_with(call)
        self.module.graph.erase_node(node)

    def _weighted(self, node: fx.Node, layer: Layer) -> str:
        """Install a layer with weights; the same layer called twice is one module."""
        names = {slot: str(weight.target) for slot, weight in layer.weights.items()}
        names = self._untied(names, node.meta.get(LAYER, ""))
        key = (type(layer.module).__name__, tuple(sorted(names.items())))
        if key not in self.built:
            path = self._path(names, node)
            counter = self._counter(names)
            _fill(
                layer.module, {slot: _fetch(self.module, n) for slot, n in names.items()}, counter
            )
            self.module.add_submodule(path, layer.module)
            self.built[key] = path
        return self.built[key]

    def _untied(self, names: dict[str, str], hint: str) -> dict[str, str]:
        """Use the names of the layer that the call stood in, where they mean the same tensors.

        Export names one alias of tied weights everywhere.
        """
        own = {slot: f"{hint}.{slot}" for slot in names}
        same = bool(hint) and all(
            _find(self.module, own[slot]) is _fetch(self.module, names[slot]) for slot in names
        )
        return own if same else names

    def _path(self, names: dict[str, str], node: fx.Node) -> str:
        """Return the layer's original path, or a new one where its weights lie bare or shared."""
        first = next(iter(names.values()))
        path, _, leaf = first.rpartition(".")
        alone = path and all(name == f"{path}.{slot}" for slot, name in names.items())
        if alone and _holds_only(self.module.get_submodule(path), {*names, _COUNTER}):
            return path
        if leaf == "weight":
            new = f"{path}_{name_of(node)}" if path else node.name
        else:
            new = first.removesuffix("_weight") if leaf.endswith("_weight") else f"{first}_layer"
        return _free_name(self.module, new)

    def _counter(self, names: dict[str, str]) -> Tensor:
        mean = names.get("running_mean", "")
        found = _find(self.module, f"{mean.rpartition('.')[0]}.{_COUNTER}") if mean else None
        return found if isinstance(found, Tensor) else torch.zeros((), dtype=torch.long)


def _fill(module: nn.Module, tensors: dict[str, Tensor], counter: Tensor) -> None:
    """Give a module on the meta device its real tensors."""
    for slot, tensor in tensors.items():
        if slot in module._buffers:
            module._buffers[slot] = tensor
        elif isinstance(tensor, nn.Parameter):
            module._parameters[slot] = tensor
        else:
            module._parameters[slot] = nn.Parameter(tensor, requires_grad=False)
    if module._buffers.get(_COUNTER) is not None:
        module._buffers[_COUNTER] = counter


def _holds_only(module: nn.Module, names: set[str]) -> bool:
    """Tell whether a module is a bare container of nothing but these tensors."""
    bare = type(module) is nn.Module and not module._modules
    return bare and {*module._parameters, *module._buffers} <= names


def _free_name(module: nn.Module, name: str) -> str:
    """Return a path that nothing lies at yet."""
    free, count = name, 1
    while _find(module, free) is not None:
        count += 1
        free = f"{name}_{count}"
    return free


def _unpack(node: fx.Node, call: fx.Node) -> None:
    """Let the readers of a tuple's first item read the layer's output; nobody reads the others."""
    for user in list(node.users):
        if user.target is operator.getitem and user.args[1] == 0:
            user.replace_all_uses_with(call)
        if not user.users:
            node.graph.erase_node(user)


def _fetch(module: nn.Module, name: str) -> Tensor:
    found = _find(module, name)
    if not isinstance(found, Tensor):
        raise TypeError(f"{name} is no tensor")
    return found


def _find(module: nn.Module, name: str) -> object:
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
