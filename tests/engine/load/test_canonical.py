"""Every network comes back from its file with the same outputs, keys and training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planish.contract.spec import ModelSpec
from tests import zoo
from tests.exports import export_pt2
from worker.engine.load import load_model
from worker.engine.model import InputSpec, Outputs

NETS = (
    zoo.small_residual_cnn,
    zoo.depthwise,
    zoo.concat,
    zoo.mlp,
    zoo.tiny_transformer,
    zoo.two_inputs,
    zoo.tied,
    zoo.in_place,
)
every_net = pytest.mark.parametrize("build", NETS, ids=lambda build: build.__name__)


def leaves(outputs: Outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [leaf for value in values for leaf in leaves(value)]


def run(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        return leaves(module(*(item.clone() for item in inputs)))


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(map(torch.equal, one, two))


@every_net
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_outputs_keys_and_weights_survive(
    build: Callable[[], zoo.Net], training: bool, tmp_path: Path
) -> None:
    module, example = build()
    before = copy.deepcopy(module.state_dict())
    model = load_model(export_pt2(module.train(training), example, tmp_path / "a.pt2"), ModelSpec())
    module.load_state_dict(before)
    module.eval()
    assert same(run(model.module, example), run(module, example))
    larger = tuple(torch.cat([item, item, item]) for item in example)
    assert same(run(model.module, larger), run(module, larger))
    state = model.module.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert not model.module.training


@every_net
def test_no_calls_with_weights_are_left(build: Callable[[], zoo.Net], tmp_path: Path) -> None:
    module, example = build()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.Embedding)
    wanted = {name: type(m) for name, m in module.named_modules() if isinstance(m, kinds)}
    found = {name: type(m) for name, m in model.module.named_modules() if isinstance(m, kinds)}
    assert found == wanted
    assert {node.meta.get("stack_trace") for node in model.module.graph.nodes} == {None}


def test_training_is_bit_equal_to_the_original(tmp_path: Path) -> None:
    module, example = zoo.small_residual_cnn()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    losses = []
    for net in (module.train(), model.module.train()):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=1e-3)
        mine = []
        for step in range(5):
            images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step))
            loss = nn.functional.cross_entropy(net(images), torch.arange(8))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mine.append(loss.item())
        losses.append(mine)
    assert losses[0] == losses[1]
    ours, theirs = model.module.state_dict(), module.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert ours["bn1.num_batches_tracked"] == 7 + 5


def test_inputs_are_named_as_in_the_module(tmp_path: Path) -> None:
    module, example = zoo.two_inputs()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    assert model.inputs == (
        InputSpec("image", ("batch", 1, 6, 6), torch.float32),
        InputSpec("facts", ("batch", 5), torch.float32),
    )
    assert list(model.module(*example)) == ["logits", "features"]


def test_tied_weights_stay_one_tensor_under_both_names(tmp_path: Path) -> None:
    module, example = zoo.tied()
    graph = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec()).module
    assert graph.get_parameter("embed.weight") is graph.get_parameter("head.weight")
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert calls.count("mix") == 2


def test_a_clone_shares_nothing(tmp_path: Path) -> None:
    module, example = zoo.tiny_transformer()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    copied = model.clone()
    assert list(copied.module.state_dict()) == list(module.state_dict())
    with torch.no_grad():
        copied.module.get_parameter("head.weight").zero_()
    assert same(run(model.module, example), run(module, example))


def test_writes_through_a_view_stay_in_place_and_others_do_not(tmp_path: Path) -> None:
    module, example = zoo.in_place()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    targets = [str(node.target) for node in model.module.graph.nodes]
    assert "aten.add_.Tensor" in targets
    residual, example = zoo.small_residual_cnn()
    model = load_model(export_pt2(residual, example, tmp_path / "b.pt2"), ModelSpec())
    assert not [n for n in model.module.graph.nodes if str(n.target).endswith("_.Tensor")]


class Odd(nn.Module):
    """Weights where no layer holds them, and names that the reader uses itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.fn = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(4))])
        self.up = nn.ConvTranspose2d(4, 2, 3, 2, 1, 1, groups=2)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return a tensor and a list of one."""
        y = self.fn(nn.functional.linear(x, self.weight)).relu() * self.scales[0]
        with torch.no_grad():
            offset = y.mean(1, keepdim=True)
        y, _ = self.attention(y, y, y, need_weights=False)
        images = self.norm((y - offset).transpose(1, 2).reshape(y.shape[0], 4, 2, -1))
        return self.up(images), [y]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_odd_places_of_weights_and_no_grad_regions_are_read(tmp_path: Path, training: bool) -> None:
    module, example = zoo.seeded(Odd, (2, 6, 3))
    model = load_model(export_pt2(module.train(training), example, tmp_path / "a.pt2"), ModelSpec())
    module.eval()
    ours, theirs = run(model.module, example), run(module, example)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
    layers = {name for name, m in model.module.named_modules() if isinstance(m, nn.Linear)}
    assert {"fn", "attention.in_proj", "attention.out_proj"} <= layers
    assert isinstance(model.module.get_submodule("up"), nn.ConvTranspose2d)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_decomposed_program_is_read_too(tmp_path: Path) -> None:
    module, example = zoo.mlp()
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, example, dynamic_shapes=({0: batch},))
    torch.export.save(program.run_decompositions(), tmp_path / "a.pt2")
    model = load_model(tmp_path / "a.pt2", ModelSpec())
    ours, theirs = run(model.module, example), run(module, example)
    assert torch.allclose(ours[0], theirs[0], atol=1e-6)
    assert sum(isinstance(m, nn.Linear) for m in model.module.modules()) == 3
    assert sum(isinstance(m, nn.BatchNorm1d) for m in model.module.modules()) == 1


class Modes(nn.Module):
    """Everything whose mode an export bakes in."""

    def __init__(self) -> None:
        super().__init__()
        self.planes = nn.Dropout2d(0.5)
        self.lstm = nn.LSTM(6, 8, 2, dropout=0.5, batch_first=True)
        self.norm = nn.RMSNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 8)."""
        return self.norm(self.lstm(self.planes(x[:, None])[:, 0])[0].mean(1))


@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm:UserWarning")
def test_a_train_mode_export_is_deterministic_in_eval_mode(tmp_path: Path) -> None:
    module, example = zoo.seeded(Modes, (2, 5, 6))
    path = export_pt2(module.train(), example, tmp_path / "a.pt2")
    model = load_model(path, ModelSpec())
    module.eval()
    assert same(run(model.module, example), run(module, example))
    model.module.train()
    assert not same(run(model.module, example), run(model.module, example))
