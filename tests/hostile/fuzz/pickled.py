"""Pickles with opcodes lost, doubled, swapped, foreign, or with other arguments."""

from __future__ import annotations

import pickletools
from random import Random

from tests.hostile.fuzz.plain import mutate_bytes, number

FOREIGN = (
    b"cos\nsystem\n", b"cbuiltins\nexec\n", b"ctorch\nload\n", b"\x93", b"R", b"b", b"\x81", b"o",
    b"ios\nsystem\n", b"\x82\x01", b"\x84\xff\xff\xff\x7f", b"(", b"0", b"1", b"2", b".", b"}",
    b"]",
    b"t", b"\x85", b"s", b"u", b"e", b"a", b"Q", b"P1\n", b"\x8f", b"\x90", b"\x96" + b"\xff" * 8,
    b"\x8e" + b"\xff" * 8, b"\x8d" + b"\xff" * 8, b"\x8b\xff\xff\xff\x7f", b"L9" * 40 + b"L\n",
    b"I" + b"9" * 5000 + b"\n", b"V\\ud800\n", b"S'\\x00'\n", b"Fnan\n", b"j\xff\xff\xff\xff",
    b"r\xff\xff\xff\xff", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"g1\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.storage\nUntypedStorage\n", b"c\n\n", b"cos\n",
)  # fmt: skip


def split_pickle(raw: bytes) -> list[bytes]:
    """Return the opcodes of a valid pickle, each with its argument."""
    places = [at for _, _, at in pickletools.genops(raw)]
    return [raw[a:b] for a, b in zip(places, [*places[1:], len(raw)], strict=True)]


def mutate_pickle(rng: Random, opcodes: list[bytes]) -> bytes:
    """Return a pickle with one to four opcodes changed."""
    opcodes = list(opcodes)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(opcodes))
        kind = rng.randrange(7)
        if kind == 0:
            opcodes.insert(at, rng.choice(FOREIGN))
        elif kind == 1:
            opcodes[at] = rng.choice(FOREIGN)
        elif kind == 2 and len(opcodes) > 1:
            del opcodes[at]
        elif kind == 3:
            opcodes.insert(rng.randrange(len(opcodes)), opcodes[at])
        elif kind == 4:
            other = rng.randrange(len(opcodes))
            opcodes[at], opcodes[other] = opcodes[other], opcodes[at]
        elif kind == 5:
            opcodes[at] = opcodes[at][:1] + (number(rng) % (1 << 64)).to_bytes(8, "little")
        else:
            opcodes[at] = mutate_bytes(rng, opcodes[at])
    return b"".join(opcodes)
