"""Finding layers in a model's graph, by name pattern and by place."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from planish.contract.errors import InvalidRecipe
from planish.contract.problem import FieldError

Weighted = _ConvNd | nn.Linear | nn.Embedding


def weighted_layers(module: fx.GraphModule) -> dict[str, nn.Module]:
    """Return convolutions, linear layers and embeddings by name, in graph order."""
    found: dict[str, nn.Module] = {}
    for node in module.graph.nodes:
        layer = layer_of(module, node)
        if isinstance(layer, Weighted):
            found.setdefault(node.target, layer)
    return found


def layer_of(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the submodule that a node calls, None for other nodes."""
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def matching_layers(module: fx.GraphModule, patterns: Sequence[str], pointer: str) -> list[str]:
    """Return the names of the weighted layers that match any of the shell patterns.

    Args:
        module: the graph.
        patterns: layer names or `fnmatch` patterns, e.g. ``layer1.*.conv2``.
        pointer: JSON pointer of the list in the spec, for the error.

    Raises:
        InvalidRecipe: a pattern matches no layer; near names are given.
    """
    return matching_names(list(weighted_layers(module)), patterns, pointer)


def matching_names(names: Sequence[str], patterns: Sequence[str], pointer: str) -> list[str]:
    """Return the names of layers that match any of the shell patterns; see `matching_layers`."""
    matched: dict[str, None] = {}
    for index, pattern in enumerate(patterns):
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            near = difflib.get_close_matches(pattern, names, 3, cutoff=0.3) or names[:3]
            detail = f"no layer is called {pattern!r}; near names: {', '.join(near) or 'none'}"
            raise InvalidRecipe(detail, (FieldError(pointer=f"{pointer}/{index}", detail=detail),))
        matched.update(dict.fromkeys(hits))
    return list(matched)


def shared_weights(module: fx.GraphModule) -> dict[str, str]:
    """Return the layers that share a weight with others, and with which: none changes alone."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, layer in weighted_layers(module).items():
        owners[id(layer.weight)].append(name)
    return {
        name: f"shares its weight with {', '.join(n for n in names if n != name)}"
        for names in owners.values()
        if len(names) > 1
        for name in names
    }


def output_layers(module: fx.GraphModule) -> list[str]:
    """Return the weighted layers whose channels are channels of the model's outputs."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    return layers_before(module, output.all_input_nodes)


def layers_before(module: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[str]:
    """Walk back from `nodes` to the first weighted layer on each way and return their names."""
    found: dict[str, None] = {}
    todo, seen = list(nodes), set[fx.Node]()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(layer_of(module, node), Weighted):
            found[str(node.target)] = None
        else:
            todo += node.all_input_nodes
    return list(found)


def operator_name(node: fx.Node) -> str:
    """Return ``reshape`` for a call of ``aten.reshape.default``; empty for other nodes."""
    if node.op != "call_function":
        return ""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[1] if schema is not None else node.target.__name__  # type: ignore[union-attr]
    return str(name)


def out_channels(layer: nn.Module) -> int:
    """Return the number of output channels of a weighted layer."""
    if isinstance(layer, _ConvNd):
        return layer.out_channels
    return layer.out_features if isinstance(layer, nn.Linear) else layer.embedding_dim  # type: ignore[return-value]


def has_batchnorm(module: nn.Module) -> bool:
    """Tell whether any layer normalizes by batch statistics."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def in_channels(layer: nn.Module) -> int:
    """Return the number of channels that a weighted layer reads; 0 for an embedding."""
    if isinstance(layer, _ConvNd):
        return layer.in_channels
    return layer.in_features if isinstance(layer, nn.Linear) else 0
