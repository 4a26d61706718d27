"""What linear layers read, summed up: the Hessian of a layer's squared output error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, fx, nn


def input_hessians(
    module: fx.GraphModule, names: Sequence[str], batches: Iterable[tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    """Return the sum of x xᵀ over all inputs x of some linear layers, float64 (columns, columns).

    Args:
        module: in eval mode.
        names: of the layers.
        batches: model-ready inputs.
    """
    sums = {name: torch.zeros((_columns(module, name),) * 2, dtype=torch.float64) for name in names}
    with torch.no_grad(), ExitStack() as stack:
        for name, total in sums.items():
            stack.enter_context(_listening(module.get_submodule(name), _adder(total)))
        for batch in batches:
            module(*batch)
    return sums


def _columns(module: fx.GraphModule, name: str) -> int:
    return module.get_submodule(name).get_parameter("weight").shape[1]


def _adder(total: Tensor) -> Callable[[Tensor], None]:
    def add(values: Tensor) -> None:
        rows = values.reshape(-1, values.shape[-1]).to(torch.float32)
        total.add_((rows.T @ rows).to(torch.float64))

    return add


@contextmanager
def _listening(layer: nn.Module, add: Callable[[Tensor], None]) -> Iterator[None]:
    handle = layer.register_forward_pre_hook(lambda _, inputs: add(inputs[0]))
    try:
        yield
    finally:
        handle.remove()
