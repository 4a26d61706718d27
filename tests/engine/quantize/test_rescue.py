"""The rescue ladder: left alone where rounding does well, climbed where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from tests.engine.passes.models import context
from tests.engine.quantize.conftest import Trained
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.model import Model
from worker.engine.passes import Outcome, quantize
from worker.engine.passes.quantize.rescue import is_good
from worker.engine.quantize.quality import Quality
from worker.engine.save.onnx import save_onnx


def quantized(net: Trained, model: Model, **params: object) -> Outcome:
    asked = Quantize(**params)
    return quantize.run(model.clone(), asked, context(model, asked, splits=net.splits))


def test_a_network_that_rounds_well_is_left_at_rounding(digits_net: Trained) -> None:
    outcome = quantized(digits_net, digits_net.plain)
    assert outcome.facts["treatment"] == "rtn, minmax"
    assert "rescue" not in outcome.facts
    assert outcome.facts["sqnr_db"] > 20
    assert digits_net.accuracy(outcome.model) >= digits_net.accuracy(digits_net.plain) - 0.012


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("scaled", ["scaled", "streams"])
def test_a_collapse_is_rescued_without_a_hint(
    digits_net: Trained, scaled: str, granularity: str
) -> None:
    model = getattr(digits_net, scaled)
    float_accuracy = digits_net.accuracy(model)
    plain = quantized(digits_net, model, algorithm="rtn", granularity=granularity)
    assert digits_net.accuracy(plain.model) < float_accuracy - 0.3, "no collapse to rescue"
    assert '"auto" tries what may rescue it' in plain.facts["warning"]
    outcome = quantized(digits_net, model, granularity=granularity)
    assert "warning" not in outcome.facts
    assert digits_net.accuracy(outcome.model) >= float_accuracy - 0.012
    first, *_, last = outcome.facts["rescue"]
    assert first["step"] == "as asked for"
    assert first["sqnr_db"] < 5
    assert last["kept"]
    assert last["sqnr_db"] == outcome.facts["sqnr_db"] > 20
    assert outcome.facts["equalized"]
    assert outcome.skipped == (), "no layer had to go back to float"


def test_min_sqnr_puts_the_fewest_layers_back(digits_net: Trained, tmp_path: Path) -> None:
    free = quantized(digits_net, digits_net.plain, algorithm="rtn")
    wanted = free.facts["sqnr_db"] + 2
    outcome = quantized(digits_net, digits_net.plain, algorithm="rtn", min_sqnr=wanted)
    assert outcome.facts["sqnr_db"] >= wanted
    freed = {layer.name for layer in outcome.skipped}
    assert 0 < len(freed) < len(free.layers)
    listed = {harm["layer"]: harm for harm in outcome.facts["sensitivity"]}
    assert {name for name, harm in listed.items() if harm["float"]} == freed
    assert sum(harm["noise_share"] for harm in listed.values()) == pytest.approx(1, abs=0.01)
    save_onnx(outcome.model, tmp_path / "mixed.onnx")
    assert set(read_runtime_graph(tmp_path / "mixed.onnx").float_layers) == freed


def test_min_sqnr_out_of_reach_is_an_error(digits_net: Trained) -> None:
    with pytest.raises(NothingChanged, match="out of reach"):
        quantized(digits_net, digits_net.plain, algorithm="rtn", min_sqnr=100)


def test_much_noise_is_forgiven_only_where_answers_agree() -> None:
    assert is_good(Quality(25.0, None))
    assert is_good(Quality(25.0, 0.5)), "random answers of an untrained net prove nothing"
    assert is_good(Quality(14.0, 0.99))
    assert not is_good(Quality(14.0, None))
    assert not is_good(Quality(14.0, 0.9))
    assert not is_good(Quality(5.0, 1.0))
