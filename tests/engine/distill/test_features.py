from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.contract.errors import InvalidRecipe
from planish.contract.spec import Architecture, ModelSpec
from tests import zoo
from tests.engine.passes.models import canonical, zoo_model
from tests.transformers_zoo import tiny_llama, tiny_vit
from worker.engine.distill.features import Feature, Hint, Pair, features_of
from worker.engine.distill.matching import found_pairs, given_pairs
from worker.engine.load.construct import construct_model
from worker.engine.model import Model

PLACE = "/recipe/0/layer_map"


def resnet(depth: int) -> Model:
    named = Architecture(library="planish", name="cifar_resnet", config={"depth": depth})
    return construct_model(ModelSpec(architecture=named), 0)


def feature(width: int, *sizes: int, last: bool = False) -> Feature:
    return Feature("layer", width, sizes, last)


def names(pairs: tuple[Pair, ...]) -> dict[str, str]:
    return {pair.student.name: pair.teacher.name for pair in pairs}


def test_stages_of_residual_networks_end_at_the_activation_of_their_last_block():
    found = found_pairs(features_of(resnet(8)), features_of(resnet(14)), PLACE)
    assert names(found) == {
        "fn.relu_2": "fn.relu_4",
        "fn.relu_4": "fn.relu_8",
        "fn.relu_6": "fn.relu_12",
    }
    assert [pair.student.sizes for pair in found] == [(32, 32), (16, 16), (8, 8)]


def test_one_architecture_follows_its_own_layers_by_name():
    model = zoo_model("mlp")
    found = found_pairs(features_of(model), features_of(model.clone()), PLACE)
    assert len(found) == 3
    assert all(pair.student.name == pair.teacher.name for pair in found)


@pytest.mark.parametrize(
    ("net", "end"), [(tiny_vit, "blocks.{}.down"), (tiny_llama, "layers.{}.down_proj")]
)
def test_transformers_are_compared_where_their_blocks_end(net, end):
    small, large = canonical(*net(depth=2)), canonical(*net(depth=4))
    found = found_pairs(features_of(small), features_of(large), PLACE)
    assert names(found) == {end.format(0): end.format(1), end.format(1): end.format(3)}
    same = found_pairs(features_of(large), features_of(large), PLACE)
    assert names(same) == {end.format(i): end.format(i) for i in (1, 2, 3)}


def test_the_layers_that_make_the_output_are_no_features():
    assert "linear" not in features_of(zoo_model("small_residual_cnn"))
    assert "head" not in features_of(zoo_model("tiny_transformer"))


def test_stages_without_a_common_size_are_paired_from_the_end():
    small = canonical(*zoo.small_residual_cnn(side=12))
    large = canonical(*zoo.small_residual_cnn(side=20))
    found = found_pairs(features_of(small), features_of(large), PLACE)
    assert found
    assert all(pair.student.name == pair.teacher.name for pair in found)
    assert all(pair.student.sizes != pair.teacher.sizes for pair in found)


def test_networks_of_different_kinds_are_refused():
    with pytest.raises(InvalidRecipe, match="name them in layer_map"):
        found_pairs(
            features_of(zoo_model("mlp")), features_of(zoo_model("small_residual_cnn")), PLACE
        )


def test_a_map_that_names_no_layer_is_refused_with_near_names():
    model = features_of(resnet(8))
    with pytest.raises(
        InvalidRecipe, match=r"the student has no layer 'layer1\.0\.bn3'.*bn2"
    ) as error:
        given_pairs({"layer1.0.bn3": "layer1.0.bn2"}, model, model, PLACE)
    assert error.value.errors[0].pointer == f"{PLACE}/layer1.0.bn3"
    with pytest.raises(InvalidRecipe, match="the teacher has no layer"):
        given_pairs({"layer1.0.bn2": "linear"}, model, model, PLACE)


def test_images_and_vectors_do_not_go_together():
    images, vectors = features_of(resnet(8)), features_of(zoo_model("mlp"))
    with pytest.raises(InvalidRecipe, match="images go with images"):
        given_pairs({"conv1": next(iter(vectors))}, images, vectors, PLACE)


def test_equal_widths_need_no_projection():
    hint = Hint(Pair(feature(4, 3, 3), feature(4, 3, 3)))
    assert not list(hint.parameters())
    student, teacher = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(hint(student, teacher, None), (student - teacher).square().mean())


def test_a_projection_is_a_convolution_of_one_by_one():
    hint = Hint(Pair(feature(4, 3, 3), feature(6, 3, 3)))
    conv = nn.Conv2d(4, 6, 1)
    conv.load_state_dict(
        {
            "weight": hint.projection.weight[:, :, None, None],
            "bias": hint.projection.bias,
        }
    )
    student, teacher = torch.randn(2, 4, 3, 3), torch.randn(2, 6, 3, 3)
    wanted = (conv(student) - teacher).square().mean()
    torch.testing.assert_close(hint(student, teacher, None), wanted)


@pytest.mark.parametrize(
    ("ours", "theirs"), [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((8, 4), (4, 8)), ((6,), (3,))]
)
def test_the_larger_map_is_pooled_to_the_smaller(ours, theirs):
    hint = Hint(Pair(feature(2, *ours), feature(5, *theirs)))
    student = torch.randn(3, 2, *ours, requires_grad=True)
    loss = hint(student, torch.randn(3, 5, *theirs), None)
    loss.backward()
    assert torch.isfinite(student.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in hint.parameters())


def test_padding_does_not_count():
    hint = Hint(Pair(feature(4, 3, last=True), feature(4, 3, last=True)))
    student, teacher = torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)
    teacher[0, 0], teacher[0, 2] = 1.0, 100.0
    counted = torch.tensor([[True, True, False]])
    assert float(hint(student, teacher, counted)) == pytest.approx(0.5)
