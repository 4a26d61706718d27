"""A seeded part of the table of round trips; `bench/round_trip.py` has all of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import get_args

import pytest

from planish.contract.spec import Output
from tests.engine.save.round_trip import measure, tolerance
from tests.engine.save.round_trip_table import BEGIN, DOCUMENT, RESULT, table
from tests.families import FAMILIES

# The exporters take seconds for these; the long form has them.
SLOW = {"llama", "vit", "bert"}
QUICK = sorted(set(FAMILIES) - SLOW)
CELLS = [
    *((name, "safetensors", "float") for name in FAMILIES),
    *((name, "safetensors", "int8") for name in random.Random(0).sample(QUICK, 2)),
    *((name, "pt2", "int8") for name in random.Random(1).sample(QUICK, 2)),
    *((name, "onnx", "float") for name in random.Random(2).sample(QUICK, 2)),
    *((name, "openvino", "int8") for name in random.Random(3).sample(QUICK, 1)),
]


@pytest.mark.parametrize(("name", "output", "numbers"), CELLS)
def test_a_file_answers_as_the_network_did(
    name: str, output: Output, numbers: str, tmp_path: Path
) -> None:
    if output == "openvino":
        pytest.importorskip("openvino")
    cell = measure(name, output, numbers, tmp_path)
    assert cell.error is not None, cell.cause
    assert cell.error <= tolerance(output, numbers)


def test_the_bench_has_the_cells_and_the_docs_have_its_table() -> None:
    results = json.loads(RESULT.read_text())
    assert set(results) == set(FAMILIES)
    for rows in results.values():
        for output in get_args(Output):
            # Native code takes its compiler so long that not every cell is measured.
            row = rows.get(output, {})
            assert output == "aotinductor" or set(row) == {"float", "int8"}
            for cell in row.values():
                assert cell["error"] is not None
                assert cell["error"] <= cell["tolerance"]
    shown = DOCUMENT.read_text().partition(BEGIN)[2]
    assert table(results) in shown
