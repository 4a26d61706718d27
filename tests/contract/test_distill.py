"""What the contract alone can refuse of a distillation."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from planish.contract.checks import check_recipe, check_student
from planish.contract.errors import InvalidRecipe, MissingPart
from planish.contract.recipe import Distill, Prune, Quantize, Retrain
from planish.contract.spec import Architecture, DataSpec, ModelSpec, Spec


@pytest.mark.parametrize("method", ["hint", "attention_relation"])
def test_what_looks_into_layers_is_not_spread_by_copies(method: str) -> None:
    with pytest.raises(ValidationError, match="looks into the layers"):
        Distill.model_validate({"method": method, "strategy": "data_parallel"})
    Distill.model_validate({"method": method, "strategy": "ddp"})


@pytest.mark.parametrize(
    "params",
    [
        {"method": "kd", "beta": 2},
        {"method": "dkd", "layer_map": {"a": "b"}},
        {"temperature": 0},
        {"alpha": 1.1},
        {"method": "hint", "feature_weight": 0},
        {"method": "dkd", "beta": -1},
    ],
)
def test_parameters_that_mean_nothing_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Distill.model_validate(params)


@pytest.mark.parametrize("task", ["regression", "embedding"])
@pytest.mark.parametrize("method", ["kd", "dkd", "dist"])
def test_values_are_not_compared_as_classes(task: str, method: str) -> None:
    data = DataSpec.model_validate({"task": task})
    step = Distill.model_validate({"method": method})
    with pytest.raises(InvalidRecipe, match='set method to "mse_logits"') as error:
        check_recipe(Spec(data=data, recipe=(Prune(), step)), has_data=True, has_targets=True)
    assert error.value.errors[0].pointer == "/recipe/1/method"
    fits = Spec(data=data, recipe=(Distill(method="mse_logits"),))
    check_recipe(fits, has_data=True, has_targets=True)


@pytest.mark.parametrize(
    "params", [Distill(), Distill(method="dkd", alpha=1), Distill(alpha=1, control=True)]
)
def test_labels_are_asked_for_where_they_are_needed(params: Distill) -> None:
    with pytest.raises(InvalidRecipe, match=r"distill needs labels.*learn from the teacher alone"):
        check_recipe(Spec(recipe=(params,)), has_data=True, has_targets=False)
    check_recipe(Spec(recipe=(Distill(alpha=1),)), has_data=True, has_targets=False)


def test_a_student_is_a_file_or_an_architecture_that_is_trained() -> None:
    named = ModelSpec(architecture=Architecture(library="planish", name="cifar_resnet"))
    check_student(Spec(recipe=(Quantize(),)), has_file=False)
    check_student(Spec(recipe=(Quantize(),), student=ModelSpec()), has_file=True)
    check_student(Spec(recipe=(Retrain(), Quantize()), student=named), has_file=False)
    with pytest.raises(InvalidRecipe, match="starts at random weights"):
        check_student(Spec(recipe=(Quantize(),), student=named), has_file=False)
    with pytest.raises(MissingPart, match="send its file"):
        check_student(Spec(recipe=(Distill(),), student=ModelSpec()), has_file=False)
