"""Published models keep their published accuracy on their way through the engine.

The figures are those that the models have in plain torch on these samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from planish.contract.architectures import find_architecture
from planish.contract.recipe import Simplify
from planish.contract.spec import Architecture, DataSpec, ModelSpec, Preprocess, Spec
from planish.gate.check import check_upload
from tests.exports import export_pt2
from worker.engine.load import load_model
from worker.engine.load.architectures.build import build_network
from worker.engine.load.data import load_splits
from worker.engine.load.state_dict import fill, read_checkpoint
from worker.engine.model import Model, first_output

IMAGENET = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
RESNET20 = Architecture(library="planish", name="cifar_resnet", config={"depth": 20})
MFCC_SCALE, MFCC_ZERO = 0.5847029, 83


def correct(model: Model, spec: Spec, data: Path) -> int:
    splits = load_splits(spec, model, data, data)
    assert splits is not None
    assert splits.sealed is not None
    with torch.no_grad():
        return sum(
            int((first_output(model.module(*inputs)).argmax(1) == targets).sum())
            for inputs, targets in splits.sealed.batches(250)
        )


def _spec(architecture: Architecture | None, preprocess: Preprocess) -> Spec:
    return Spec(
        recipe=(Simplify(),),
        model=ModelSpec(architecture=architecture),
        data=DataSpec(preprocess=preprocess),
    )


@pytest.fixture(scope="module")
def cifar(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cifar") / "test.npz"
    with np.load(shared_data / "cifar10_public.npz") as arrays:
        np.savez(path, inputs=arrays["x_test"], targets=arrays["y_test"])
    return path


def test_resnet20_weights_keep_their_accuracy(shared_data: Path, cifar: Path) -> None:
    spec, weights = _spec(RESNET20, IMAGENET), shared_data / "resnet20-12fca82f.th"
    check_upload(spec, {"model": weights, "data": cifar, "test_data": cifar})
    assert correct(load_model(weights, spec.model), spec, cifar) == 1836


def test_resnet20_as_an_export_is_bit_equal(shared_data: Path, cifar: Path, tmp_path: Path) -> None:
    network = build_network(find_architecture(RESNET20))
    fill(network, read_checkpoint(shared_data / "resnet20-12fca82f.th"), "cifar_resnet")
    path = export_pt2(network, (torch.zeros(2, 3, 32, 32),), tmp_path / "a.pt2")
    model = load_model(path, ModelSpec())
    images = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.module(images), network(images))
    assert list(model.module.state_dict()) == list(network.state_dict())
    assert correct(model, _spec(None, IMAGENET), cifar) == 1836


def test_resnet56_weights_load(shared_data: Path) -> None:
    deep = Architecture(library="planish", name="cifar_resnet", config={"depth": 56})
    model = load_model(shared_data / "resnet56-4bfd9763.th", ModelSpec(architecture=deep))
    assert sum(p.numel() for p in model.module.parameters()) == 853_018


def test_resnet8_weights_keep_their_accuracy(shared_data: Path, cifar: Path) -> None:
    spec = _spec(Architecture(library="planish", name="resnet8"), Preprocess())
    assert correct(load_model(shared_data / "resnet8.pt", spec.model), spec, cifar) == 1745


def test_ds_cnn_weights_keep_their_accuracy(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "kws_mfcc_public.npz") as arrays:
        np.savez(tmp_path / "a.npz", input=arrays["mfcc_int8"], targets=arrays["y"])
    preprocess = Preprocess(scale=MFCC_SCALE, mean=(MFCC_ZERO * MFCC_SCALE,))
    spec = _spec(Architecture(library="planish", name="ds_cnn"), preprocess)
    model = load_model(shared_data / "kws_dscnn.pt", spec.model)
    assert correct(model, spec, tmp_path / "a.npz") == 430


def test_squeezenet_weights_load(shared_data: Path) -> None:
    squeezenet = Architecture(library="planish", name="squeezenet1_1")
    path = shared_data / "squeezenet1_1_tv.pt"
    model = load_model(path, ModelSpec(architecture=squeezenet))
    assert sum(p.numel() for p in model.module.parameters()) == 1_235_496
    assert model.module(*model.example(1)).shape == (1, 1000)
