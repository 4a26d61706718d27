"""Mutations that know nothing of a format: bits, numbers, cuts, doubled and foreign pieces."""

from __future__ import annotations

from random import Random

NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 16, 17, 127, 128, 255, 256, 32767, 32768, 65535, 65536, (1 << 24) + 1,
    (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 53) + 1, (1 << 62) + 5,
    (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
TEXTS = (
    "", "a", "\x00", "../../etc/passwd", "/etc/passwd", "..\\x", "C:\\x", "a" * 600, "\u202e", "💣",
    "\ud7ff", "__proto__", "__class__", "NaN", "1e999", "-0", "%s%n", "{{7*7}}", "data.pkl", "L\n",
    "Symbol('s0')", "__import__('os')", "--1", "a\nb", "\u2028", "é", "é", "con",
)  # fmt: skip


def mutate_bytes(rng: Random, raw: bytes) -> bytes:
    """Return bytes with one to four small changes."""
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _CHANGES[rng.randrange(len(_CHANGES))](rng, changed)
    return bytes(changed)


def number(rng: Random) -> int:
    """Return a number near one where code tends to break."""
    return rng.choice(NUMBERS) + rng.choice((0, 0, 0, 1, -1))


def text(rng: Random) -> str:
    """Return a text where code tends to break."""
    return rng.choice(TEXTS)


def _place(rng: Random, raw: bytearray) -> int:
    return rng.randrange(len(raw) + 1)


def _flip(rng: Random, raw: bytearray) -> None:
    if raw:
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def _byte(rng: Random, raw: bytearray) -> None:
    if raw:
        raw[rng.randrange(len(raw))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _integer(rng: Random, raw: bytearray) -> None:
    width = rng.choice((2, 4, 8))
    at = _place(rng, raw)
    order = rng.choice(("little", "big"))
    raw[at : at + width] = (number(rng) % (1 << 8 * width)).to_bytes(width, order)


def _cut(rng: Random, raw: bytearray) -> None:
    at = _place(rng, raw)
    del raw[at : at + rng.choice((1, 2, 8, 64, len(raw)))]


def _double(rng: Random, raw: bytearray) -> None:
    at = _place(rng, raw)
    piece = raw[at : at + rng.choice((1, 4, 16, 256))]
    raw[at:at] = piece * rng.choice((1, 1, 2, 50))


def _move(rng: Random, raw: bytearray) -> None:
    at, size = _place(rng, raw), rng.choice((1, 4, 32))
    piece = raw[at : at + size]
    del raw[at : at + size]
    to = _place(rng, raw)
    raw[to:to] = piece


def _foreign(rng: Random, raw: bytearray) -> None:
    at = _place(rng, raw)
    raw[at : at + rng.choice((0, 4))] = rng.randbytes(rng.choice((1, 3, 9)))


_CHANGES = (_flip, _flip, _byte, _byte, _integer, _integer, _cut, _double, _move, _foreign)
