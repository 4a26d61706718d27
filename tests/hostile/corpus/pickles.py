"""Checkpoints whose pickles call what is no tensor, in every way that a pickle can call."""

from __future__ import annotations

import io
import pickle
import struct

import torch

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import Upload, hostile, weights
from tests.hostile.fuzz import seeds
from tests.hostile.fuzz.zips import Member, write_zip

MAGIC = 0x1950A86A20F9469CFC6C


def checkpoint(data: bytes, *more: Member) -> Upload:
    """Return a real checkpoint with another ``data.pkl``, and members beside it."""
    members = [
        Member(m.name, data if m.name.endswith(b"data.pkl") else m.content)
        for m in seeds.members(seeds.checkpoint())
    ]
    return weights(write_zip([*members, *more]))


def genuine() -> bytes:
    """Return the pickle of the real checkpoint."""
    return next(m.content for m in seeds.members(seeds.checkpoint()) if b"data.pkl" in m.name)


def call(name: bytes, argument: str, opcode: bytes = b"R") -> bytes:
    """Return a pickle of protocol 2 that calls a global with one text."""
    text = argument.encode()
    return (
        b"\x80\x02c" + name + b"X" + struct.pack("<I", len(text)) + text + b"\x85" + opcode + b"."
    )


@hostile("unsafe_model")
def pickle_calls_exec(canary: Canary) -> Upload:
    """exec by GLOBAL and REDUCE."""
    return checkpoint(pickle.dumps(canary.gadget(), protocol=2))


@hostile("unsafe_model")
def pickle_calls_exec_by_stack_global(canary: Canary) -> Upload:
    """exec by STACK_GLOBAL, where the name is on the stack."""
    return checkpoint(pickle.dumps(canary.gadget(), protocol=4))


@hostile("unsafe_model")
def pickle_of_protocol_zero(canary: Canary) -> Upload:
    """exec in the text protocol."""
    return checkpoint(pickle.dumps(canary.gadget(), protocol=0))


@hostile("unsafe_model")
def pickle_calls_a_shell(canary: Canary) -> Upload:
    """os.system under its real module."""
    return checkpoint(call(b"posix\nsystem\n", canary.shell))


@hostile("unsafe_model")
def pickle_makes_an_instance_by_inst(canary: Canary) -> Upload:
    """INST names and calls in one opcode."""
    return checkpoint(b"(S" + repr(canary.shell).encode() + b"\nios\nsystem\n.")


@hostile("unsafe_model")
def pickle_makes_an_instance_by_obj(canary: Canary) -> Upload:
    """OBJ calls what lies below its arguments."""
    return checkpoint(b"(cos\nsystem\nS" + repr(canary.shell).encode() + b"\no.")


@hostile("unsafe_model")
def pickle_makes_an_instance_by_newobj(canary: Canary) -> Upload:
    """NEWOBJ calls __new__."""
    return checkpoint(call(b"subprocess\nPopen\n", canary.shell, b"\x81"))


@hostile("unsafe_model")
def pickle_uses_an_extension_code(canary: Canary) -> Upload:
    """EXT1 names a global by a number of copyreg's registry."""
    return checkpoint(b"\x80\x02\x82\x01)R.")


@hostile("unsafe_model")
def pickle_sets_a_state(canary: Canary) -> Upload:
    """BUILD on a foreign class."""
    return checkpoint(b"\x80\x02ctypes\nFunctionType\n}b.")


@hostile("unsafe_model")
def pickle_loads_another_pickle(canary: Canary) -> Upload:
    """torch.load is called on a member beside."""
    return checkpoint(call(b"torch\nload\n", "archive/evil.pkl"))


@hostile("unsafe_model")
def pickle_loads_a_script(canary: Canary) -> Upload:
    """A function of torch itself that runs code."""
    return checkpoint(call(b"torch.jit\nload\n", str(canary.file)))


@hostile("unsafe_model")
def pickle_fetches_an_attribute(canary: Canary) -> Upload:
    """A chain of getattr finds any function."""
    return checkpoint(call(b"builtins\ngetattr\n", "__class__"))


@hostile("unsafe_model")
def pickle_imports_a_module(canary: Canary) -> Upload:
    """The import itself is the attack."""
    return checkpoint(b"\x80\x02cantigravity\n__doc__\n.")


@hostile("unsafe_model")
def pickle_rebuilds_numpy(canary: Canary) -> Upload:
    """numpy's own reconstructor, which takes object arrays."""
    return checkpoint(call(b"numpy.core.multiarray\n_reconstruct\n", "x"))


@hostile("unsafe_model")
def pickle_asks_for_a_device_type(canary: Canary) -> Upload:
    """A helper of torch._utils that is not of the table."""
    return checkpoint(call(b"torch._utils\n_import_dotted_name\n", "os.system"))


@hostile("unsafe_model", "invalid_model")
def pickle_names_with_a_look_alike(canary: Canary) -> Upload:
    """A one-dot leader in place of the dot."""
    return checkpoint(call("torch\u2024_utils\n_rebuild_tensor_v2\n".encode(), "x"))


@hostile("unsafe_model")
def pickle_has_a_textual_persistent_id(canary: Canary) -> Upload:
    """PERSID in place of BINPERSID."""
    return checkpoint(b"\x80\x02Pstorage\n.")


@hostile("unsafe_model", "invalid_model")
def pickle_has_a_long_of_gigabytes(canary: Canary) -> Upload:
    """LONG4 claims 2 GiB of digits."""
    return checkpoint(b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(64) + b".")


@hostile("invalid_model")
def pickle_has_a_text_of_exabytes(canary: Canary) -> Upload:
    """BINUNICODE8 claims 2^63 bytes."""
    return checkpoint(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"x.")


@hostile("invalid_model")
def pickle_has_too_many_steps(canary: Canary) -> Upload:
    """Two million opcodes that make nothing."""
    return checkpoint(b"\x80\x02" + b"N0" * 1_000_001 + b"N.")


@hostile("invalid_model")
def pickle_is_too_large(canary: Canary) -> Upload:
    """More bytes than any dict of names needs."""
    return checkpoint(b"\x80\x02X" + struct.pack("<I", 9 << 20) + b"a" * (9 << 20) + b".")


@hostile("invalid_model")
def pickle_without_an_end(canary: Canary) -> Upload:
    """No STOP."""
    return checkpoint(genuine()[:-1])


@hostile("invalid_model")
def pickle_behind_a_pickle(canary: Canary) -> Upload:
    """A second pickle after the STOP of an honest one."""
    return checkpoint(genuine() + pickle.dumps(canary.gadget()))


@hostile("state_dict_mismatch")
def pickle_in_a_member_beside(canary: Canary) -> Upload:
    """A foreign member is never opened; the honest weights are of another network."""
    return checkpoint(genuine(), Member(b"archive/evil.pkl", pickle.dumps(canary.gadget())))


@hostile("invalid_model")
def two_pickles_in_two_folders(canary: Canary) -> Upload:
    """Which of them is the checkpoint?"""
    return checkpoint(genuine(), Member(b"other/data.pkl", pickle.dumps(canary.gadget())))


@hostile("unsafe_model")
def pickled_module(canary: Canary) -> Upload:
    """torch.save of a whole network names its classes."""
    buffer = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), buffer)
    return weights(buffer.getvalue())


@hostile("unsafe_model")
def bare_pickle(canary: Canary) -> Upload:
    """No archive at all."""
    return weights(pickle.dumps(canary.gadget(), protocol=2))


def _legacy(place: int, canary: Canary) -> Upload:
    pickles = [MAGIC, 1001, {"little_endian": True}, {}, []]
    parts = [pickle.dumps(value, protocol=2) for value in pickles]
    parts[place] = pickle.dumps(canary.gadget(), protocol=2)
    return weights(b"".join(parts))


@hostile("unsafe_model")
def old_layout_with_code_in_its_version(canary: Canary) -> Upload:
    """The second of five pickles."""
    return _legacy(1, canary)


@hostile("unsafe_model")
def old_layout_with_code_in_its_system_facts(canary: Canary) -> Upload:
    """The third of five pickles."""
    return _legacy(2, canary)


@hostile("unsafe_model")
def old_layout_with_code_in_its_weights(canary: Canary) -> Upload:
    """The fourth of five pickles."""
    return _legacy(3, canary)


@hostile("unsafe_model")
def old_layout_with_code_in_its_keys(canary: Canary) -> Upload:
    """The fifth of five pickles."""
    return _legacy(4, canary)


@hostile("invalid_model", "state_dict_mismatch")
def storage_smaller_than_its_tensor(canary: Canary) -> Upload:
    """A tensor that reaches beyond its bytes (CVE-2026-24747 was of this kind)."""
    members = [
        Member(m.name, m.content[:4] if m.name.endswith(b"data/0") else m.content)
        for m in seeds.members(seeds.checkpoint())
    ]
    return weights(write_zip(members))
