"""How results are told in a line."""

from __future__ import annotations

import pytest

from planish.cli.comparison import faster


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(2.0, "2.00x faster"), (0.5, "2.00x SLOWER"), (1.0, "same"), (None, "")],
)
def test_slower_result_is_never_called_a_faster_one(ratio: float | None, words: str) -> None:
    assert faster(ratio) == words
