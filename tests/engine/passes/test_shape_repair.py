from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.passes.prune.shape_repair import CannotRepair, matching_dims

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(SIZES, st.data())
def test_dimensions_are_matched_by_equal_products_in_order(sizes, data):
    cuts = data.draw(st.lists(st.booleans(), min_size=len(sizes) - 1, max_size=len(sizes) - 1))
    merged = [sizes[0]]
    for size, joined in zip(sizes[1:], cuts, strict=True):
        if joined:
            merged[-1] *= size
        else:
            merged.append(size)
    for old, new in ((sizes, merged), (merged, sizes)):
        groups = matching_dims(tuple(old), tuple(new))
        assert [d for left, _ in groups for d in left] == list(range(len(old)))
        assert [d for _, right in groups for d in right] == list(range(len(new)))
        for left, right in groups:
            assert math.prod(old[d] for d in left) == math.prod(new[d] for d in right)


def test_shapes_of_different_sizes_do_not_match():
    with pytest.raises(CannotRepair):
        matching_dims((2, 3), (2, 4))
