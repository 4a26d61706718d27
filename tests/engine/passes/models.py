"""Models in canonical form and contexts, made as a job makes them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from planish.contract.recipe import Params
from planish.contract.spec import ModelSpec, Spec
from tests import zoo
from tests.exports import export_pt2
from worker.engine.load import load_model
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.splits import Splits, split
from worker.engine.model import Model
from worker.engine.passes import Context
from worker.engine.progress import Progress, Silent

NETS = (
    "small_residual_cnn",
    "depthwise",
    "concat",
    "mlp",
    "tiny_transformer",
    "two_inputs",
    "tied",
    "in_place",
)
CPU = torch.device("cpu")


@cache
def _read(name: str) -> Model:
    return canonical(*getattr(zoo, name)())


def zoo_model(name: str) -> Model:
    """Return a fresh copy of one of the zoo's networks, exported and read back."""
    return _read(name).clone()


def canonical(module: nn.Module, example: tuple[Tensor, ...]) -> Model:
    """Export a module and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        path = export_pt2(module, example, Path(folder) / "model.pt2")
        return load_model(path, ModelSpec())


def context(
    model: Model,
    *recipe: Params,
    splits: Splits | None = None,
    teacher: Model | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device = CPU,
) -> Context:
    """Return the context of the first pass of a recipe; the teacher is a copy of the model."""
    return Context(
        spec=Spec(recipe=recipe),
        splits=splits,
        teacher=teacher or model.clone(),
        progress=progress or Silent(),
        seed=seed,
        device=device,
        step=1,
    )


def noise_splits(
    model: Model, samples: int = 60, classes: int = 4, seed: int = 0, labels: bool = True
) -> Splits:
    """Return random inputs of the model's shapes, with random labels if wanted."""
    sources = tuple(
        Source(
            tensor.numpy(), tuple(None if isinstance(d, str) else d for d in s.shape[1:]), s.dtype
        )
        for tensor, s in zip(model.example(samples, seed), model.inputs, strict=True)
    )
    targets = np.random.default_rng(seed).integers(0, classes, samples) if labels else None
    return split(Dataset(sources, np.arange(samples), targets), None, seed)


@cache
def digit_splits() -> Splits:
    """Return scikit-learn's scans of digits, 8x8, in the usual parts."""
    images, labels = load_digits(return_X_y=True)
    source = Source(images.reshape(-1, 1, 8, 8), (1, 8, 8), torch.float32, scale=1 / 16)
    return split(Dataset((source,), np.arange(len(labels)), labels.astype(np.int64)), None, 0)


def weights(model: Model) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers."""
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Tell whether two states are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
