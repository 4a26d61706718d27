"""The network run node by node on calibration data, with a look at the inputs of its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, fx

from worker.engine.load.data import Dataset
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of
from worker.engine.passes.prune.sparse_layers import SparseLayer
from worker.engine.train.placement import move

MAX_ACTIVATION_BYTES = 512 << 20

Visit = Callable[[SparseLayer, Tensor], None]
"""Given a layer that is about to run, and its whole input; may change the layer's weight."""


def walk(
    model: Model,
    layers: Mapping[str, SparseLayer],
    dataset: Dataset,
    samples: int,
    device: torch.device,
    visit: Visit,
) -> int:
    """Run a model once on calibration data, and stop at each of the layers before it runs.

    All samples pass each node before the next one begins: what a visit changes is what the layers
    behind it see. That is one forward pass for the whole network, where running it anew for every
    layer would take as many as it has layers.

    Args:
        model: in eval mode; its weights change if visits change them.
        layers: where to stop, by name; of a layer that is called more than once, the first call.
        dataset: calibration part.
        samples: how many to use; fewer where the largest activation would not fit in 512 MiB.
        device: where to compute.
        visit: called once for each of the layers.

    Returns:
        How many samples were used.
    """
    largest = _Largest(model.module)
    with torch.no_grad():
        largest.run(*dataset.prepare(np.arange(1))[0])
        count = min(samples, len(dataset), max(1, MAX_ACTIVATION_BYTES // largest.bytes))
        inputs, _ = dataset.prepare(np.arange(count))
        module = move(model.module, device)
        _Walk(module, layers, visit).run(*(tensor.to(device) for tensor in inputs))
        move(module, torch.device("cpu"))
    return count


class _Largest(fx.Interpreter):
    """Notes the size of the largest tensor that a run makes."""

    bytes = 1

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        # Weights and constants do not grow with the batch.
        if isinstance(result, Tensor) and n.op != "get_attr":
            self.bytes = max(self.bytes, result.nbytes)
        return result


class _Walk(fx.Interpreter):
    def __init__(
        self, module: fx.GraphModule, layers: Mapping[str, SparseLayer], visit: Visit
    ) -> None:
        super().__init__(module)
        self.graph_module, self.waiting, self.visit = module, dict(layers), visit

    def run_node(self, n: fx.Node) -> object:
        if layer_of(self.graph_module, n) is not None:
            layer = self.waiting.pop(str(n.target), None)
            inputs = self.fetch_args_kwargs_from_env(n)[0]
            if layer is not None and inputs and isinstance(inputs[0], Tensor):
                self.visit(layer, inputs[0])
        return super().run_node(n)
