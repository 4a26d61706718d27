"""``python -m worker.engine.train.spread.agent PARENT ARGUMENTS``: torchrun, tied to its parent."""

from __future__ import annotations

import sys

from torch.distributed import run

from worker.kin import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    run.main(sys.argv[2:])
