"""safetensors and architecture.json: the network comes back from data alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.utils._pytree import tree_leaves

from planish.gate.operators import ATEN, SIZE_ARITHMETIC
from planish.gate.operators import QUANTIZED as QUANTIZED_TAKEN
from tests.engine.passes.models import NETS, zoo_model
from worker.engine.save.rebuild import FUNCTIONS, OPERATORS, QUANTIZED, DescriptionError, rebuild
from worker.engine.save.safetensors_file import save_safetensors

Json = dict[str, object]


def saved(name: str, folder: Path) -> Path:
    """Save a network of the zoo; return its description."""
    save_safetensors(zoo_model(name), folder / "model.safetensors")
    return folder / "architecture.json"


@pytest.mark.parametrize("name", NETS)
def test_the_rebuilt_network_gives_the_same_outputs(name: str, tmp_path: Path) -> None:
    model = zoo_model(name)
    network = rebuild(saved(name, tmp_path))
    assert set(network.state_dict()) == set(model.module.state_dict())
    for batch in (1, 3):
        example = model.example(batch)
        with torch.no_grad():
            want, got = tree_leaves(model.module(*example)), tree_leaves(network(*example))
        # Not bit by bit: where a weight lies in memory decides the order of a product's sums.
        for a, b in zip(want, got, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_shared_weights_are_stored_once_and_stay_shared(tmp_path: Path) -> None:
    network = rebuild(saved("tied", tmp_path))
    assert network.get_parameter("head.weight") is network.get_parameter("embed.weight")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert len({"head.weight", "embed.weight"} & set(file.keys())) == 1


def test_a_rebuilt_network_trains(tmp_path: Path) -> None:
    network = rebuild(saved("small_residual_cnn", tmp_path)).train()
    before = {name: value.clone() for name, value in network.named_parameters()}
    network(*zoo_model("small_residual_cnn").example(4)).square().sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert all(not torch.equal(before[name], value) for name, value in network.named_parameters())


def test_a_rebuilt_network_exports_again(tmp_path: Path) -> None:
    model = zoo_model("concat")
    network = rebuild(saved("concat", tmp_path))
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, model.example(2), dynamic_shapes=(({0: batch},),))
    example = model.example(3)
    with torch.no_grad():
        assert torch.allclose(program.module()(*example), network(*example))


def test_the_tables_are_those_of_the_reader() -> None:
    assert OPERATORS == ATEN
    assert QUANTIZED == QUANTIZED_TAKEN
    assert FUNCTIONS.keys() == SIZE_ARITHMETIC | {"getitem"}


HOSTILE: dict[str, object] = {
    "operator": {"calls": [{"name": "a", "kind": "function", "target": "aten.from_file.default"}]},
    "library": {"calls": [{"name": "a", "kind": "function", "target": "os.system.x"}]},
    "walk": {"calls": [{"name": "a", "kind": "function", "target": "aten.relu.__class__.x"}]},
    "kind": {"calls": [{"name": "a", "kind": "method", "target": "relu"}]},
    "layer": {"layers": {"a": {"kind": "LazyLinear", "options": {}}}},
    "option": {"layers": {"a": {"kind": "ReLU", "options": {"inplace": True}}}},
    "value": {"layers": {"a": {"kind": "Dropout", "options": {"p": {"x": 1}}}}},
    "path": {"layers": {"a/../b": {"kind": "ReLU", "options": {}}}},
    "method": {"layers": {"forward": {"kind": "ReLU", "options": {}}}},
    "own name": {"layers": {"_program": {"kind": "ReLU", "options": {}}}},
    "constant": {"output": {"dtype": "__loader__"}},
    "two keys": {"output": {"dtype": "float32", "layout": "strided"}},
    "weights": {"tensors": {}},
    "missing": {"weights": None},
    "version": {"version": 2},
    "deep": {"output": [[]]},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_description_that_is_none_is_refused(case: str, tmp_path: Path) -> None:
    path = saved("tied" if case == "weights" else "in_place", tmp_path)
    found: Json = json.loads(path.read_text())
    change = HOSTILE[case]
    assert isinstance(change, dict)
    if case == "deep":
        path.write_text(path.read_text().replace('"output":', '"output":' + "[" * 100_000, 1))
    elif case == "weights":
        (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    else:
        path.write_text(json.dumps({**found, **change}))
    with pytest.raises(DescriptionError):
        rebuild(path)
