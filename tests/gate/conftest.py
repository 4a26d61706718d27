"""Real model files, written once for all tests of the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import zoo
from tests.exports import export_pt2, save_state_dict


@pytest.fixture(scope="session")
def pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module, example = zoo.small_residual_cnn()
    return export_pt2(module, example, tmp_path_factory.mktemp("pt2") / "digits.pt2")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module, _ = zoo.small_residual_cnn()
    return save_state_dict(module, tmp_path_factory.mktemp("pt") / "digits.pt")
