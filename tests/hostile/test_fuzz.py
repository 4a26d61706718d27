"""A short, seeded form of `make fuzz`: no mutated input may escape from any gate or hang in it."""

from __future__ import annotations

from random import Random

import pytest

from tests.hostile.fuzz.inprocess import fuzz
from tests.hostile.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutated_input_escapes_or_hangs(name: str) -> None:
    tally = fuzz(TARGETS[name], runs=600, seed=1)
    assert tally.clean, [*tally.escapes[:1], *tally.hangs[:1]]
    refused = tally.runs - tally.codes["accepted"]
    assert refused > 200, "the mutators hardly break anything"
    assert tally.codes["accepted"] > 10, "the mutators break everything at the first step"


def test_the_same_seed_gives_the_same_inputs() -> None:
    for target in TARGETS.values():
        assert target.mutate(Random(7)) == target.mutate(Random(7))
