"""Passes stand beside each other: any two in any order that makes sense, and chains of three."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from planish.contract.checks import check_recipe
from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import (
    Cast,
    Distill,
    LowRank,
    Params,
    Prune,
    Quantize,
    Retrain,
    Simplify,
    Stage,
    Train,
)
from planish.contract.spec import Spec
from planish.contract.validation import spec_from
from tests.engine.digits import trained_digits
from tests.engine.passes.models import context, digit_splits
from tests.exports import export_pt2
from tests.transformers_zoo import tiny_bert, tiny_llama, tiny_vit
from tests.zoo import depthwise, small_residual_cnn
from worker.engine.load import load_model
from worker.engine.load.splits import Splits
from worker.engine.model import Model, first_output
from worker.engine.passes import entry_for
from worker.engine.pipeline import JobInputs, make_plan, optimize
from worker.engine.progress import Silent

TRAIN = Train(epochs=1, batch_size=64)
KINDS: dict[str, Params] = {
    "channel": Prune(sparsity=0.25, round_to=4),
    "unstructured": Prune(structure="unstructured", sparsity=0.5),
    "n:m": Prune(structure="n:m"),
    "layer": Prune(structure="layer", blocks=1, samples=64),
    "low_rank": LowRank(energy=0.8),
    "distill": Distill(train=TRAIN),
    "retrain": Retrain(train=TRAIN),
    "simplify": Simplify(),
    "static": Quantize(samples=64),
    "qat": Quantize(mode="qat", samples=64, train=TRAIN),
    "dynamic": Quantize(mode="dynamic"),
    "weight_only": Quantize(mode="weight_only"),
    "cast": Cast(samples=64),
}
NOTHING_LEFT = {
    ("unstructured", "unstructured"): "are zero already",
    ("n:m", "n:m"): "are zero already",
    ("unstructured", "low_rank"): "put low_rank before prune",
    ("n:m", "low_rank"): "put low_rank before prune",
    ("layer", "layer"): "block",
}
FINAL = {name for name, params in KINDS.items() if params.stage >= Stage.CAST}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A trained residual network; it has one block that can be removed."""
    return load_model(
        trained_digits(tmp_path_factory.mktemp("digits"), epochs=2).model,
        spec_from({"recipe": [{"op": "simplify"}]}).model,
    )


@pytest.fixture(scope="module")
def splits() -> Splits:
    full = digit_splits()
    validation = full.validation
    assert validation is not None
    return Splits(full.train.head(192), full.train.head(192), validation.head(64), full.sealed)


@pytest.fixture(scope="module")
def after_first() -> dict[str, Model]:
    """What each pass made of the net, kept for all that come second."""
    return {}


@pytest.mark.parametrize(("first", "second"), list(product(KINDS, KINDS)))
def test_any_two_passes_compose_or_are_refused_with_the_order_that_works(
    first: str, second: str, digits: Model, splits: Splits, after_first: dict[str, Model]
) -> None:
    recipe = (KINDS[first], KINDS[second])
    spec = Spec(recipe=recipe)
    if first in FINAL:
        with pytest.raises(
            InvalidRecipe, match=r"cannot follow (quantize|cast).*: .*(order|leave)"
        ):
            check_recipe(spec, has_data=True, has_targets=True)
        return
    check_recipe(spec, has_data=True, has_targets=True)
    if first not in after_first:
        after_first[first] = _run(digits.clone(), recipe[0], digits, splits)
    if (first, second) in NOTHING_LEFT:
        with pytest.raises(NothingChanged, match=NOTHING_LEFT[first, second]):
            _run(after_first[first].clone(), recipe[1], digits, splits)
        return
    model = _run(after_first[first].clone(), recipe[1], digits, splits)
    _check_usable(model, digits)
    if {first, second} & {"unstructured", "n:m"}:
        assert _zeros(model) > 0.2, "the other pass filled the zeros in"


def _run(model: Model, params: Params, original: Model, splits: Splits) -> Model:
    ctx = context(original, params, splits=splits)
    return entry_for(params).run(model, params, ctx).model


def _check_usable(model: Model, original: Model) -> None:
    for batch in (1, 3):
        inputs = model.example(batch)
        with torch.no_grad():
            got, want = (first_output(m.module(*inputs)) for m in (model, original))
        assert got.shape == want.shape
        assert torch.isfinite(got).all()


def _zeros(model: Model) -> float:
    """Return the share of zeros among the weights with more than one dimension."""
    weights = [t for t in model.module.state_dict().values() if t.dim() > 1]
    return float(sum((t == 0).sum() for t in weights) / sum(t.numel() for t in weights))


CHAINS = {
    "resnet": [
        {"op": "prune", "structure": "layer", "blocks": 1, "samples": 64},
        {"op": "distill", "alpha": 1.0, "train": {"epochs": 1}},
        {"op": "quantize", "samples": 64},
    ],
    "mobilenet": [
        {"op": "prune", "sparsity": 0.25, "round_to": 4},
        {"op": "retrain", "train": {"epochs": 1}},
        {"op": "quantize", "mode": "qat", "samples": 64, "train": {"epochs": 1}},
    ],
    "vit": [
        {"op": "prune", "sparsity": 0.5, "round_to": 1},
        {"op": "distill", "alpha": 1.0, "train": {"epochs": 1}},
        {"op": "quantize", "mode": "dynamic"},
    ],
    "bert": [
        {"op": "prune", "structure": "layer", "blocks": 1, "samples": 64},
        {"op": "distill", "method": "dist", "train": {"epochs": 1, "optimizer": "adamw"}},
        {"op": "cast"},
    ],
    "llama": [
        {"op": "prune", "structure": "unstructured", "method": "wanda", "samples": 32},
        {"op": "distill", "alpha": 1.0, "train": {"epochs": 1}},
        {"op": "quantize", "mode": "weight_only", "dtype": "int4", "algorithm": "gptq"},
    ],
}
NETS = {
    "resnet": small_residual_cnn,
    "mobilenet": depthwise,
    "vit": tiny_vit,
    "bert": tiny_bert,
    "llama": tiny_llama,
}


@pytest.mark.parametrize("family", CHAINS)
def test_a_chain_of_three_gives_a_model_that_reloads(family: str, tmp_path: Path) -> None:
    module, example = NETS[family]()
    inputs = JobInputs(
        None,
        spec_from(
            {
                "recipe": CHAINS[family],
                "data": {"task": "language_modeling" if family == "llama" else "classification"},
                "target": {"threads": 1},
            }
        ),
        export_pt2(module, example, tmp_path / "model.pt2"),
        data=_data(family, module, example, tmp_path / "data.npz"),
    )
    plan = make_plan(inputs)
    report = optimize(inputs, tmp_path / "out", Silent())
    assert [p.op for p in report.passes] == [p.op for p in plan.passes]
    assert all(p.changed for p in report.passes)
    assert report.reload.ok
    assert report.ratios.size > 1


def _data(family: str, module: nn.Module, example: tuple[torch.Tensor, ...], path: Path) -> Path:
    """Write 120 samples: noise for images, tokens for texts, the net's own answers as labels."""
    generator = torch.Generator().manual_seed(1)
    shape = (120, *example[0].shape[1:])
    if not example[0].is_floating_point():
        arrays = {"input_ids": torch.randint(0, 40, shape, generator=generator)}
        if family == "bert":
            arrays["attention_mask"] = torch.ones(shape, dtype=torch.int64)
    else:
        arrays = {"inputs": torch.randn(shape, generator=generator)}
    if family != "llama":
        with torch.no_grad():
            arrays["targets"] = module(*arrays.values()).argmax(-1)
    np.savez(path, **{name: tensor.numpy() for name, tensor in arrays.items()})
    return path
