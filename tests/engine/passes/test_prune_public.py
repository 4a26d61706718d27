"""Pruning of public networks: what may go, and what their wiring forbids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from planish.contract.recipe import Prune
from planish.contract.spec import Architecture, ModelSpec
from tests.engine.passes.models import context
from worker.engine.load import load_model
from worker.engine.model import Model
from worker.engine.passes import Outcome, entry_for
from worker.engine.passes.layers import out_channels, weighted_layers


def loaded(folder: Path, file: str, name: str, **config) -> Model:
    architecture = Architecture(library="planish", name=name, config=config)
    return load_model(folder / file, ModelSpec(architecture=architecture))


def pruned(model: Model, params: Prune) -> Outcome:
    return entry_for(params).run(model, params, context(model, params))


def test_resnet56_at_0_4_keeps_widths_that_kernels_like(shared_data):
    """16, 16 and 32 everywhere: the streams behind zero-padded shortcuts shrink as well."""
    model = loaded(shared_data, "resnet56-4bfd9763.th", "cifar_resnet", depth=56)
    result = pruned(model, Prune(sparsity=0.4))
    widths = {n: out_channels(m) for n, m in weighted_layers(result.model.module).items()}
    for stage, width in {"layer1": 16, "layer2": 16, "layer3": 32}.items():
        assert {w for n, w in widths.items() if n.startswith(stage)} == {width}
    whole = result.facts["params"]
    assert whole[0] == 853_018
    assert whole[0] > 3 * whole[1]


@pytest.mark.parametrize(
    ("file", "name", "share"),
    [("resnet8.pt", "resnet8", 0.48), ("kws_dscnn.pt", "ds_cnn", 0.48)],
)
def test_networks_without_such_shortcuts_lose_half_of_everything(shared_data, file, name, share):
    result = pruned(loaded(shared_data, file, name), Prune(sparsity=0.5, round_to=1))
    assert result.facts["channels_removed_share"] > share
    assert [layer.why for layer in result.skipped] == ["its channels are the model's output"]
    with torch.no_grad():
        logits = result.model.module(*result.model.example(5))
    assert logits.shape[0] == 5
