from __future__ import annotations

import importlib.util

import httpx

from planish.contract.architectures import all_architectures
from planish.contract.catalog import ArchitectureCatalog, PassCatalog
from planish.contract.recipe import PASSES, op_of


def test_every_pass_is_described_with_defaults_ranges_and_source(client: httpx.Client) -> None:
    passes = PassCatalog.model_validate(client.get("/passes").json()).items
    assert [info.op for info in passes] == [op_of(params) for params in PASSES]
    for info in passes:
        assert info.summary
        assert info.source
        assert info.json_schema["additionalProperties"] is False
        for parameter in info.parameters:
            assert parameter.description, (info.op, parameter.name)
            assert parameter.range, (info.op, parameter.name)


def test_ranges_are_said_in_words(client: httpx.Client) -> None:
    prune = client.get("/passes").json()["items"][0]
    ranges = {parameter["name"]: parameter["range"] for parameter in prune["parameters"]}
    assert ranges["sparsity"] == "number > 0, < 1 or null"
    assert ranges["method"] == (
        "magnitude, gradient, taylor, wanda, sparsegpt, bn_scale, fpgm, kl, block_influence, random"
    )
    assert ranges["round_to"] == "integer ≥ 1, ≤ 256 or null"
    assert prune["defaults"]["sparsity"] == 0.5
    assert "sparsity" in prune["schema"]["properties"]


def test_needs_are_named(client: httpx.Client) -> None:
    needs = {info["op"]: info["needs"] for info in client.get("/passes").json()["items"]}
    assert needs["retrain"] == ["data", "targets"]
    assert needs["simplify"] == []


def test_every_architecture_is_described(client: httpx.Client) -> None:
    found = ArchitectureCatalog.model_validate(client.get("/architectures").json()).items
    known = all_architectures()
    assert [(a.library, a.name) for a in found] == [(a.library, a.name) for a in known]
    assert all(a.summary and a.source and a.inputs for a in found)
    libraries = {"planish", "transformers", "timm", "torchvision"}
    assert libraries <= {a.library for a in found}
    assert all(a.available for a in found if a.library == "planish")


def test_what_is_not_installed_says_how_to_get_it(client: httpx.Client) -> None:
    found = ArchitectureCatalog.model_validate(client.get("/architectures").json()).items
    for item in found:
        if item.library in ("transformers", "timm", "torchvision"):
            assert item.available == (importlib.util.find_spec(item.library) is not None)
            assert item.install == f"planish[{item.library}]"
