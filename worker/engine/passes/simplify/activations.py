"""Cheap activations in the place of costly ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import fx, nn

from planish.contract.report import LayerChanged
from worker.engine.passes.layers import layer_of, operator_name

Cheap = Literal["relu", "leaky_relu", "hardswish"]

NEW: dict[Cheap, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "hardswish": nn.Hardswish,
}
_COST = {
    "relu": 0,
    "leaky_relu": 1,
    "hardswish": 2,
    **dict.fromkeys(("elu", "celu", "selu", "silu", "gelu", "mish", "softplus"), 3),
}
"""Rank by time on CPUs: comparisons, then a polynomial, then exponentials.

Sigmoid and tanh are left out: they are gates and outputs as often as activations.
"""
_MODULES = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Hardswish: "hardswish",
    nn.ELU: "elu",
    nn.CELU: "celu",
    nn.SELU: "selu",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Mish: "mish",
    nn.Softplus: "softplus",
}


def swap_activations(module: fx.GraphModule, wanted: Cheap) -> list[LayerChanged]:
    """Put `wanted` in the place of every costlier activation, in place.

    Hard swish for swish: Howard et al. 2019, arXiv:1905.02244, section 5.2. The others change the
    function more; training brings back what it can.
    """
    changed = []
    for node in list(module.graph.nodes):
        found = _activation(module, node)
        if found is None or _COST[found] <= _COST[wanted]:
            continue
        name = str(node.target) if node.op == "call_module" else f"fn.{node.name}"
        if node.op == "call_module":
            module.set_submodule(name, NEW[wanted]())
        else:
            module.add_submodule(name, NEW[wanted]())
            with module.graph.inserting_before(node):
                call = module.graph.call_module(name, (node.args[0],))
            node.replace_all_uses_with(call)
            module.graph.erase_node(node)
        changed.append(LayerChanged(name=name, what=f"{found} → {wanted}"))
    module.eval()
    return changed


def _activation(module: fx.GraphModule, node: fx.Node) -> str | None:
    layer = layer_of(module, node)
    name = _MODULES.get(type(layer)) if layer is not None else operator_name(node)
    return name if name in _COST else None
