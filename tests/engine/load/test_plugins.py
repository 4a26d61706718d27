"""Architectures that an operator adds: a real distribution with real metadata on the path."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from planish.contract.architectures import GROUP, all_architectures, find_architecture, plugins
from planish.contract.catalog import architecture_catalog
from planish.contract.errors import ArchitectureUnavailable, UnknownArchitecture
from planish.contract.recipe import Simplify
from planish.contract.spec import Architecture, ModelSpec, Spec
from planish.gate.check import check_upload
from worker.engine.load import load_model
from worker.engine.load.architectures.build import build_network

CONTRACT = '''
from typing import ClassVar

from pydantic import Field

from planish.contract.architectures import ArchitectureConfig, ArchitecturePlugin, image_input


class TinyNet(ArchitectureConfig):
    """One convolution and a classifier."""

    library: ClassVar[str] = "acme"
    architecture: ClassVar[str] = "tinynet"
    source: ClassVar[str] = "Acme 2026"

    width: int = Field(4, ge=1, le=64)
    num_classes: int = Field(3, ge=1, le=1000)

    def inputs(self):
        return (image_input(1, 8, 8),)


class Lost(TinyNet):
    """Its networks were never shipped."""

    architecture: ClassVar[str] = "lost"


PLUGIN = ArchitecturePlugin(
    {"tinynet": (TinyNet, "acme_networks:tinynet"), "lost": (Lost, "acme_nowhere:lost")}
)
'''
NETWORKS = """
from torch import nn


def tinynet(config):
    last = nn.Linear(36 * config.width, config.num_classes)
    return nn.Sequential(nn.Conv2d(1, config.width, 3), nn.ReLU(), nn.Flatten(), last)
"""


def install(folder: Path, name: str, points: str, **modules: str) -> None:
    """Lay out a distribution as pip does."""
    for module, content in modules.items():
        (folder / f"{module}.py").write_text(content)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")


def forget() -> None:
    plugins.cache_clear()
    architecture_catalog.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin `acme`, and three that cannot be used."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(
        folder,
        "acme",
        "acme = acme_planish:PLUGIN",
        acme_planish=CONTRACT,
        acme_networks=NETWORKS,
    )
    install(folder, "bad", "broken = no_such_module:PLUGIN\nwrong = json:dumps")
    install(folder, "sly", "planish = acme_planish:PLUGIN")
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    monkeypatch.undo()
    for name in ("acme_planish", "acme_networks"):
        sys.modules.pop(name, None)
    forget()


def weights(folder: Path, width: int = 4) -> Path:
    path = folder / "weights.safetensors"
    torch.manual_seed(0)
    tensors = {
        "0.weight": torch.randn(width, 1, 3, 3),
        "0.bias": torch.zeros(width),
        "3.weight": torch.randn(3, 36 * width),
        "3.bias": torch.zeros(3),
    }
    save_file(tensors, path)
    return path


def asked(name: str = "tinynet", **config: int) -> ModelSpec:
    return ModelSpec(architecture=Architecture(library="acme", name=name, config=config))


def test_a_plugin_is_checked_at_the_gate_built_by_the_worker_and_listed(
    acme: Path, tmp_path: Path
) -> None:
    spec = asked(width=6)
    path = weights(tmp_path, 6)
    check_upload(Spec(recipe=(Simplify(),), model=spec), {"model": path})
    model = load_model(path, spec)
    assert model.module(*model.example(5)).shape == (5, 3)
    listed = {(item.library, item.name): item for item in architecture_catalog().items}
    found = listed["acme", "tinynet"]
    assert (found.available, found.defaults) == (True, {"width": 4, "num_classes": 3})
    assert "width" in str(found.json_schema)
    assert not listed["acme", "lost"].available


def test_plugins_that_cannot_be_used_are_left_out(
    acme: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert set(plugins()) == {"acme"}
    assert {"'broken'", "'wrong'", "'planish'"} <= set(caplog.text.split())
    assert sum(entry.library == "planish" for entry in all_architectures()) == 4


def test_a_plugin_gets_checked_scalars_alone(acme: Path) -> None:
    for config in ({"width": 65}, {"width": "4"}, {"width": [4]}, {"code": "x"}):
        wanted = Architecture.model_validate(
            {"library": "acme", "name": "tinynet", "config": config}
        )
        with pytest.raises(UnknownArchitecture):
            find_architecture(wanted)
    with pytest.raises(UnknownArchitecture, match="did you mean 'tinynet'"):
        find_architecture(Architecture(library="acme", name="tinynt"))
    with pytest.raises(UnknownArchitecture, match="known: planish, transformers, timm"):
        find_architecture(Architecture(library="nobody", name="x"))


def test_a_worker_without_the_networks_says_so(acme: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureUnavailable, match="acme_nowhere"):
        load_model(weights(tmp_path), asked("lost"))


def test_the_api_reads_a_plugin_without_torch(acme: Path) -> None:
    code = (
        "import sys; from planish.contract.catalog import architecture_catalog as c; "
        "assert any(i.library == 'acme' for i in c().items); assert 'torch' not in sys.modules"
    )
    environment = {"PYTHONPATH": f"{acme}:{Path(__file__).parents[3]}"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(("library", "name"), [("timm", "resnet10t"), ("torchvision", "alexnet")])
def test_a_zoo_builds_by_name_or_says_what_to_install(library: str, name: str) -> None:
    config = find_architecture(
        Architecture(library=library, name=name, config={"num_classes": 7, "image_size": 64})
    )
    try:
        importlib.import_module(library)
    except ImportError:
        with pytest.raises(ArchitectureUnavailable, match=rf"planish\[{library}\]"):
            build_network(config)
        return
    assert build_network(config)(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    "name", ["hf-hub:evil/net", "resnet50/../x", "RESNET50", "os.system", "resnet50\n"]
)
def test_names_outside_of_a_zoo_are_refused(name: str) -> None:
    for library in ("timm", "torchvision"):
        with pytest.raises(UnknownArchitecture):
            find_architecture(Architecture(library=library, name=name))
