"""The folders that a locked-in process needs of the system, and nothing more."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from planish.guard.landlock import DEVICE, READ, RUN, Access, Grant
from worker.launcher import ROOT

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ACCELERATORS = ("nvidia*", "nvidia-caps", "nvidia-uvm*", "dri", "kfd")
_LOADER = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone")
_NAMES = ("passwd", "group", "nsswitch.conf", "hosts", "host.conf", "resolv.conf", "gai.conf")
_SHARED_MEMORY = Access.MAKE_REG | Access.REMOVE_FILE | Access.TRUNCATE
_VENDORS = ("OpenCL", "vulkan", "nvidia", "alternatives")


def converter_places(private: Sequence[Path]) -> list[Grant]:
    """Return what the converter reads of the system: libraries, Python, our own two packages.

    Args:
        private: folders that no path of Python may open along with itself.
    """
    return [
        *_all(map(Path, _LIBRARIES), READ),
        *_all(_python(private), READ),
        *_all((ROOT / "planish", ROOT / "worker"), READ),
        *_etc(_LOADER),
        *_devices(),
        *_all((Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu")), READ),
    ]


def engine_places(private: Sequence[Path], *, gpus: bool) -> list[Grant]:
    """Return what the engine may read and start of the system.

    Args:
        private: as for `converter_places`.
        gpus: whether it may use accelerators.
    """
    accelerators = [p for n in _ACCELERATORS for p in Path("/dev").glob(n)] if gpus else []
    # its processes import from here, and Python lists the folder that it imports from
    ours = [Grant(ROOT, Access.READ_DIR), *_all((ROOT / "planish", ROOT / "worker"), READ)]
    return [
        *_all(map(Path, _PROGRAMS), RUN),
        *_all((Path(sys.prefix), Path(sys.base_prefix)), RUN),
        *_all(_python(private), READ),
        *ours,
        *_etc((*_LOADER, *_NAMES, *_VENDORS)),
        *_devices(),
        *_all(accelerators, DEVICE | READ),
        Grant(Path("/dev/shm"), READ | Access.WRITE_FILE | _SHARED_MEMORY),  # noqa: S108 - a grant
        *_all((Path("/proc"), Path("/sys")), READ),
    ]


def _python(private: Sequence[Path]) -> list[Path]:
    """Return where modules are imported from, but for the folder of our own source.

    Rights reach everything below a folder, so one that a private folder lies in is left out: the
    path may hold the folder that the worker was started in, whatever that is.
    """
    paths = {Path(entry).resolve() for entry in sys.path if entry}
    roots = {Path(sys.prefix, "lib"), Path(sys.base_prefix, "lib")}
    hidden = [folder.resolve() for folder in private]
    return sorted(
        path
        for path in (paths | roots) - {ROOT}
        if not any(folder.is_relative_to(path) for folder in hidden)
    )


def _etc(names: tuple[str, ...]) -> list[Grant]:
    return _all((Path("/etc", name) for name in names), READ)


def _devices() -> list[Grant]:
    return _all((Path("/dev", name) for name in _DEVICES), DEVICE)


def _all(paths: Iterable[Path], access: Access) -> list[Grant]:
    return [Grant(path, access) for path in paths]
