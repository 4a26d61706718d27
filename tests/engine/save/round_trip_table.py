"""The table of round trips in docs/formats.md, made from what bench/round_trip.py measured."""

from __future__ import annotations

from typing import get_args

from planish.contract.spec import Output
from tests.conftest import ROOT
from tests.families import FAMILIES

RESULT = ROOT / "bench" / "results" / "round_trip.json"
DOCUMENT = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- round trips: begin -->", "<!-- round trips: end -->"

Cell = dict[str, float | str | None]
Results = dict[str, dict[str, dict[str, Cell]]]

WORDS = {
    "resnet": "ResNet (residual)",
    "densenet": "DenseNet (concatenation)",
    "mobilenet": "MobileNet (depthwise)",
    "resnext": "ResNeXt (grouped)",
    "unet": "U-Net (transposed convolution)",
    "vit": "ViT",
    "bert": "BERT, attention mask",
    "llama": "llama, free length",
    "lstm": "LSTM, both ways",
    "gru": "GRU",
    "multi_io": "two inputs, dict output",
    "shared": "shared weights and layers",
}


def table(results: Results) -> str:
    """Return the rows: for each family and output the error in float and in int8."""
    outputs = get_args(Output)
    lines = [
        f"| family | {' | '.join(f'`{name}`' for name in outputs)} |",
        f"|---|{'---|' * len(outputs)}",
    ]
    for name in FAMILIES:
        cells = [_cell(results.get(name, {}).get(output, {})) for output in outputs]
        lines.append(f"| {WORDS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(text: str, results: Results) -> str:
    """Return a page with the table between its marks."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table(results)}\n\n{END}{tail}"


def _cell(row: dict[str, Cell]) -> str:
    return " · ".join(_figure(row.get(numbers)) for numbers in ("float", "int8"))


def _figure(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    error = cell["error"]
    if not isinstance(error, float):
        return "refused"
    return "0" if error == 0 else f"{error:.0e}"
