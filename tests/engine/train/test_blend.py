from __future__ import annotations

import pytest
import torch

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Distill, Train
from tests.engine.passes.models import weights, zoo_model
from tests.engine.train.runs import trained
from worker.engine.train.augment import changed, draw
from worker.engine.train.blend import Blended, draw_blend
from worker.engine.train.loop import check_run
from worker.engine.train.losses import cross_entropy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_image_gets_its_share_of_another_one_of_the_whole_batch():
    samples = torch.arange(20) + 100
    images = torch.rand(200, 3, 8, 8, generator=generator())
    drawn = draw(20, (8, 8), "crop_flip", generator(1))
    blend = draw_blend(samples, drawn, slice(5, 12), 0.4, generator(2))
    assert set(blend.partners.tolist()) <= set(samples.tolist())
    assert 0 < blend.share < 1
    own = changed(images[samples[5:12]], drawn.part(slice(5, 12)))
    got = blend.into(own, images[blend.partners])
    for row, partner in enumerate(blend.partners.tolist()):
        place = slice(partner - 100, partner - 99)
        other = changed(images[partner : partner + 1], drawn.part(place))[0]
        torch.testing.assert_close(got[row], blend.share * own[row] + (1 - blend.share) * other)


def test_the_parts_of_a_batch_get_what_the_whole_gets():
    samples = torch.arange(9)
    whole = draw_blend(samples, None, slice(0, 9), 1.0, generator(3))
    parts = [draw_blend(samples, None, s, 1.0, generator(3)) for s in (slice(0, 4), slice(4, 9))]
    assert torch.cat([part.partners for part in parts]).equal(whole.partners)
    assert {part.share for part in parts} == {whole.share}


def test_the_loss_of_blended_labels_is_that_of_both_by_share():
    logits = torch.randn(6, 4, generator=generator())
    a, b = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 3, 1, 1, 0, 2])
    got = cross_entropy(logits, (), Blended(a, b, 0.7))
    want = 0.7 * cross_entropy(logits, (), a) + 0.3 * cross_entropy(logits, (), b)
    torch.testing.assert_close(got, want)


def test_loader_processes_blend_alike():
    params = Train(epochs=1, lr=0.05, mixup=0.5, augment="crop")
    alone, _ = trained(params)
    loaded, _ = trained(params.model_copy(update={"workers": 1}))
    plain, _ = trained(params.model_copy(update={"mixup": 0.0}))
    ours, theirs, other = weights(alone), weights(loaded), weights(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not all(torch.equal(ours[name], other[name]) for name in ours)


def test_what_is_no_image_is_not_blended():
    with pytest.raises(InvalidRecipe, match="set mixup to 0"):
        check_run(zoo_model("two_inputs"), Train(mixup=0.2), samples=100)


def test_dkd_needs_the_one_right_class():
    with pytest.raises(ValueError, match=r"train\.mixup"):
        Distill(method="dkd", train=Train(mixup=0.2))
