"""After channels went, views still carry the old sizes as constants: recompute them.

The recorded shapes of every node before pruning say which dimensions of a view belong together; a
size of -1 is no safer than a number: it silently regroups attention heads when the width shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, fx
from torch.fx.node import Argument

from worker.engine.passes.layers import operator_name

Shapes = dict[str, tuple[int, ...]]
SHAPE_KEEPING = {"contiguous", "clone", "to", "_to_copy", "dropout"}
VIEWS = {"view", "reshape", "_unsafe_view"}
REORDERINGS = {"transpose", "permute", "unsqueeze", "expand"}


class CannotRepair(ValueError):
    """A view's new sizes do not follow from the recorded shapes."""


def record_shapes(module: fx.GraphModule, example: tuple[Tensor, ...]) -> Shapes:
    """Run the graph once and return the shape of each tensor node by its name."""
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*example)
    return recorder.shapes


def repair_shapes(
    module: fx.GraphModule,
    example: tuple[Tensor, ...],
    before: Shapes,
    heads: Mapping[str, int],
) -> int:
    """Correct the constants of view, reshape, expand and split nodes in place.

    Args:
        module: the pruned graph, in eval mode.
        example: inputs of the batch size that `before` was recorded with.
        before: shapes from `record_shapes` before pruning.
        heads: attention heads that each projection layer has now, by layer name.

    Returns:
        How many nodes were changed.

    Raises:
        CannotRepair: the old shapes do not say what a node should become.
    """
    repairer = _Repairer(module, before, heads)
    with torch.no_grad():
        repairer.run(*example)
    module.recompile()
    return repairer.changed


def projection_of(node: object) -> str | None:
    """Return the layer whose output reaches `node` through views and reorderings only."""
    passed = VIEWS | REORDERINGS | SHAPE_KEEPING
    while isinstance(node, fx.Node) and operator_name(node) in passed:
        node = node.args[0]
    return str(node.target) if isinstance(node, fx.Node) and node.op == "call_module" else None


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.shapes: Shapes = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


class _Repairer(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, before: Shapes, heads: Mapping[str, int]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.before, self.heads, self.changed = before, heads, 0

    def run_node(self, n: fx.Node) -> object:
        name = operator_name(n)
        if name in VIEWS:
            self._view(n)
        elif name == "expand":
            self._expand(n)
        elif name in ("split", "split_with_sizes"):
            self._split(n)
        return super().run_node(n)

    def _sizes(self, node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shape of the node's input before and now."""
        source = node.args[0]
        if not isinstance(source, fx.Node):
            raise CannotRepair(f"{node.name} has no tensor input")
        return self.before[source.name], tuple(self.env[source].shape)

    def _put(self, node: fx.Node, sizes: list[Argument]) -> None:
        old = node.args[1]
        if not isinstance(old, list | tuple) or list(old) != sizes:
            node.args = (node.args[0], sizes, *node.args[2:])
            self.changed += 1

    def _view(self, node: fx.Node) -> None:
        old, now = self._sizes(node)
        if old == now:
            return
        wanted, after = list(node.args[1]), self.before[node.name]  # type: ignore[arg-type]
        for inside, outside in matching_dims(old, after):
            product = math.prod(now[i] for i in inside)
            if product == math.prod(old[i] for i in inside):
                continue
            for dim, size in self._outer_sizes(node, outside, product).items():
                if isinstance(wanted[dim], int) and wanted[dim] != -1:
                    wanted[dim] = size
        self._put(node, wanted)

    def _outer_sizes(self, node: fx.Node, outside: list[int], product: int) -> dict[int, int]:
        """Return the new sizes of the output dimensions that hold `product` elements together."""
        after = self.before[node.name]
        if len(outside) == 1:
            return {outside[0]: product}
        heads = self.heads.get(projection_of(node) or "")
        if heads is not None and len(outside) == 2 and product % heads == 0:
            return {outside[0]: heads, outside[1]: product // heads}
        sizes = " x ".join(str(after[dim]) for dim in outside)
        raise CannotRepair(
            f"a view splits its channels into {sizes}, which cannot shrink to {product}"
        )

    def _expand(self, node: fx.Node) -> None:
        old, now = self._sizes(node)
        after, wanted = self.before[node.name], list(node.args[1])  # type: ignore[arg-type]
        offset = len(after) - len(old)
        for dim in range(offset, len(after)):
            moved = old[dim - offset] == after[dim] != now[dim - offset]
            if moved and isinstance(wanted[dim], int) and wanted[dim] != -1:
                wanted[dim] = now[dim - offset]
        self._put(node, wanted)

    def _split(self, node: fx.Node) -> None:
        old, now = self._sizes(node)
        dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        if not isinstance(dim, int) or old[dim] == now[dim]:
            return
        sizes = node.args[1]
        parts = list(sizes) if isinstance(sizes, list | tuple) else [sizes] * -(-old[dim] // sizes)  # type: ignore[operator]
        if len(set(parts)) != 1 or now[dim] % len(parts):
            raise CannotRepair(
                f"a split into {parts} of {old[dim]} channels cannot shrink to {now[dim]}"
            )
        part = now[dim] // len(parts)
        if isinstance(sizes, list | tuple):
            self._put(node, [part] * len(parts))
        else:
            node.args = (node.args[0], part, *node.args[2:])
            self.changed += 1


def matching_dims(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Return the dimensions of two shapes of one tensor that hold the same elements, in order.

    Raises:
        CannotRepair: the shapes hold different numbers of elements.
    """
    i = j = 0
    groups = []
    while i < len(old) or j < len(new):
        left, right = [i][: len(old) - i], [j][: len(new) - j]
        a, b = math.prod(old[d] for d in left), math.prod(new[d] for d in right)
        i, j = i + len(left), j + len(right)
        while a != b:
            if a < b and i < len(old):
                left, a, i = [*left, i], a * old[i], i + 1
            elif b < a and j < len(new):
                right, b, j = [*right, j], b * new[j], j + 1
            else:
                raise CannotRepair(f"{old} and {new} do not hold the same elements")
        groups.append((left, right))
    return groups
