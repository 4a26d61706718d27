"""Training on a CUDA device; run by `make gpu`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from planish.contract.recipe import Distill, Params, Retrain, Train, op_of
from planish.contract.spec import Spec
from tests.engine.passes.models import context, digit_splits, same_weights, weights, zoo_model
from tests.engine.train.runs import a_run, plain_net, trained
from worker.engine.passes import REGISTRY, Outcome
from worker.engine.train.loop import fit, train
from worker.engine.train.losses import cross_entropy

CUDA = torch.device("cuda")
SHORT = Train(epochs=3, batch_size=60, lr=0.05)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def changed(**update: object) -> Train:
    return SHORT.model_copy(update=update)


def by_pass(params: Params) -> Outcome:
    """Run a pass with one GPU."""
    model, splits = plain_net(), digit_splits()
    ctx = context(model, params, splits=replace(splits, train=splits.train.head(240)), device=CUDA)
    gpus = torch.cuda.device_count()
    spec = Spec.model_validate({"recipe": [params.model_dump()], "resources": {"gpus": gpus}})
    return REGISTRY[op_of(type(params))].run(model, params, replace(ctx, spec=spec))


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_a_network_learns_on_the_gpu_and_comes_back_to_the_cpu() -> None:
    splits, model = digit_splits(), zoo_model("small_residual_cnn")
    run = a_run(
        changed(batch_size=16), splits.train.head(600), validation=splits.validation, device=CUDA
    )
    epochs = fit(model, cross_entropy, run)
    assert epochs[-1].loss < epochs[0].loss
    assert {p.device.type for p in model.module.parameters()} == {"cpu"}
    assert not model.module.training


def test_the_gpu_trains_as_the_cpu_does() -> None:
    here, there = (trained(SHORT, device=d)[0] for d in (torch.device("cpu"), CUDA))
    assert furthest(weights(here), weights(there)) < 1e-3


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_mixed_precision_learns_and_the_weights_stay_float(amp: str, optimizer: str) -> None:
    lr = 0.05 if optimizer == "sgd" else 0.003
    params = changed(amp=amp, optimizer=optimizer, lr=lr, clip_norm=5.0, epochs=5)
    model, run = trained(params, device=CUDA)
    assert run.epochs[-1].loss < 0.9 * run.epochs[0].loss
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_steps_that_the_fp16_scale_leaves_out_are_no_divergence() -> None:
    """Gradients overflow at the first scale of 65,536; the loss does not."""

    def steep(logits, inputs, targets):  # type: ignore[no-untyped-def]
        return cross_entropy(logits, inputs, targets) * 100

    model, run = trained(changed(amp="fp16", lr=1e-4), loss=steep, device=CUDA)
    assert len(run.epochs) == 3
    assert run.warnings == ()
    assert all(torch.isfinite(value).all() for value in weights(model).values())


def test_averages_accumulation_loader_processes_and_cudnn_benchmark_work_there() -> None:
    params = changed(ema_decay=0.9, accumulate=2, workers=2, cudnn_benchmark=True, augment="crop")
    _, run = trained(params, device=CUDA, validation=digit_splits().validation)
    assert len(run.epochs) == 3


def test_a_compiled_step_is_close_to_the_eager_one() -> None:
    eager, compiled = (trained(changed(compile=c), device=CUDA) for c in (False, True))
    assert compiled[1].warnings == ()
    assert furthest(weights(eager[0]), weights(compiled[0])) < 1e-2


def test_resumed_training_goes_on_there(tmp_path) -> None:  # type: ignore[no-untyped-def]
    class Killed(Exception):
        pass

    calls = 0

    def fragile(logits, inputs, targets):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == 10:
            raise Killed
        return cross_entropy(logits, inputs, targets)

    with pytest.raises(Killed):
        trained(SHORT, loss=fragile, device=CUDA, checkpoints=tmp_path)
    model = plain_net()
    run = train(model, fragile, a_run(SHORT, device=CUDA, checkpoints=tmp_path))
    assert run.resumed_from == "epoch 3, step 9"
    whole, _ = trained(SHORT, device=CUDA)
    assert furthest(weights(model), weights(whole)) < 1e-5


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_process_group_over_nccl_trains_as_one_process(strategy: str) -> None:
    one = by_pass(Retrain(train=SHORT))
    many = by_pass(Retrain(train=SHORT, strategy=strategy, processes=1))
    assert furthest(weights(one.model), weights(many.model)) < 1e-3


def test_distillation_goes_to_processes_on_the_gpu() -> None:
    outcome = by_pass(Distill(train=SHORT, strategy="ddp", processes=1))
    assert len(outcome.training) == 3


def test_data_parallel_trains_on_the_gpus_there_are() -> None:
    outcome = by_pass(Retrain(train=SHORT, strategy="data_parallel"))
    assert outcome.training[-1].loss < outcome.training[0].loss


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_gpus_train_as_one() -> None:
    one, two = (by_pass(Retrain(train=SHORT, strategy="ddp", processes=count)) for count in (1, 2))
    assert not same_weights(weights(one.model), weights(plain_net()))
    assert furthest(weights(one.model), weights(two.model)) < 1e-3
