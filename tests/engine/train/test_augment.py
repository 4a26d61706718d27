from __future__ import annotations

import torch

from worker.engine.train.augment import augment, changed, draw


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 200) -> torch.Tensor:
    return torch.rand(count, 2, 8, 16, generator=generator(9)) + 1


def test_none_changes_nothing():
    batch = images()
    assert augment(batch, "none", generator()) is batch


def test_every_image_is_shifted_by_itself_within_an_eighth():
    batch = images()
    moved = augment(batch, "crop", generator())
    seen = set()
    for before, after in zip(batch, moved, strict=True):
        offsets = [
            (dy, dx)
            for dy in range(-1, 2)
            for dx in range(-2, 3)
            if torch.equal(after, shifted(before, dy, dx))
        ]
        assert len(offsets) == 1
        seen.add(offsets[0])
    assert seen == {(dy, dx) for dy in range(-1, 2) for dx in range(-2, 3)}


def shifted(image: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    out = torch.zeros_like(image)
    height, width = image.shape[1:]
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                out[:, y, x] = image[:, y + dy, x + dx]
    return out


def test_about_half_of_the_images_are_mirrored():
    batch = torch.arange(16.0).expand(400, 1, 16, 16) + 1
    moved = augment(batch, "crop_flip", generator())
    falling = (moved[:, 0, 8, 9] < moved[:, 0, 8, 8]).float().mean()
    assert 0.4 < float(falling) < 0.6


def test_same_seed_same_images():
    batch = images()
    first, second = (augment(batch, "crop_flip", generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(batch, "crop_flip", generator(4)))


def test_parts_of_a_batch_change_as_in_the_whole():
    """Whoever holds a part of a batch draws for all of it."""
    batch = images(20)
    drawn = draw(20, (8, 16), "crop_flip", generator(5))
    assert drawn is not None
    whole = changed(batch, drawn)
    parts = [changed(batch[a:b], drawn.part(slice(a, b))) for a, b in ((0, 7), (7, 20))]
    assert torch.equal(whole, torch.cat(parts))
