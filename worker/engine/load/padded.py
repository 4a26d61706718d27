"""Rows of token ids of different lengths as samples of one length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData
from worker.engine.load.nested import Lengths

SHORTEST = 2  # tokens of a window in which one can be held against the one before


@dataclass(frozen=True)
class Cut:
    """How rows become samples.

    Attributes:
        length: of each sample, in tokens.
        windows: whether longer rows become several samples; else they are refused.
    """

    length: int
    windows: bool

    def count(self, lengths: Lengths) -> int:
        """Return how many samples rows of some lengths become."""
        return len(self.places(lengths)[0])

    def padded(self, lengths: Lengths) -> bool:
        """Tell whether any sample is shorter than the others."""
        return bool((self.places(lengths)[1] < self.length).any())

    def places(self, lengths: Lengths) -> tuple[Lengths, Lengths]:
        """Return where each sample begins among all tokens, and how many it has.

        Windows of one token are left out: nothing can be held against it.
        """
        first = np.cumsum(lengths) - lengths
        if not self.windows:
            return first, lengths
        pieces = -(-lengths // self.length)
        row = np.repeat(np.arange(len(lengths)), pieces)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        sizes = np.minimum(lengths[row] - nth * self.length, self.length)
        long = sizes >= SHORTEST
        return (first[row] + nth * self.length)[long], sizes[long]

    def samples(
        self, numbers: NDArray[np.generic], lengths: Lengths, filler: int
    ) -> NDArray[np.generic]:
        """Return samples of one length, filled up at their ends.

        Args:
            numbers: the tokens of all rows, one after the other.
            lengths: of the rows.
            filler: stands where there are no tokens.
        """
        starts, sizes = self.places(lengths)
        taken = np.arange(self.length) < sizes[:, None]
        samples = np.full(taken.shape, filler, numbers.dtype)
        samples[taken] = numbers[(starts[:, None] + np.arange(self.length))[taken]]
        return samples


def check_lengths(lengths: Lengths, length: int, where: str) -> None:
    """Refuse rows that are empty or do not fit a sample; raises `InvalidData`."""
    wrong = (lengths > length) | (lengths < 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidData(
            f"{where} has {lengths[row]} tokens in row {row}; 1 to {length} are taken: "
            f"tokenizer(text, truncation=True, max_length={length})"
        )
