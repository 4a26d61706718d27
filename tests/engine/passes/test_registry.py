from __future__ import annotations

from planish.contract.recipe import PASSES, Prune, op_of
from worker.engine.passes import REGISTRY, entry_for


def test_every_pass_of_the_contract_has_a_line_in_the_same_order():
    assert list(REGISTRY) == [op_of(params) for params in PASSES]
    assert [entry.params for entry in REGISTRY.values()] == list(PASSES)


def test_parameters_find_their_functions():
    assert entry_for(Prune()) is REGISTRY["prune"]
