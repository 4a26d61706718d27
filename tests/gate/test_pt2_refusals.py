"""What a .pt2 cannot be taken for is said with operator, layer, line, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planish.contract.errors import InvalidModel, OperatorNotAllowed, PlanishError, UnsafeModel
from planish.gate.operators import GROUPS
from planish.gate.pt2 import check_content, open_package
from tests.conftest import ROOT
from tests.exports import export_pt2
from tests.gate.files import change_json, rezip
from worker.engine.load.pt2 import read_pt2


class Spectrum(nn.Module):
    """Calls an operator that is not in the table."""

    def forward(self, x: Tensor) -> Tensor:
        """Return magnitudes."""
        return torch.fft.rfft(x).abs()


class Outer(nn.Module):
    """Holds it as a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 8)
        self.spectrum = Spectrum()

    def forward(self, x: Tensor) -> Tensor:
        """Return the spectrum of the head."""
        return self.spectrum(self.head(x))


def line_of(method: Callable[..., object], text: str) -> int:
    """Return the line of this file that holds a text of a method."""
    lines, first = inspect.getsourcelines(method)
    return first + next(index for index, line in enumerate(lines) if text in line)


def test_an_operator_is_refused_with_its_layer_and_line(tmp_path: Path) -> None:
    path = export_pt2(Outer(), (torch.zeros(2, 8),), tmp_path / "a.pt2")
    package = open_package(path)
    with pytest.raises(OperatorNotAllowed) as refused:
        check_content(package, package.program())
    line = line_of(Spectrum.forward, "rfft")
    assert f"in layer 'spectrum' (line {line} of {Path(__file__).name})" in refused.value.detail
    assert "with other operators of torch.nn, and export the model again" in refused.value.detail
    assert str(Path(__file__).parent) not in refused.value.detail
    with pytest.raises(OperatorNotAllowed, match="rfft"):
        read_pt2(path)


class Autocast(nn.Module):
    """Runs a part in 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.linear(x)


def test_a_region_under_autocast_is_refused_by_name(tmp_path: Path) -> None:
    path = export_pt2(Autocast(), (torch.zeros(2, 4),), tmp_path / "a.pt2")
    with pytest.raises(OperatorNotAllowed, match=r"under autocast.*without torch\.autocast"):
        read_pt2(path)


Change = Callable[[dict[str, bytes]], dict[str, bytes]]
LAYOUTS: dict[str, tuple[Change, type[PlanishError], str]] = {
    "pickled weights": (
        lambda members: {
            **{n: raw for n, raw in members.items() if "weights" not in n},
            "data/weights/model.pt": b"PK",
        },
        InvalidModel,
        "older layout, with pickled weights .*export the model again with torch 2.13",
    ),
    "no program": (
        lambda members: {n: raw for n, raw in members.items() if not n.startswith("models/")},
        InvalidModel,
        "0 programs",
    ),
    "two programs": (
        lambda members: {**members, "models/other.json": members["models/model.json"]},
        InvalidModel,
        "2 programs",
    ),
    "native code": (
        lambda members: {**members, "data/aotinductor/model/a.so": b"\x7fELF"},
        UnsafeModel,
        "compiled code",
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_another_layout_is_refused_by_name(case: str, pt2: Path, tmp_path: Path) -> None:
    change, kind, says = LAYOUTS[case]
    with pytest.raises(kind, match=says):
        read_pt2(rezip(pt2, tmp_path / "a.pt2", change))


@pytest.mark.parametrize("major", [5, 7, 9])
def test_another_schema_says_how_to_export_again(major: int, pt2: Path, tmp_path: Path) -> None:
    def change(program: dict[str, dict[str, int]]) -> None:
        program["schema_version"]["major"] = major

    with pytest.raises(InvalidModel, match=rf"schema version {major}; .*again with torch 2\.13"):
        read_pt2(change_json(pt2, tmp_path / "a.pt2", change))


def test_a_newer_minor_version_is_read(pt2: Path, tmp_path: Path) -> None:
    def change(program: dict[str, dict[str, int]]) -> None:
        program["schema_version"]["minor"] = 99

    module, _ = read_pt2(change_json(pt2, tmp_path / "a.pt2", change))
    assert len(module.graph.nodes) > 3


def test_the_docs_have_the_table_of_operators() -> None:
    rows = [
        f"| {what} | {' '.join(f'`{name}`' for name in names.split())} |"
        for what, names in GROUPS.items()
    ]
    assert "\n".join(rows) in (ROOT / "docs" / "formats.md").read_text()
