"""Mutated files whose members carry a live canary: if anything opens one, it shows."""

from __future__ import annotations

import io
import pickle
from random import Random

from tests.hostile.canary import Canary
from tests.hostile.corpus.arrays import npy
from tests.hostile.fuzz import seeds
from tests.hostile.fuzz.plain import mutate_bytes
from tests.hostile.fuzz.zips import Member, mutate_zip, write_zip

PLACES = (
    b"data.pkl", b"archive/data.pkl", b"archive/data/sample_inputs/model.pt",
    b"archive/data/weights/weight_0", b"archive/data/constants/tensor_0", b"archive/extra/x.pkl",
    b"archive/data/constants/custom_obj_0", b"archive/constants.pkl", b"archive/version",
    b"archive/code/__torch__.py", b"archive/.data/version", b"inputs.npy", b"targets.npy",
)  # fmt: skip


def armed_model(rng: Random, canary: Canary) -> bytes:
    """Return a package or checkpoint with one to three live pickles among its members."""
    source = rng.choice((seeds.pt2(), seeds.checkpoint()))
    members = seeds.members(source)
    for _ in range(rng.choice((1, 1, 2, 3))):
        gadget = _gadget(rng, canary)
        if rng.random() < 0.5:
            at = rng.randrange(len(members))
            members[at] = Member(members[at].name, gadget)
        else:
            members.append(Member(rng.choice(PLACES), gadget))
    return _closed(rng, members)


def armed_data(rng: Random, canary: Canary) -> bytes:
    """Return an .npz with a live object array."""
    members = seeds.members(seeds.npz(compressed=False))
    count = rng.choice((1, 6))
    words = f"{{'descr': '|O', 'fortran_order': False, 'shape': ({count},), }}\n"
    array = npy(words, _gadget(rng, canary))
    name = rng.choice((b"inputs.npy", b"targets.npy", b"extra.npy"))
    return _closed(rng, [*(m for m in members if m.name != name), Member(name, array)])


def _closed(rng: Random, members: list[Member]) -> bytes:
    raw = mutate_zip(rng, members) if rng.random() < 0.4 else write_zip(members)
    return mutate_bytes(rng, raw) if rng.random() < 0.1 else raw


def _gadget(rng: Random, canary: Canary) -> bytes:
    if rng.random() < 0.2:
        import torch

        buffer = io.BytesIO()
        torch.save(canary.gadget(), buffer)
        return buffer.getvalue()
    return pickle.dumps(canary.gadget(), protocol=rng.randrange(5))
