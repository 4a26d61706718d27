from __future__ import annotations

import pytest
import torch

from tests.engine.passes.layer_nets import cifar_resnet, mobilenet, read
from tests.engine.passes.models import zoo_model
from worker.engine.model import first_output
from worker.engine.passes.prune.blocks import find_blocks
from worker.engine.passes.prune.removal import remove_blocks, runs
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2

RESHAPES = "its output has another shape than its input"


def names(name: str) -> list[str]:
    return [block.name for block in find_blocks(read(name)).blocks]


@pytest.mark.parametrize(("depth", "removable"), [(20, 7), (56, 25)])
def test_all_blocks_of_a_resnet_but_those_that_begin_a_stage_may_go(depth, removable):
    found = find_blocks(read(f"resnet{depth}"))
    stages, blocks = (1, 2, 3), range((depth - 2) // 6)
    expected = [f"layer{s}.{b}" for s in stages for b in blocks if b or s == 1]
    assert [block.name for block in found.blocks] == expected
    assert len(expected) == removable
    assert found.refused == {"layer2.0": RESHAPES, "layer3.0": RESHAPES}


def test_a_residual_block_reaches_from_activation_to_activation():
    first = find_blocks(read("resnet20")).blocks[0]
    assert first.layers == ("layer1.0.conv1", "layer1.0.bn1", "layer1.0.conv2", "layer1.0.bn2")
    assert (first.entry.name, first.exit.name) == ("fn_relu", "fn_relu_2")


def test_inverted_residuals_that_keep_the_shape_may_go():
    assert names("mobilenet") == ["0.2.conv", "0.4.conv", "0.5.conv"]


@pytest.mark.parametrize(
    ("net", "path"),
    [("bert", "encoder.layer"), ("vit", "vit.layers"), ("llama", "model.layers")],
)
def test_a_transformer_layer_goes_with_its_attention_and_its_mlp(net, path):
    assert names(net) == [f"model.{path}.{index}" for index in range(3)]


def test_a_final_normalization_is_no_part_of_the_last_layer():
    *_, last = find_blocks(read("vit")).blocks
    assert "model.vit.layernorm" not in last.layers


def test_a_normalization_behind_the_sum_goes_with_its_layer():
    *_, last = find_blocks(read("bert")).blocks
    assert last.layers[-1] == "model.encoder.layer.2.output.LayerNorm"
    assert last.exit.target == "model.encoder.layer.2.output.LayerNorm"


def test_in_a_plain_chain_the_shortest_stretches_between_like_values_may_go():
    assert names("plain_chain") == ["2…3", "5…7", "9…11"]


def test_layers_called_twice_have_one_block_for_each_call_that_fits():
    assert [block.name for block in find_blocks(zoo_model("tied")).blocks] == ["mix"]


def test_recurrent_layers_stay():
    assert names("recurrent") == []


def test_a_block_whose_inside_is_read_elsewhere_stays():
    found = find_blocks(read("steps_told"))
    assert [block.name for block in found.blocks] == ["steps.0", "steps.2"]
    assert found.refused == {"steps.1": "values inside it are read elsewhere"}


def test_a_block_whose_sum_is_overwritten_stays():
    found = find_blocks(read("overwriting"))
    assert "step" not in [block.name for block in found.blocks]
    assert found.refused["step"] == "its values are overwritten in place"


@pytest.mark.parametrize("name", ["concat", "two_inputs", "in_place"])
def test_graphs_without_blocks_have_none(name):
    assert find_blocks(zoo_model(name)).blocks == ()


def test_a_shortened_resnet_computes_what_one_built_without_those_blocks_does():
    model = read("resnet20")
    gone = [b for b in find_blocks(model).blocks if b.name in ("layer1.1", "layer1.2", "layer3.2")]
    short = remove_blocks(model, gone)
    built = cifar_resnet(20)
    del built.layer1[2], built.layer1[1], built.layer3[2]
    x = torch.randn(5, 3, 32, 32)
    assert torch.equal(short.module(x), built(x))
    assert len(list(model.module.parameters())) == len(list(cifar_resnet(20).parameters()))


def test_a_shortened_mobilenet_computes_what_one_built_without_that_block_does():
    model, (built, (x,)) = read("mobilenet"), mobilenet()
    short = remove_blocks(model, find_blocks(model).blocks[1:2])
    del built[0][4]
    torch.testing.assert_close(short.module(x), built(x))


@pytest.mark.parametrize(
    ("net", "path"),
    [("bert", "encoder.layer"), ("vit", "vit.layers"), ("llama", "model.layers")],
)
def test_a_shortened_transformer_computes_what_one_built_without_those_layers_does(net, path):
    import tests.engine.passes.layer_nets as nets

    model, (built, inputs) = read(net), getattr(nets, net)()
    blocks = find_blocks(model).blocks
    short = remove_blocks(model, (blocks[0], blocks[2]))
    layers = built.get_submodule(f"model.{path}")
    del layers[2], layers[0]
    wider = tuple(torch.cat([t, t.flip(1)[:1]]) for t in inputs)
    with torch.no_grad():
        torch.testing.assert_close(first_output(short.module(*wider)), built(*wider))


@pytest.mark.parametrize("net", ["resnet20", "mobilenet", "bert", "llama", "steps"])
def test_what_is_left_runs_at_any_batch_size_and_holds_nothing_else(net):
    model = read(net)
    *_, last = blocks = find_blocks(model).blocks
    short = remove_blocks(model, blocks[1:])
    assert runs(short, (1, 2, 5))
    short.module.graph.lint()
    kept = set(short.module.state_dict())
    assert kept < set(model.module.state_dict())
    assert not any(name.startswith(f"{layer}.") for name in kept for layer in last.layers)


@pytest.mark.parametrize("net", ["steps", "llama"])
def test_what_is_left_can_be_written(net, tmp_path):
    model = read(net)
    short = remove_blocks(model, find_blocks(model).blocks[1:])
    save_onnx(short, tmp_path / "model.onnx")
    save_pt2(short, tmp_path / "model.pt2")


def test_every_output_of_the_graph_stays():
    model = read("steps")
    short = remove_blocks(model, find_blocks(model).blocks[3:])
    outputs = short.module(torch.randn(3, 6))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "logits": (3, 4),
        "features": (3, 8),
    }
