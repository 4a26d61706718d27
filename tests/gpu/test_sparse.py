"""Pruning of single weights on a CUDA device; run by `make gpu`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.contract.recipe import Prune, Retrain, Train
from tests.engine.passes.models import canonical, context, digit_splits, noise_splits, zoo_model
from tests.zoo import seeded
from worker.engine.passes import entry_for, prune

CUDA = torch.device("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("method", ["gradient", "taylor", "wanda", "sparsegpt"])
@pytest.mark.parametrize("structure", ["unstructured", "n:m"])
def test_rankings_on_the_gpu_choose_as_on_the_cpu(method: str, structure: str) -> None:
    model, splits = zoo_model("small_residual_cnn"), digit_splits()
    params = Prune.model_validate({"structure": structure, "method": method, "samples": 64})
    masks = []
    for device in (torch.device("cpu"), CUDA):
        ctx = context(model, params, splits=splits, device=device)
        done = prune.run(model, params, ctx).model
        assert {p.device.type for p in done.module.parameters()} == {"cpu"}
        masks.append(torch.cat([(p == 0).flatten() for p in done.module.parameters()]))
    assert float((masks[0] == masks[1]).float().mean()) > 0.98


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_cubic_grows_on_the_gpu_and_holds(amp: str) -> None:
    model, splits = zoo_model("small_residual_cnn"), digit_splits()
    sparse = Prune(structure="unstructured", sparsity=0.75, schedule="cubic")
    train = Train.model_validate({"epochs": 3, "batch_size": 128, "amp": amp})
    for params in (sparse, Retrain(train=train)):
        ctx = context(model, params, splits=splits, device=CUDA)
        model = entry_for(params).run(model, params, ctx).model
    assert model.sparsity is not None
    for name in model.sparsity.weights:
        weight = model.module.get_parameter(name)
        assert int((weight == 0).sum()) == round(0.75 * weight.numel()), name


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0),
    reason="2:4 kernels need compute capability 8.0",
)
def test_a_2_4_pattern_is_what_sparse_tensor_cores_take() -> None:
    model = canonical(*seeded(lambda: nn.Linear(256, 256, bias=False), (2, 256)))
    params = Prune(structure="n:m", method="wanda", samples=64)
    ctx = context(model, params, splits=noise_splits(model), device=CUDA)
    (weight,) = prune.run(model, params, ctx).model.module.parameters()
    half = weight.detach().to(CUDA, torch.float16)
    x = torch.randn(64, 256, device=CUDA, dtype=torch.float16)
    packed = torch.sparse.to_sparse_semi_structured(half)
    assert torch.allclose(x @ packed.t(), x @ half.t(), atol=1e-2)
