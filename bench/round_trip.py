"""Twelve families of networks through all five outputs, in float and in static int8.

    .venv/bin/python bench/round_trip.py [--families resnet …] [--outputs onnx …]

Each cell writes a family's network in a format, opens the file as its load.py does, runs batches of
1 and 3, and compares: a float file with the user's own torch module, an int8 file with the
quantized torch graph. Cells may be run one by one: results are merged into
bench/results/round_trip.json, and the table in docs/formats.md is written anew from it. Output
aotinductor needs g++ (some 20 s for each network).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from planish.contract.spec import Output
from tests.engine.save.round_trip import measure, tolerance
from tests.engine.save.round_trip_table import DOCUMENT, RESULT, Results, with_table
from tests.families import FAMILIES

NUMBERS = ("float", "int8")


def main() -> int:
    """Measure the chosen cells; the exit code tells whether all of them are within tolerance."""
    parser = argparse.ArgumentParser(description="Round trips of network families.")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    outputs = list(get_args(Output))
    parser.add_argument("--outputs", nargs="+", choices=outputs, default=outputs)
    parser.add_argument("--numbers", nargs="+", choices=NUMBERS, default=list(NUMBERS))
    chosen = parser.parse_args()
    results: Results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    fits = True
    for name in chosen.families:
        for output in chosen.outputs:
            for numbers in chosen.numbers:
                with tempfile.TemporaryDirectory() as folder:
                    cell = measure(name, output, numbers, Path(folder))
                limit = tolerance(output, numbers)
                fits &= cell.error is not None and cell.error <= limit
                row = results.setdefault(name, {}).setdefault(output, {})
                row[numbers] = {"error": cell.error, "tolerance": limit, "cause": cell.cause}
                sys.stdout.write(f"{name} {output} {numbers}: {cell.error} {cell.cause or ''}\n")
                sys.stdout.flush()
        ordered = {name: results[name] for name in FAMILIES if name in results}
        RESULT.write_text(json.dumps(ordered, indent=1) + "\n")
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), results))
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
