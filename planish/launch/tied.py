"""``python -m planish.launch.tied PARENT MODULE …``: runs a module that ends when PARENT ends.

Linux sends SIGTERM when the parent is gone, however it went (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the module."""
    parent, module = int(arguments[0]), arguments[1]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0):
        sys.exit("prctl refuses to tie this process to its parent")
    if os.getppid() != parent:
        sys.exit(1)
    sys.argv = [module, *arguments[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
