"""The run without a teacher, and what the report says about it."""

from __future__ import annotations

import numpy as np
import pytest

from planish.contract.recipe import Distill, Retrain, Train
from planish.contract.report import PassReport
from tests.engine.passes.models import (
    context,
    digit_splits,
    same_weights,
    weights,
    zoo_model,
)
from worker.engine.controls import Controlled, judged, score
from worker.engine.passes import Outcome, entry_for

TRAIN = Train(epochs=2, batch_size=64, lr=0.05)


def done(params: Distill | Retrain) -> Outcome:
    model = zoo_model("small_residual_cnn")
    return entry_for(params).run(model, params, context(model, params, splits=digit_splits()))


@pytest.fixture(scope="module")
def controlled() -> Outcome:
    return done(Distill(control=True, train=TRAIN))


def test_the_control_is_a_retraining_of_the_same_budget_bit_for_bit(controlled: Outcome) -> None:
    alone = done(Retrain(train=TRAIN))
    assert controlled.control is not None
    assert same_weights(weights(controlled.control), weights(alone.model))


def test_the_control_leaves_the_distillation_as_it_is(controlled: Outcome) -> None:
    plain = done(Distill(train=TRAIN))
    assert same_weights(weights(controlled.model), weights(plain.model))
    assert controlled.training == plain.training
    assert plain.control is None
    facts = controlled.facts["control"]
    assert facts["validation_with_teacher"] == plain.facts["validation_accuracy"]
    gain = facts["validation_with_teacher"] - facts["validation_without_teacher"]
    assert facts["validation_gain"] == pytest.approx(gain, abs=1e-6)


def report_of(outcome: Outcome, swap: bool = False) -> PassReport:
    """Return what the report says; `swap` has teacher's student and control change places."""
    told = PassReport(
        op="distill", changed=True, layers_changed=1, facts=outcome.facts, seconds=1.0
    )
    both = (outcome.model, outcome.control)
    pair = Controlled(1, *(both[::-1] if swap else both))
    (found,) = judged((told,), (pair,), digit_splits().sealed, "classification")
    return found


def test_the_report_holds_both_on_the_sealed_samples(controlled: Outcome) -> None:
    sealed = digit_splits().sealed
    facts = report_of(controlled).facts
    own = score(controlled.model, sealed, "classification")
    other = score(controlled.control, sealed, "classification")
    assert facts["control"]["sealed_with_teacher"] == own
    assert facts["control"]["sealed_without_teacher"] == other
    assert facts["control"]["sealed_samples"] == len(sealed)
    words = f"{100 * (own - other):+.2f} points of accuracy ({own:.2%} with it, {other:.2%} without"
    assert str(facts["teacher_gain"]).startswith(words)


def test_a_control_that_did_better_is_a_warning(controlled: Outcome) -> None:
    notes = [report_of(controlled, swap).facts.get("warning") for swap in (False, True)]
    sealed = digit_splits().sealed
    scores = [score(m, sealed, "classification") for m in (controlled.model, controlled.control)]
    assert scores[0] != scores[1], "this data tells the two apart"
    better, worse = (notes[1], notes[0]) if scores[0] > scores[1] else (notes[0], notes[1])
    assert worse is None
    assert "without the teacher did better" in str(better)


def test_without_sealed_samples_the_validation_figures_stand(controlled: Outcome) -> None:
    told = PassReport(
        op="distill", changed=True, layers_changed=1, facts=controlled.facts, seconds=1.0
    )
    pair = Controlled(1, controlled.model, controlled.control)
    (found,) = judged((told,), (pair,), None, "classification")
    assert str(found.facts["teacher_gain"]).endswith("on validation samples)")


def test_a_score_is_a_mean_over_all_batches() -> None:
    model, sealed = zoo_model("small_residual_cnn"), digit_splits().sealed
    halves = np.array_split(np.arange(len(sealed)), 2)
    by_half = [score(model, sealed.take(rows), "classification") * len(rows) for rows in halves]
    assert score(model, sealed, "classification") == pytest.approx(sum(by_half) / len(sealed))
