"""Channels by a share of the arithmetic or of the measured time."""

from __future__ import annotations

import pytest
import torch

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Prune
from tests.engine.passes.models import canonical, context, zoo_model
from tests.zoo import small_residual_cnn
from worker.engine.measure.macs import count_macs
from worker.engine.model import Model, first_output
from worker.engine.passes import Outcome, entry_for


def pruned(model: Model, params: Prune) -> Outcome:
    return entry_for(params).run(model, params, context(model, params))


@pytest.mark.parametrize("share", [0.7, 0.5, 0.25])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_share_of_the_arithmetic_is_met_within_two_percent(share, scope):
    model = canonical(*small_residual_cnn(width=32))
    result = pruned(model, Prune(target_macs=share, scope=scope, round_to=1))
    found = count_macs(result.model) / count_macs(model)
    assert found == pytest.approx(share, rel=0.021)
    assert result.facts["macs_share"] == pytest.approx(found, abs=1e-4)
    assert "warning" not in result.facts


def test_where_rounding_is_coarse_the_nearest_share_is_taken_and_said():
    result = pruned(canonical(*small_residual_cnn(width=32)), Prune(target_macs=0.6))
    share = result.facts["macs_share"]
    assert abs(share - 0.6) < 0.15
    assert abs(share - 0.6) <= 0.012 or f"{share:.3f}, not 0.6" in result.facts["warning"]


def test_a_share_out_of_reach_is_an_error_or_the_least_there_is():
    result = pruned(zoo_model("mlp"), Prune(target_macs=0.001, round_to=8))
    assert "not 0.001" in result.facts["warning"]
    with pytest.raises(NothingChanged, match=r"target_macs 0\.9"):
        pruned(zoo_model("mlp"), Prune(target_macs=0.9, round_to=32))


def test_a_share_of_the_latency_is_measured_on_the_target():
    model = canonical(*small_residual_cnn(width=64))
    result = pruned(model, Prune(target_latency=0.6, round_to=64))
    measured = result.facts["latency_measured"]
    assert measured
    assert result.facts["latency_share"] in measured
    assert result.facts["params"][1] < result.facts["params"][0]
    with torch.no_grad():
        assert first_output(result.model.module(*result.model.example(5))).shape == (5, 10)


def test_a_plan_measures_nothing_and_says_so():
    model = canonical(*small_residual_cnn(width=64))
    params = Prune(target_latency=0.6)
    _, plan = entry_for(params).plan(model, params, context(model, params))
    assert "latency_measured" not in plan.facts
    assert "the job measures" in plan.facts["estimate"]
