"""Data files: arrays that are pickles, code, lies or no numbers."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import HARMLESS, Upload, data, hostile
from tests.hostile.fuzz.zips import Member, write_zip

INPUTS = np.zeros((64, 4), np.float32)
TARGETS = np.arange(64) % 3


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Return an array file of any header."""
    raw = header.encode("latin-1")
    return b"\x93NUMPY" + version + struct.pack("<H", len(raw) % 65536) + raw + body


def archive(inputs: bytes, *more: Member, targets: np.ndarray = TARGETS) -> Upload:
    """Return an .npz with these bytes as its inputs."""
    buffer = io.BytesIO()
    np.save(buffer, targets)
    members = [Member(b"inputs.npy", inputs), Member(b"targets.npy", buffer.getvalue()), *more]
    return data(write_zip(members))


def described(shape: str = "(64, 4)", descr: str = "'<f4'", fortran: str = "False") -> Upload:
    """Return an .npz whose inputs say this of themselves."""
    words = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"
    return archive(npy(words, INPUTS.tobytes()))


def saved(inputs: np.ndarray, targets: np.ndarray = TARGETS) -> Upload:
    """Return an .npz of real arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, inputs=inputs, targets=targets)
    return data(buffer.getvalue())


@hostile("invalid_data")
def array_of_objects(canary: Canary) -> Upload:
    """An object array is a pickle."""
    words = "{'descr': '|O', 'fortran_order': False, 'shape': (64,), }\n"
    return archive(npy(words, pickle.dumps(canary.gadget())))


@hostile(HARMLESS)
def object_array_beside(canary: Canary) -> Upload:
    """An array that no input takes is never opened."""
    words = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    buffer = io.BytesIO()
    np.save(buffer, INPUTS)
    return archive(
        buffer.getvalue(), Member(b"extra.npy", npy(words, pickle.dumps(canary.gadget())))
    )


@hostile(HARMLESS)
def pickle_beside_the_arrays(canary: Canary) -> Upload:
    """A member of another kind is never opened."""
    buffer = io.BytesIO()
    np.save(buffer, INPUTS)
    return archive(buffer.getvalue(), Member(b"evil.pkl", pickle.dumps(canary.gadget())))


@hostile("invalid_data")
def header_that_is_code(canary: Canary) -> Upload:
    """The header is a Python literal; some readers evaluate it."""
    return described(shape=canary.code.split(";")[0])


@hostile("invalid_data")
def header_that_is_deep(canary: Canary) -> Upload:
    """Deep enough to overflow Python's own parser."""
    return described(shape="(" * 4_000 + "1" + ")" * 4_000)


@hostile("invalid_data")
def header_that_is_long(canary: Canary) -> Upload:
    """64 KB of spaces."""
    return described(shape="(64, 4)" + " " * 60_000)


@hostile("invalid_data")
def structured_array(canary: Canary) -> Upload:
    """Records in place of numbers."""
    return described(descr="[('a', '<f4'), ('b', '|O')]", shape="(64,)")


@hostile("invalid_data")
def shape_below_zero(canary: Canary) -> Upload:
    """Minus one sample."""
    return described(shape="(-1, 4)")


@hostile("invalid_data")
def shape_that_wraps(canary: Canary) -> Upload:
    """2^62 samples of four: nothing, in 64 bits."""
    return described(shape="(4611686018427387904, 4)")


@hostile("invalid_data")
def shape_of_a_truth(canary: Canary) -> Upload:
    """True samples."""
    return described(shape="(True, 4)")


@hostile("invalid_data")
def shape_larger_than_its_bytes(canary: Canary) -> Upload:
    """A million samples in a kilobyte."""
    return described(shape="(1000000, 4)")


@hostile("invalid_data")
def shape_of_a_hundred_dimensions(canary: Canary) -> Upload:
    """More dimensions than numpy has."""
    return described(shape="(" + "1, " * 100 + ")")


@hostile("invalid_data")
def order_that_is_no_truth(canary: Canary) -> Upload:
    """A text for a truth."""
    return described(fortran="'False'")


@hostile("invalid_data")
def format_of_the_future(canary: Canary) -> Upload:
    """Version 9.0."""
    return archive(npy("{}", version=b"\x09\x00"))


@hostile("invalid_data")
def array_that_is_a_library(canary: Canary) -> Upload:
    """An ELF file under an array's name."""
    return archive(b"\x7fELF" + bytes(200))


@hostile("invalid_data")
def single_array(canary: Canary) -> Upload:
    """An .npy that is a pickle, in place of an archive."""
    words = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return data(npy(words, pickle.dumps(canary.gadget())))


@hostile("non_finite_data")
def samples_that_are_no_numbers(canary: Canary) -> Upload:
    """NaN in the inputs."""
    return saved(np.full((64, 4), np.nan, np.float32))


@hostile("non_finite_data")
def samples_without_end(canary: Canary) -> Upload:
    """Infinity in the inputs."""
    return saved(np.full((64, 4), np.inf, np.float32))


@hostile("label_out_of_range")
def labels_beyond_the_classes(canary: Canary) -> Upload:
    """A label that indexes memory far away."""
    return saved(INPUTS, np.full(64, 1 << 40))


@hostile("label_out_of_range")
def labels_below_zero(canary: Canary) -> Upload:
    """A label that indexes backwards."""
    return saved(INPUTS, np.full(64, -7))


@hostile("invalid_data")
def arrays_of_different_lengths(canary: Canary) -> Upload:
    """More labels than samples."""
    return saved(INPUTS, np.zeros(99, int))


@hostile("invalid_data")
def no_samples(canary: Canary) -> Upload:
    """An array of nothing."""
    return saved(INPUTS[:0], TARGETS[:0])


@hostile("invalid_data")
def bare_pickle_as_data(canary: Canary) -> Upload:
    """A pickle in place of data."""
    return data(pickle.dumps(canary.gadget()))
