"""Moving a graph to a device: the weights, and the devices that its calls name."""

from __future__ import annotations

import torch
from torch import fx


def move(module: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """Move a graph in place and return it.

    Exported graphs name the device of every tensor that they create; these follow the weights.
    """
    changed = False
    for node in module.graph.nodes:
        if any(isinstance(value, torch.device) for value in (*node.args, *node.kwargs.values())):
            node.args = tuple(device if isinstance(v, torch.device) else v for v in node.args)
            node.kwargs = {
                k: device if isinstance(v, torch.device) else v for k, v in node.kwargs.items()
            }
            changed = True
    if changed:
        module.recompile()
    return module.to(device)
