"""NHWC or NCHW, told from the model's input."""

from __future__ import annotations

import pytest

from planish.contract.errors import AmbiguousLayout, InvalidData
from planish.gate.layout import resolve_layout

RGB = ("batch", 3, 32, 32)


@pytest.mark.parametrize(
    ("model", "stored", "layout"),
    [
        (RGB, (9, 32, 32, 3), "nhwc"),
        (RGB, (9, 3, 32, 32), "nchw"),
        (("batch", 1, 28, 28), (9, 28, 28), "nchw"),
        (("batch", 1, 28, 28), (9, 28, 28, 1), "nhwc"),
        (("batch", 1, 49, 10), (9, 49, 10), "nchw"),
        (("batch", 4, 1, 1), (9, 1, 1, 4), "nhwc"),
        (("batch", 1, 1, 1), (9, 1, 1, 1), "nchw"),
        (("batch", 3, "h", "w"), (9, 64, 48, 3), "nhwc"),
        (("batch", 16), (9, 16), "as_is"),
        (("batch", 8, 100), (9, 8, 100), "as_is"),
        (("batch", "dim_1"), (9, 77), "as_is"),
    ],
)
def test_the_layout_is_told_from_the_input(model, stored, layout: str) -> None:
    assert resolve_layout(model, stored, "auto") == layout


@pytest.mark.parametrize(
    ("model", "stored"),
    [
        (("batch", 3, 3, 3), (9, 3, 3, 3)),
        (("batch", 3, "h", "w"), (9, 3, 64, 3)),
    ],
)
def test_what_fits_both_ways_must_be_stated(model, stored) -> None:
    with pytest.raises(AmbiguousLayout, match=r"preprocess\.layout") as refused:
        resolve_layout(model, stored, "auto")
    assert refused.value.errors[0].pointer == "/data/preprocess/layout"
    assert resolve_layout(model, stored, "nhwc") == "nhwc"
    assert resolve_layout(model, stored, "nchw") == "nchw"


@pytest.mark.parametrize(
    ("model", "stored", "declared"),
    [
        (RGB, (9, 28, 28, 3), "auto"),
        (RGB, (9, 32, 32), "auto"),
        (RGB, (9, 32, 32, 3), "nchw"),
        (RGB, (9, 3072), "auto"),
        (("batch", 16), (9, 17), "auto"),
        (("batch", 16), (9, 16, 1), "auto"),
    ],
)
def test_what_fits_no_way_is_refused_with_both_shapes(model, stored, declared) -> None:
    with pytest.raises(InvalidData, match=r"cannot feed an input of shape \(batch"):
        resolve_layout(model, stored, declared)
