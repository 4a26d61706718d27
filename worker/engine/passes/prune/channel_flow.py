"""How channels flow through a graph: every index of every tensor gets a label.

The graph runs once on an example. Beside each value travels one label for each index of each of its
dimensions; rules for layers and operators say how labels move, and which become one because the
operator needs them to (a sum, an attention head, a grouped convolution). Labels that end up in one
set can only be removed together: the dependency groups of Fang et al. 2023, arXiv:2301.12900,
found index by index, so that padded shortcuts, slices, concatenations and views need no guessing.
Whatever no rule is known for keeps its channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, fx

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
    heads: frozenset[tuple[int, int]] = frozenset()
    products: dict[str, str] = field(default_factory=dict)
    means: dict[str, int] = field(default_factory=dict)


class FlowTracer(fx.Interpreter):
    """Runs a graph and the rules of its nodes; what rules see.

    Args:
        module: the graph.
        follow: returns the labels of a node's result: those of a tensor, or of a list of tensors;
            None where nothing of it may go.
        heads: (heads, size) of the inputs of every attention call.
    """

    def __init__(
        self, module: fx.GraphModule, follow: Follow, heads: Iterable[tuple[int, int]]
    ) -> None:
        super().__init__(module)
        self.flow = Flow(heads=frozenset(heads))
        self._follow = follow
        self.root = module
        self._lists: dict[fx.Node, list[Axes]] = {}
        self._paths = _first_paths(module)

    @property
    def labels(self) -> Labels:
        """The sets of labels."""
        return self.flow.labels

    def run_node(self, n: fx.Node) -> object:
        """Run a node and follow its channels."""
        result = super().run_node(n)
        axes = self._follow(self, n, result)
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


Follow = Callable[[FlowTracer, fx.Node, object], Axes | list[Axes] | None]
