"""One ATen call as the builders of layers see it, and the layer that they make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch._ops import OpOverload

Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Layer:
    """A layer to be: a module on the meta device, what it is called with, and its weights."""

    module: nn.Module
    inputs: tuple[object, ...]
    weights: dict[str, fx.Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One ATen call with its arguments by name, defaults filled in.

    `tensors` holds the weights of the graph by their `get_attr` node.
    """

    node: fx.Node
    arguments: dict[str, Any]
    tensors: dict[fx.Node, Tensor]

    def weight(self, name: str) -> Tensor | None:
        """Return the stored tensor of an argument; None where it is absent or computed."""
        return self.tensors.get(self.arguments.get(name))  # type: ignore[arg-type]

    def weights(self, *names: str) -> dict[str, fx.Node]:
        """Return the weights among some arguments."""
        return {name: self.arguments[name] for name in names if self.arguments[name] is not None}

    def is_stored(self, *names: str) -> bool:
        """Tell whether each of these arguments is absent or a stored tensor."""
        return all(
            self.arguments.get(name) is None or self.weight(name) is not None for name in names
        )

    def sizes(self, name: str, count: int) -> tuple[int, ...]:
        """Return an argument of `count` sizes, of which one may stand for all."""
        values = tuple(self.arguments[name])
        return values if len(values) == count else values * count


def arguments_of(node: fx.Node, target: OpOverload) -> dict[str, Any]:
    """Return the arguments of a call by name, defaults filled in."""
    schema = target._schema.arguments
    values = {item.name: item.default_value for item in schema}
    values.update(zip((item.name for item in schema), node.args, strict=False))
    return {**values, **node.kwargs}


def are_integers(values: Iterable[object]) -> bool:
    """Tell whether sizes are plain numbers, none of them symbolic."""
    return all(type(value) is int for value in values)
