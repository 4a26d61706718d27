from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from worker.engine.train.losses import IGNORED, cross_entropy, task_loss
from worker.engine.train.scores import task_score


def values(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def score(task, outputs: torch.Tensor, targets: torch.Tensor) -> float:
    total, count = task_score(task)(outputs, targets)
    return float(total / count)


def test_classification_is_cross_entropy_and_scores_by_accuracy():
    logits, labels = values(0, 6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    loss = task_loss("classification")(logits, (), labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    assert score("classification", logits, logits.argmax(1)) == 1
    assert score("classification", logits, (logits.argmax(1) + 1) % 5) == 0


def test_labels_of_every_position_count_but_the_ignored_ones():
    logits = values(0, 2, 3, 5)
    labels = torch.tensor([[0, 1, IGNORED], [4, IGNORED, IGNORED]])
    wanted = F.cross_entropy(logits.reshape(-1, 5), labels.reshape(-1), ignore_index=IGNORED)
    torch.testing.assert_close(task_loss("classification")(logits, (), labels), wanted)
    right = torch.where(labels == IGNORED, IGNORED, logits.argmax(-1))
    assert score("classification", logits, right) == 1


def test_a_batch_without_a_target_has_no_loss():
    logits, labels = values(0, 2, 5).requires_grad_(), torch.full((2,), IGNORED)
    loss = task_loss("classification")(logits, (), labels)
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().sum()) == 0


def test_language_modeling_predicts_the_next_token():
    """Golden: position s of the logits against token s + 1, by hand."""
    logits, tokens = values(0, 2, 4, 7), torch.tensor([[1, 2, 3, 4], [5, 6, IGNORED, IGNORED]])
    by_hand = [-logits[n, s].log_softmax(0)[tokens[n, s + 1]] for n, s in ((0, 0), (0, 1), (0, 2))]
    by_hand.append(-logits[1, 0].log_softmax(0)[6])
    wanted = torch.stack(by_hand).mean()
    torch.testing.assert_close(task_loss("language_modeling")(logits, (), tokens), wanted)
    assert task_loss("language_modeling").terms(tokens) == 4
    assert score("language_modeling", logits, tokens) == pytest.approx(-float(wanted), rel=1e-5)


def test_regression_is_the_squared_error_of_any_float_target():
    outputs, targets = values(0, 4, 3), values(1, 4, 3).double()
    error = (outputs - targets).square().mean()
    torch.testing.assert_close(
        task_loss("regression")(outputs, (), targets), error.float(), rtol=1e-5, atol=0
    )
    assert score("regression", outputs, targets) == pytest.approx(-float(error), rel=1e-5)


def test_embedding_is_one_minus_the_cosine():
    outputs, targets = values(0, 4, 8), values(1, 4, 8)
    cosine = F.cosine_similarity(outputs, targets).mean()
    torch.testing.assert_close(task_loss("embedding")(outputs, (), targets), 1 - cosine)
    assert score("embedding", outputs, 3 * outputs) == pytest.approx(1)


def test_scores_rank_the_better_output_higher():
    targets = values(1, 4, 8)
    for task in ("regression", "embedding"):
        near, far = targets + 0.1 * values(2, 4, 8), targets + values(2, 4, 8)
        assert score(task, near, targets) > score(task, far, targets)


def test_a_loss_without_targets_is_refused():
    with pytest.raises(ValueError, match="needs targets"):
        cross_entropy(values(0, 2, 3), (), None)
