"""What would a torch checkpoint's pickle call? Its opcodes are walked, never run."""

from __future__ import annotations

import pickletools
from io import BytesIO

from planish.contract.errors import InvalidModel, UnsafeModel

MAX_PICKLE = 8 << 20
MAX_OPCODES = 1_000_000
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_LEGACY_PICKLES = 5
_STORAGES = (
    "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
)  # fmt: skip
GLOBALS = frozenset(
    (
        "collections OrderedDict",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch.storage UntypedStorage",
        "torch Size",
        *(f"torch {kind}Storage" for kind in _STORAGES),
    )
)
_NAMES = """
PROTO STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
SHORT_BINSTRING BINSTRING BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_DICT DICT SETITEM SETITEMS
EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT LONG_BINPUT BINGET
LONG_BINGET MEMOIZE FRAME BINPERSID GLOBAL REDUCE BUILD
"""
_OPCODES = frozenset(_NAMES.split())


def check_pickle(raw: bytes) -> None:
    """Refuse a pickle that does anything but rebuild plain tensors in dicts.

    Raises:
        UnsafeModel: it names another class or function, or uses another opcode.
        InvalidModel: it is no pickle.
    """
    stream = BytesIO(raw)
    _walk(stream)
    if stream.read(1):
        raise InvalidModel("the checkpoint's pickle has bytes behind its end")


def check_legacy(head: bytes) -> None:
    """Check a checkpoint of before torch 1.6: five pickles in a row, then the bytes of the tensors.

    Args:
        head: the file's beginning, at least `MAX_PICKLE` bytes of it where it has so many.

    Raises:
        UnsafeModel, InvalidModel: as `check_pickle`.
    """
    stream = BytesIO(head)
    for _ in range(_LEGACY_PICKLES):
        _walk(stream)


def _walk(stream: BytesIO) -> None:
    last = ""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            last = opcode.name
            if count >= MAX_OPCODES:
                raise InvalidModel(f"the checkpoint's pickle has more than {MAX_OPCODES} steps")
            if last == "GLOBAL" and argument not in GLOBALS:
                raise _foreign(str(argument))
            if last not in _OPCODES:
                raise UnsafeModel(
                    f"the checkpoint's pickle uses {last}, which plain tensors do not need; save "
                    "the weights alone with torch.save(model.state_dict(), path)"
                )
    except (ValueError, IndexError, OverflowError, EOFError) as error:
        raise InvalidModel(f"the checkpoint's pickle is damaged: {str(error)[:200]}") from None
    if last != "STOP":
        raise InvalidModel("the checkpoint's pickle is cut short")


def _foreign(name: str) -> UnsafeModel:
    return UnsafeModel(
        f"the checkpoint holds a pickled {name.replace(' ', '.')[:200]}; nothing but tensors is "
        "taken. Save the weights alone with torch.save(model.state_dict(), path), or export the "
        "model with torch.export.save"
    )
