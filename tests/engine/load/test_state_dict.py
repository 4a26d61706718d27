"""Bare weights and the networks that they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from planish.contract.architectures import ARCHITECTURES, ArchitectureEntry, CifarResNet
from planish.contract.errors import (
    ArchitectureRequired,
    InvalidModel,
    PlanishError,
    StateDictMismatch,
    UnsafeModel,
)
from planish.contract.spec import Architecture, InputDeclaration, ModelSpec
from tests.gate.test_identify import Canary
from worker.engine.load import load_model
from worker.engine.load.architectures.build import build_network

CIFAR = ModelSpec(
    architecture=Architecture(library="planish", name="cifar_resnet", config={"depth": 8})
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(CifarResNet(depth=8))


def _save(network: nn.Module, path: Path, how: str) -> Path:
    state = network.state_dict()
    if how == "safetensors":
        save_file(state, path)
    elif how == "wrapped":
        torch.save({"epoch": 3, "state_dict": state, "best": 0.9}, path)
    elif how == "parallel":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    elif how == "compiled":
        torch.save({f"_orig_mod.{k}": v for k, v in state.items()}, path)
    elif how == "without counters":
        torch.save({k: v for k, v in state.items() if not k.endswith("tracked")}, path)
    elif how == "half":
        torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how != "old")
    return path


@pytest.mark.parametrize(
    "how", ["plain", "old", "safetensors", "wrapped", "parallel", "compiled", "without counters"]
)
def test_weights_come_back_whatever_they_are_wrapped_in(
    network: nn.Module, tmp_path: Path, how: str
) -> None:
    model = load_model(_save(network, tmp_path / "a", how), CIFAR)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.module(images), network(images))
    assert set(model.module.state_dict()) == set(network.state_dict())
    assert model.inputs[0].name == "input"


def test_half_precision_weights_are_widened(network: nn.Module, tmp_path: Path) -> None:
    model = load_model(_save(network, tmp_path / "a", "half"), CIFAR)
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_a_mismatch_names_keys_and_shapes(network: nn.Module, tmp_path: Path) -> None:
    state = dict(network.state_dict())
    state["linear.weight"] = torch.zeros(7, 64)
    state["head.weight"] = state.pop("linear.bias")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(StateDictMismatch) as refused:
        load_model(tmp_path / "a.pt", CIFAR)
    assert refused.value.code == "state_dict_mismatch"
    for part in (
        "missing: linear.bias",
        "unexpected: head.weight",
        "linear.weight is (7, 64), cifar_resnet has (10, 64)",
    ):
        assert part in refused.value.detail


def test_another_depth_names_a_few_keys_and_counts_the_rest(
    network: nn.Module, tmp_path: Path
) -> None:
    deeper = Architecture(library="planish", name="cifar_resnet", config={"depth": 20})
    with pytest.raises(StateDictMismatch, match=r"missing: layer1\.1\.conv1\.weight, .* more"):
        load_model(_save(network, tmp_path / "a", "plain"), ModelSpec(architecture=deeper))


def test_weights_without_architecture_are_refused(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureRequired):
        load_model(_save(network, tmp_path / "a", "plain"), ModelSpec())


@pytest.mark.parametrize(
    "content", [[1, 2], {"epoch": 1}, {"state_dict": {}}, {}], ids=["list", "no tensors", "a", "b"]
)
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InvalidModel):
        load_model(tmp_path / "a.pt", CIFAR)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path, zipped: bool) -> None:
    evil = {"state_dict": Canary(tmp_path / "canary")}
    torch.save(evil, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeModel):
        load_model(tmp_path / "a.pt", CIFAR)
    assert not (tmp_path / "canary").exists()


def test_a_changed_weight_byte_is_found(network: nn.Module, tmp_path: Path) -> None:
    raw = bytearray(_save(network, tmp_path / "a", "plain").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(InvalidModel, match="checksum"):
        load_model(tmp_path / "a", CIFAR)


@pytest.mark.parametrize("how", ["plain", "old", "safetensors"])
def test_weights_cut_anywhere_are_refused(network: nn.Module, tmp_path: Path, how: str) -> None:
    raw = _save(network, tmp_path / "a", how).read_bytes()
    for share in range(25):
        (tmp_path / "cut").write_bytes(raw[: len(raw) * share // 25])
        with pytest.raises(PlanishError) as refused:
            load_model(tmp_path / "cut", CIFAR)
        assert refused.value.status == 422


def test_stated_inputs_rename_and_resize_the_images(network: nn.Module, tmp_path: Path) -> None:
    shape = InputDeclaration(name="pixels", shape=("batch", 3, 64, 48))
    model = load_model(
        _save(network, tmp_path / "a", "plain"), CIFAR.model_copy(update={"inputs": (shape,)})
    )
    assert (model.inputs[0].name, model.inputs[0].shape) == ("pixels", ("batch", 3, 64, 48))
    assert model.module(*model.example(5)).shape == (5, 10)


@pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)
def test_every_architecture_of_the_catalogue_builds_and_loads(
    entry: ArchitectureEntry, tmp_path: Path
) -> None:
    network = build_network(entry.config())
    spec = ModelSpec(architecture=Architecture(library=entry.library, name=entry.name))
    model = load_model(_save(network, tmp_path / "a", "safetensors"), spec)
    assert model.module(*model.example(2)).shape == (2, entry.config().num_classes)
    assert [item.shape for item in model.inputs] == [item.shape for item in entry.inputs]
    assert entry.summary
    assert entry.source
