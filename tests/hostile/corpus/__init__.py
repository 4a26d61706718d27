"""The corpus: one file for each kind of hostile upload, each upload with the answer it must get."""

from tests.hostile.corpus import (
    archives,
    arrays,
    columns,
    configs,
    graphs,
    packages,
    pickles,
    polyglots,
    requests,
    tensors,
)
from tests.hostile.corpus.case import CASES, HARMLESS, Case, Upload

__all__ = [
    "CASES",
    "HARMLESS",
    "Case",
    "Upload",
    "archives",
    "arrays",
    "columns",
    "configs",
    "graphs",
    "packages",
    "pickles",
    "polyglots",
    "requests",
    "tensors",
]
