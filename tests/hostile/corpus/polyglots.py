"""Files of other kinds, and of two kinds at once."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import Upload, data, hostile, model, weights
from tests.hostile.fuzz import seeds


def _tar(kind: bytes, canary: Canary) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("weights")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
        evil = pickle.dumps(canary.gadget())
        member = tarfile.TarInfo("pickle")
        member.size = len(evil)
        archive.addfile(member, io.BytesIO(evil))
    return buffer.getvalue()


@hostile("unknown_model_format")
def tar_with_a_hardlink(canary: Canary) -> Upload:
    """Unpacking it would link to a file of ours."""
    return weights(_tar(tarfile.LNKTYPE, canary))


@hostile("unknown_model_format")
def tar_with_a_symbolic_link(canary: Canary) -> Upload:
    """The same with a symbolic link."""
    return weights(_tar(tarfile.SYMTYPE, canary))


@hostile("unknown_model_format")
def gzipped_model(canary: Canary) -> Upload:
    """A thousand times larger inside."""
    return model(gzip.compress(bytes(1 << 20)))


@hostile("unknown_model_format")
def program_for_linux(canary: Canary) -> Upload:
    """ELF."""
    return model(b"\x7fELF\x02\x01\x01" + bytes(200))


@hostile("unknown_model_format")
def program_for_windows(canary: Canary) -> Upload:
    """PE."""
    return model(b"MZ\x90\x00" + bytes(200))


@hostile("unknown_model_format")
def script(canary: Canary) -> Upload:
    """A shell script."""
    return model(b"#!/bin/bash\n" + canary.shell.encode())


@hostile("unknown_model_format")
def python_source(canary: Canary) -> Upload:
    """A module under a model's name."""
    return model(canary.code.encode())


@hostile("unknown_model_format")
def page_of_html(canary: Canary) -> Upload:
    """What a browser would run if it were served so."""
    return model(b"<script>alert(1)</script>" * 20)


@hostile("unknown_model_format")
def hdf5(canary: Canary) -> Upload:
    """Keras' old format, whose lambdas are code."""
    return model(b"\x89HDF\r\n\x1a\n" + bytes(200))


@hostile("unknown_model_format")
def gguf(canary: Canary) -> Upload:
    """A format whose parsers overflowed."""
    return model(b"GGUF" + b"\xff" * 200)


@hostile("unknown_model_format")
def tflite(canary: Canary) -> Upload:
    """Another runtime's flat buffers."""
    return model(b"\x1c\x00\x00\x00TFL3" + bytes(200))


@hostile("unknown_model_format")
def data_as_a_model(canary: Canary) -> Upload:
    """Arrays where the model belongs."""
    return model(seeds.npz(compressed=False))


@hostile("unknown_model_format")
def parquet_as_a_model(canary: Canary) -> Upload:
    """A table where the model belongs."""
    return model(seeds.parquet()[0])


@hostile("invalid_data")
def model_as_data(canary: Canary) -> Upload:
    """A model where the data belongs."""
    return data(seeds.onnx()[0])


@hostile("invalid_data")
def program_as_data(canary: Canary) -> Upload:
    """An exported program where the data belongs."""
    return data(seeds.pt2())


@hostile("unsafe_model", "invalid_model")
def pickle_that_is_a_zip(canary: Canary) -> Upload:
    """A pickle first, an archive at the end."""
    return weights(pickle.dumps(canary.gadget(), protocol=2) + seeds.checkpoint())


@hostile("invalid_model")
def zip_that_is_a_pickle(canary: Canary) -> Upload:
    """An archive first, a pickle at the end."""
    return weights(seeds.checkpoint() + pickle.dumps(canary.gadget(), protocol=2))


@hostile("state_dict_mismatch")
def tensors_that_are_a_zip(canary: Canary) -> Upload:
    """The bytes of a tensor are a whole archive: readers that look at the end see that one."""
    body = seeds.checkpoint()
    header = {"a": {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}}
    return weights(seeds.safetensors(json.dumps(header).encode(), body))


@hostile("invalid_model")
def onnx_that_is_a_zip(canary: Canary) -> Upload:
    """A graph first, an archive at the end."""
    return model(seeds.onnx()[0] + seeds.checkpoint())


@hostile("unknown_model_format", "invalid_model")
def one_byte(canary: Canary) -> Upload:
    """Nearly nothing."""
    return model(b"P")


@hostile("missing_part")
def nothing(canary: Canary) -> Upload:
    """Nothing."""
    return model(b"")


@hostile("unknown_model_format")
def zeros(canary: Canary) -> Upload:
    """A megabyte of zeros."""
    return model(bytes(1 << 20))
