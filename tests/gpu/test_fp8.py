"""Products in fp8 on tensor cores; run by `make gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from planish.contract.recipe import Quantize
from tests.engine.passes.models import canonical, context
from tests.zoo import seeded
from worker.engine.passes import quantize
from worker.engine.save.pt2 import save_pt2
from worker.engine.train.placement import move

CUDA = torch.device("cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9),
        reason="no CUDA device with fp8 tensor cores (compute capability 8.9)",
    ),
]


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 48), nn.Linear(48, 10))


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("mode", ["dynamic", "weight_only"])
def test_fp8_layers_answer_as_the_float_network_does(
    mode: str, granularity: str, tmp_path: Path
) -> None:
    model = canonical(*seeded(_net, (2, 64)))
    params = Quantize(mode=mode, dtype="fp8", granularity=granularity)
    outcome = quantize.run(model.clone(), params, context(model, params, device=CUDA))
    skipped = [layer.name for layer in outcome.skipped]
    assert skipped == (["3"] if mode == "dynamic" else [])
    save_pt2(outcome.model, tmp_path / "m.pt2")
    inputs = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    want = model.module(inputs)
    move(outcome.model.module, CUDA)
    with torch.no_grad():
        got = outcome.model.module(inputs.to(CUDA)).cpu()
    assert (got - want).norm() < 0.08 * want.norm()
    assert (tmp_path / "m.pt2").stat().st_size > 0
