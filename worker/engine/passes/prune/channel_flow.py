"""How channels flow through a graph: every index of every tensor gets a label.

The graph runs once on an example. Beside each value travels one label for each index of each of its
dimensions; rules for layers and operators say how labels move, and which become one because the
operator needs them to (a sum, an attention head, a grouped convolution). Labels that end up in one
set can only be removed together: the dependency groups of Fang et al. 2023, arXiv:2301.12900,
found index by index, so that padded shortcuts, slices, concatenations and views need no guessing.
Whatever no rule is known for keeps its channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from worker.engine.passes.attention import is_attention
from worker.engine.passes.prune.labels import Axes, Axis, Labels, unlabelled

Shape = tuple[int, ...]


@dataclass
class Flow:
    """The labels of a graph.

    Attributes:
        labels: the sets.
        tensors: labels of each tensor node, by its name.
        stored: labels of each parameter and buffer by its path; shared ones stand once.
        made: labels of the output channels of each weighted layer.
        read: labels of the channels that each convolution or linear layer sums over.
        scaled: labels of the channels of each BatchNorm.
        heads: (heads, size) of the inputs of every attention call.
        products: matrix products of two computed tensors, by node name: the node of the left one.
        means: dimension along which a `mean` node averages channels, by node name.
    """

    labels: Labels = field(default_factory=Labels)
    tensors: dict[str, Axes] = field(default_factory=dict)
    stored: dict[str, Axes] = field(default_factory=dict)
    made: dict[str, Axis] = field(default_factory=dict)
    read: dict[str, Axis] = field(default_factory=dict)
    scaled: dict[str, Axis] = field(default_factory=dict)
    heads: set[tuple[int, int]] = field(default_factory=set)
    products: dict[str, str] = field(default_factory=dict)
    means: dict[str, int] = field(default_factory=dict)


def trace_flow(module: fx.GraphModule, example: tuple[Tensor, ...]) -> Flow:
    """Follow the channels of a graph.

    Args:
        module: in eval mode; not changed.
        example: inputs of batch 2.
    """
    tracer = FlowTracer(module)
    with torch.no_grad():
        tracer.flow.heads.update(_attention_shapes(module, example))
        tracer.run(*example)
    return tracer.flow


class FlowTracer(fx.Interpreter):
    """Runs a graph and the rules of its nodes; what rules see."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.flow = Flow()
        self.root = module
        self._lists: dict[fx.Node, list[Axes]] = {}
        self._paths = _first_paths(module)

    @property
    def labels(self) -> Labels:
        """The sets of labels."""
        return self.flow.labels

    def run_node(self, n: fx.Node) -> object:
        """Run a node and follow its channels."""
        from worker.engine.passes.prune.channel_rules import follow  # rules need this class

        result = super().run_node(n)
        axes = follow(self, n, result)
        if isinstance(axes, list):
            self._lists[n] = axes
        elif isinstance(result, Tensor):
            self.flow.tensors[n.name] = axes or unlabelled(tuple(result.shape))
        return result

    def axes(self, value: object) -> Axes | None:
        """Return the labels of a tensor argument; None for anything else."""
        return self.flow.tensors.get(value.name) if isinstance(value, fx.Node) else None

    def parts(self, value: object) -> list[Axes] | None:
        """Return the labels of an argument that is a list of tensors."""
        return self._lists.get(value) if isinstance(value, fx.Node) else None

    def shape(self, node: fx.Node) -> Shape:
        """Return the shape of an argument."""
        value = self.env[node]
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    def store(self, path: str, axes: Axes) -> None:
        """Say how the indices of a parameter or buffer are labelled; a shared one joins."""
        first = self._paths.get(path)
        if first is None:
            return
        before = self.flow.stored.setdefault(first, axes)
        if before is not axes:
            for one, other in zip(before, axes, strict=True):
                self.labels.join(one, other)

    def stored(self, path: str) -> Axes | None:
        """Return how the tensor at a path is labelled so far."""
        return self.flow.stored.get(self._paths.get(path, path))

    def outputs(self, layer: str, count: int) -> Axis:
        """Return the labels of a layer's output channels, the same at every call."""
        known = self.flow.made.get(layer)
        if known is None:
            known = self.flow.made[layer] = self.labels.fresh(count)
        return known

    def keep_all(self, node: fx.Node, why: str) -> None:
        """Keep every channel that a node reads."""
        for source in node.all_input_nodes:
            for axes in [self.axes(source), *(self.parts(source) or ())]:
                for axis in axes or ():
                    self.labels.keep(axis, why)


def _first_paths(module: fx.GraphModule) -> dict[str, str]:
    """Return, for the path of each parameter and buffer, the first path of the same tensor."""
    first: dict[int, str] = {}
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return {path: first.setdefault(id(tensor), path) for path, tensor in named}


def _attention_shapes(module: fx.GraphModule, example: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return (heads, head size) of the queries, keys and values of each attention call."""
    calls = [n for n in module.graph.nodes if is_attention(module, n)]
    if not calls:
        return []
    recorder = _Recorder(module, {s for n in calls for s in n.all_input_nodes[:3]})
    recorder.run(*example)
    return [(shape[-3], shape[-1]) for shape in recorder.seen if len(shape) > 3]


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, watched: set[fx.Node]) -> None:
        super().__init__(module)
        self._watched = watched
        self.seen: list[Shape] = []

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n in self._watched and isinstance(result, Tensor):
            self.seen.append(tuple(result.shape))
        return result
