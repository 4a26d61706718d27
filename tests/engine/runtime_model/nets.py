"""Real networks as ONNX files, exported once for all tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from planish.contract.spec import ModelSpec
from planish.contract.validation import spec_from
from tests import zoo
from tests.onnx_exports import export_legacy, export_onnx
from tests.transformers_zoo import tiny_bert, tiny_vit
from tests.zoo import Net
from worker.engine.load.data import Splits
from worker.engine.passes.protocol import Surroundings
from worker.engine.progress import Silent
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.read import load_onnx

BUILT = {
    "residual": (zoo.small_residual_cnn, ("image",)),
    "depthwise": (zoo.depthwise, ("image",)),
    "concat": (zoo.concat, ("image",)),
    "two": (zoo.two_inputs, ("image", "side")),
    "tied": (zoo.tied, ("ids",)),
    "bert": (tiny_bert, ("input_ids", "attention_mask")),
    "vit": (tiny_vit, ("image",)),
}


@dataclass
class Exported:
    """A network and its files: `new` by torch's present exporter, `legacy` by the older one."""

    name: str
    folder: Path

    @cached_property
    def net(self) -> Net:
        net = BUILT[self.name][0]()
        net[0].eval()
        return net

    @cached_property
    def new(self) -> Path:
        """Without the exporter's own optimizer: as much as there can be to simplify."""
        path, names = self.folder / f"{self.name}.onnx", BUILT[self.name][1]
        return export_onnx(*self.net, path, names=names, optimized=False)

    @cached_property
    def legacy(self) -> Path:
        path, names = self.folder / f"{self.name}_legacy.onnx", BUILT[self.name][1]
        opset = 17 if self.name in ("bert", "vit", "tied") else 11
        return export_legacy(*self.net, path, names=names, opset=opset)


def load(path: Path) -> RuntimeModel:
    """Load a file without anything said about it."""
    return load_onnx(path, ModelSpec())


def around(splits: Splits | None = None, step: int = 1) -> Surroundings:
    """What a pass gets when a job has nothing but these data."""
    spec = spec_from({"recipe": [{"op": "simplify"}]})
    return Surroundings(spec, splits, Silent(), 0, step)


def away(model: RuntimeModel, other: RuntimeModel, batch: int = 4) -> float:
    """Return how far the first outputs are apart, relative to their norm."""
    inputs = model.example(batch)
    before, after = model.outputs(inputs)[0], other.outputs(inputs)[0]
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def torch_answers(module: nn.Module, model: RuntimeModel, batch: int = 3) -> np.ndarray:
    """Return what the network itself answers to the model's example."""
    with torch.no_grad():
        found = module(*model.example(batch))
    while not isinstance(found, torch.Tensor):
        found = next(iter(found.values() if isinstance(found, Mapping) else found))
    return found.numpy()
