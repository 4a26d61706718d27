"""What simplify rewrites in an ONNX graph, switch by switch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from planish.contract.recipe import Simplify
from tests.engine.runtime_model.nets import Exported, around, away, load
from worker.engine.runtime_model import simplify
from worker.engine.runtime_model.model import RuntimeModel


def kinds(model: RuntimeModel) -> Counter[str]:
    return Counter(node.op_type for node in model.proto.graph.node)


def only(**on: bool) -> Simplify:
    off = {"fold_batchnorm": False, "fold_constants": False, "remove_identities": False}
    return Simplify(**{**off, **on})


def test_batchnorms_fold_into_convolutions_whoever_exported_them(
    nets: Mapping[str, Exported],
) -> None:
    for name in ("residual", "depthwise"):
        for path in (nets[name].new, nets[name].legacy):
            model = load(path)
            outcome = simplify.run(model, Simplify(), around())
            assert kinds(model)["BatchNormalization"] == outcome.facts["batchnorm_folded"] > 0
            assert not kinds(outcome.model)["BatchNormalization"]
            assert away(model, outcome.model) < 1e-5


def test_a_batchnorm_that_has_no_layer_before_it_stays_and_is_named(
    nets: Mapping[str, Exported],
) -> None:
    outcome = simplify.run(load(nets["concat"].legacy), Simplify(), around())
    assert outcome.facts["batchnorm_kept"] == 1
    assert [layer.why for layer in outcome.skipped] == [
        "could not be folded into a layer before it"
    ]


def test_each_switch_does_its_own_part(nets: Mapping[str, Exported]) -> None:
    model = load(nets["residual"].legacy)
    kept = simplify.run(model, only(fold_constants=True, remove_identities=True), around()).model
    assert kinds(kept)["BatchNormalization"] == kinds(model)["BatchNormalization"]
    folded = simplify.run(model, only(fold_batchnorm=True), around())
    assert folded.facts["removed"] == {"BatchNormalization": 6}
    constant = load(nets["residual"].new)
    plain = simplify.run(constant, only(remove_identities=True), around()).model
    assert kinds(plain)["Expand"]
    assert not kinds(plain)["Identity"]


def test_nothing_left_to_do_is_said(nets: Mapping[str, Exported]) -> None:
    model = simplify.run(load(nets["bert"].new), Simplify(), around()).model
    again = simplify.run(model, Simplify(), around())
    assert not again.changed
    assert "the model has no BatchNorm" in again.skipped[0].why


def test_a_shared_weight_is_not_stored_twice(nets: Mapping[str, Exported]) -> None:
    model = load(nets["tied"].legacy)
    outcome = simplify.run(model, Simplify(), around())
    assert outcome.model.amount.parameters.total <= model.amount.parameters.total


def test_all_switched_off_changes_nothing(nets: Mapping[str, Exported]) -> None:
    outcome = simplify.run(load(nets["two"].new), only(), around())
    assert not outcome.changed
    assert outcome.skipped[0].why == "all is switched off"
