"""Each method of distill on real networks: what it teaches, what it refuses, what it leaves."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from planish.contract.errors import InvalidRecipe, TrainingDiverged
from planish.contract.recipe import Distill, Retrain, Train
from planish.contract.spec import DataSpec, Spec
from tests import zoo
from tests.engine.passes.models import (
    canonical,
    context,
    digit_splits,
    noise_splits,
    same_weights,
    weights,
    zoo_model,
)
from worker.engine.distill.lesson import Lesson
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.splits import Splits, split
from worker.engine.model import Model, first_output
from worker.engine.passes import Context, Outcome, entry_for
from worker.engine.passes.distill.lesson import plan_lesson

METHODS = ("kd", "dkd", "dist", "mse_logits", "hint")
QUICK = Train(epochs=1, batch_size=32, lr=0.01)


def trained_teacher() -> Model:
    model, params = zoo_model("small_residual_cnn"), Retrain(train=Train(epochs=4, lr=0.05))
    return entry_for(params).run(model, params, context(model, params, splits=digit_splits())).model


@pytest.fixture(scope="module")
def teacher() -> Model:
    return trained_teacher()


def student(seed: int = 1, width: int = 8) -> Model:
    return canonical(*zoo.small_residual_cnn(width=width, seed=seed))


def of_task(ctx: Context, task: str) -> Context:
    spec = Spec(recipe=ctx.spec.recipe, data=DataSpec.model_validate({"task": task}))
    return replace(ctx, spec=spec)


def run(model: Model, params: Distill, ctx: Context) -> Outcome:
    return entry_for(params).run(model, params, ctx)


def accuracy(model: Model) -> float:
    sealed = digit_splits().sealed
    inputs, targets = sealed.prepare(np.arange(len(sealed)))
    with torch.no_grad():
        return float((first_output(model.module(*inputs)).argmax(1) == targets).float().mean())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_teaches_a_narrower_network_the_digits(method: str, teacher: Model) -> None:
    params = Distill(method=method, train=Train(epochs=4, batch_size=64, lr=0.1))
    model = student()
    before = weights(teacher)
    result = run(model, params, context(model, params, splits=digit_splits(), teacher=teacher))
    assert accuracy(result.model) > 0.6
    assert same_weights(before, weights(teacher))
    assert result.facts["method"] == method


def test_projections_are_trained_and_thrown_away(teacher: Model) -> None:
    params = Distill(method="hint", alpha=1.0, train=QUICK)
    model = student()
    names = set(model.module.state_dict())
    ctx = context(model, params, splits=digit_splits(), teacher=teacher)
    lesson, facts = plan_lesson(model, params, ctx)
    loss = lesson.loss(model.module)
    assert facts["projectors"] == len(list(loss.hints)) == len(facts["layer_map"])
    inputs, _ = digit_splits().train.prepare(np.arange(8))
    loss(model.module(*inputs), inputs, None).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in loss.hints.parameters())
    loss.close()
    result = run(model, params, ctx)
    assert set(result.model.module.state_dict()) == names
    assert not any(layer._forward_hooks for layer in result.model.module.modules())
    assert not any(layer._forward_hooks for layer in teacher.module.modules())


def test_a_given_layer_map_is_followed(teacher: Model) -> None:
    params = Distill(method="hint", layer_map={"layer1.conv1": "layer2.conv2"}, train=QUICK)
    model = student()
    result = run(model, params, context(model, params, splits=digit_splits(), teacher=teacher))
    assert result.facts["layer_map"] == {"layer1.conv1": "layer2.conv2"}


def test_a_heavy_hint_brings_the_features_nearer(teacher: Model) -> None:
    params = Distill(
        method="hint",
        feature_weight=100.0,
        alpha=1.0,
        layer_map={"layer2.bn2": "layer2.bn2"},
        train=Train(epochs=3, batch_size=64, lr=0.01),
    )
    model = student(width=16)
    ctx = context(model, params, splits=digit_splits(), teacher=teacher)
    assert features_apart(
        run(model.clone(), params, ctx).model, params, ctx
    ) < 0.5 * features_apart(model, params, ctx)


def features_apart(model: Model, params: Distill, ctx: Context) -> float:
    lesson, _ = plan_lesson(model, params, ctx)
    loss = lesson.loss(model.module)
    inputs, _ = digit_splits().sealed.prepare(np.arange(64))
    with torch.no_grad():
        model.module(*inputs)
        lesson.teacher(*inputs)
        value = float(loss._inner_part(None))
    loss.close()
    return value


def test_a_transformer_learns_the_relations_of_a_wider_one() -> None:
    teacher = canonical(*zoo.tiny_transformer(width=32, heads=4))
    model = zoo_model("tiny_transformer")
    params = Distill(
        method="attention_relation", alpha=1.0, feature_weight=5.0, train=replace_epochs(6)
    )
    splits = noise_splits(model, samples=96, classes=4)
    ctx = context(model, params, splits=token_splits(splits), teacher=teacher)
    result = run(model.clone(), params, ctx)
    assert result.facts["relation_heads"] == [4, 4, 4]
    assert relations_apart(result.model, params, ctx) < relations_apart(model, params, ctx)


def replace_epochs(epochs: int) -> Train:
    return Train(epochs=epochs, batch_size=16, lr=0.01, optimizer="adamw")


def token_splits(splits: Splits, vocabulary: int = 50) -> Splits:
    """Return the same splits over random tokens."""
    (source,) = splits.train.inputs
    tokens = np.random.default_rng(0).integers(0, vocabulary, source.values.shape)
    sources = (replace(source, values=tokens),)
    return split(Dataset(sources, np.arange(len(tokens)), np.arange(len(tokens)) % 4), None, 0)


def relations_apart(model: Model, params: Distill, ctx: Context) -> float:
    lesson, _ = plan_lesson(model, params, ctx)
    loss = lesson.loss(model.module)
    inputs, _ = ctx.splits.sealed.prepare(np.arange(len(ctx.splits.sealed)))
    with torch.no_grad():
        model.module(*inputs)
        lesson.teacher(*inputs)
        value = float(loss._inner_part(None))
    loss.close()
    return value


def test_relations_of_a_network_without_attention_are_refused() -> None:
    model = zoo_model("small_residual_cnn")
    params = Distill(method="attention_relation", train=QUICK)
    ctx = context(model, params, splits=digit_splits())
    for work in (entry_for(params).run, entry_for(params).plan):
        with pytest.raises(InvalidRecipe, match="no call of scaled_dot_product") as error:
            work(model, params, ctx)
        assert error.value.errors[0].pointer == "/recipe/0/method"


class MaskedTokens(nn.Module):
    """Logits of the next token, (N, S, 20), of ids and a mask, (N, S)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.head(torch.tanh(self.embed(input_ids)) * attention_mask[..., None])


def language_lesson(alpha: float) -> tuple[Lesson, Model]:
    ids = torch.arange(10).reshape(2, 5)
    torch.manual_seed(0)
    teacher = canonical(MaskedTokens().eval(), (ids, torch.ones_like(ids)))
    model = canonical(MaskedTokens().eval(), (ids, torch.ones_like(ids)))
    params = Distill(alpha=alpha, train=QUICK)
    mask = [item.name for item in model.inputs].index("attention_mask")
    return Lesson(params, "language_modeling", teacher.module, mask=mask), model


def test_tokens_without_a_target_teach_nothing() -> None:
    """Token s + 1 is what position s predicts: here 2 of sample 0 and 1 of sample 1 are left."""
    lesson, model = language_lesson(0.5)
    ids = torch.arange(10).reshape(2, 5)
    inputs = (ids, torch.ones_like(ids))
    targets = torch.tensor([[0, 1, 2, -100, -100], [5, 6, -100, -100, -100]])
    student, teacher = model.module(*inputs), lesson.teacher(*inputs)
    kept = [(0, 0), (0, 1), (1, 0)]
    soft = [
        16 * torch.sum(q * (q.log() - p.log()))
        for p, q in (((student[at] / 4).softmax(0), (teacher[at] / 4).softmax(0)) for at in kept)
    ]
    hard = [-student[n, s].log_softmax(0)[targets[n, s + 1]] for n, s in kept]
    wanted = 0.5 * torch.stack(soft).mean() + 0.5 * torch.stack(hard).mean()
    loss = lesson.loss(model.module)
    torch.testing.assert_close(loss(student, inputs, targets), wanted)
    assert loss.terms(targets) == 3


def test_padding_teaches_nothing_where_there_are_no_targets() -> None:
    lesson, model = language_lesson(1.0)
    ids = torch.arange(10).reshape(2, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    student, teacher = model.module(ids, mask), lesson.teacher(ids, mask)
    p, q = (student / 4).softmax(-1), (teacher / 4).softmax(-1)
    wanted = 16 * (q * (q.log() - p.log())).sum(-1)[mask.bool()].mean()
    found = lesson.loss(model.module)(student, (ids, mask), None)
    torch.testing.assert_close(found, wanted)


def test_a_batch_of_padding_alone_changes_nothing() -> None:
    lesson, model = language_lesson(1.0)
    ids = torch.zeros(2, 5, dtype=torch.int64)
    loss = lesson.loss(model.module)
    value = loss(model.module(ids, ids), (ids, ids), torch.full((2, 5), -100))
    value.backward()
    assert value.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.module.parameters())


@pytest.mark.parametrize("method", ["kd", "dkd", "dist", "mse_logits"])
def test_a_language_model_learns_from_its_teacher_token_by_token(method: str) -> None:
    model = zoo_model("tied")
    teacher = canonical(*zoo.tied())
    with torch.no_grad():
        teacher.module.get_parameter("mix.weight").mul_(2)
    ids = np.random.default_rng(0).integers(0, 20, (60, 7))
    source = Source(ids, (7,), torch.int64)
    splits = Splits(*[Dataset((source,), np.arange(60), ids.astype(np.int64))] * 4)
    params = Distill(method=method, train=Train(epochs=3, batch_size=16, lr=0.05, momentum=0))
    ctx = of_task(context(model, params, splits=splits, teacher=teacher), "language_modeling")
    result = run(model, params, ctx)
    losses = [epoch.loss for epoch in result.training]
    assert losses[-1] < losses[0]


def test_an_embedding_learns_its_teachers_vectors_without_targets() -> None:
    model, teacher = zoo_model("mlp"), canonical(*zoo.mlp(width=48))
    params = Distill(method="mse_logits", alpha=1.0, train=Train(epochs=3, lr=0.1, batch_size=16))
    splits = noise_splits(model, labels=False)
    ctx = of_task(context(model, params, splits=splits, teacher=teacher), "embedding")
    result = run(model, params, ctx)
    losses = [epoch.loss for epoch in result.training]
    assert losses[-1] < losses[0]
    assert "temperature" not in result.facts


def test_a_lesson_is_plain_values_that_another_process_can_read() -> None:
    model = student()
    params = Distill(method="hint", train=QUICK)
    ctx = context(model, params, splits=digit_splits(), teacher=zoo_model("small_residual_cnn"))
    lesson, _ = plan_lesson(model, params, ctx)
    again = pickle.loads(pickle.dumps(lesson))
    inputs, targets = digit_splits().train.prepare(np.arange(16))
    values = []
    for known in (lesson, again):
        loss = known.loss(model.module)
        values.append(loss(model.module(*inputs), inputs, targets).item())
        loss.close()
    assert values[0] == values[1]


def test_one_output_is_no_choice_of_classes() -> None:
    model = canonical(*zoo.mlp(classes=1))
    params = Distill(alpha=1.0, train=QUICK)
    ctx = context(model, params, splits=noise_splits(model, labels=False))
    with pytest.raises(InvalidRecipe, match="no choice of classes"):
        entry_for(params).plan(model, params, ctx)


@pytest.mark.parametrize(
    ("params", "field"),
    [(Distill(method="dkd", alpha=1.0), "method"), (Distill(alpha=1.0, control=True), "control")],
)
def test_what_needs_labels_says_so(params: Distill, field: str) -> None:
    model = zoo_model("mlp")
    ctx = context(model, params, splits=noise_splits(model, labels=False))
    with pytest.raises(InvalidRecipe, match="add targets") as error:
        entry_for(params).plan(model, params, ctx)
    assert error.value.errors[0].pointer == f"/recipe/0/{field}"


def test_a_rate_far_too_high_ends_the_training_and_closes_the_taps(teacher: Model) -> None:
    params = Distill(method="hint", feature_weight=1e6, train=Train(epochs=1, lr=10, batch_size=32))
    model = student()
    with pytest.raises(TrainingDiverged):
        run(model, params, context(model, params, splits=digit_splits(), teacher=teacher))
    assert not any(layer._forward_hooks for layer in teacher.module.modules())
