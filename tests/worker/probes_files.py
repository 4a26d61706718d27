"""Hostile acts on files: reading, writing, links and nodes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.conftest import ROOT
from tests.worker.probe_room import Room, probe

# --- reading ---------------------------------------------------------------------------------


@probe("read")
def read_etc_passwd(_: Room) -> object:
    return Path("/etc/passwd").read_bytes()


@probe("read")
def read_etc_shadow(_: Room) -> object:
    return Path("/etc/shadow").read_bytes()


@probe("read")
def read_another_jobs_spec(room: Room) -> object:
    return (room.other_job / "SPEC.json").read_bytes()


@probe("read")
def list_other_jobs(room: Room) -> object:
    return list(room.other_job.parent.iterdir())


@probe("read")
def read_its_own_order(room: Room) -> object:
    return (room.order.folder / "order.json").read_bytes()


@probe("read")
def read_the_services_source(_: Room) -> object:
    return (ROOT / "service" / "app.py").read_bytes()


@probe("read")
def read_the_supervisors_environment(room: Room) -> object:
    return Path(f"/proc/{room.supervisor}/environ").read_bytes()


@probe("read")
def read_the_supervisors_memory(room: Room) -> object:
    return Path(f"/proc/{room.supervisor}/maps").read_bytes()


@probe("read")
def read_init_command_line(_: Room) -> object:
    return Path("/proc/1/cmdline").read_bytes()


@probe("read")
def read_init_environment(_: Room) -> object:
    return Path("/proc/1/environ").read_bytes()


@probe("read")
def list_processes(_: Room) -> object:
    return list(Path("/proc").iterdir())


@probe("read")
def list_the_root_folder(_: Room) -> object:
    return list(Path("/").iterdir())


@probe("read")
def list_the_home_folder(_: Room) -> object:
    return list(Path("/root" if os.geteuid() == 0 else "/home").iterdir())


@probe("read")
def climb_out_by_dots(room: Room) -> object:
    return list((room.result / ".." / ".." / "..").iterdir())


@probe("read")
def climb_out_by_proc_root(_: Room) -> object:
    return list(Path("/proc/self/root/etc").iterdir())


# --- writing ---------------------------------------------------------------------------------


@probe("write")
def write_outside(room: Room) -> object:
    return (room.outside / "written").write_bytes(b"x")


@probe("write")
def write_beside_its_folder(room: Room) -> object:
    return (room.order.folder / "written").write_bytes(b"x")


@probe("write")
def write_to_shared_memory(_: Room) -> None:
    path = Path(f"/dev/shm/planish-probe-{os.getpid()}")
    path.write_bytes(b"x")
    path.unlink()


@probe("write")
def overwrite_its_input(room: Room) -> object:
    return os.open(room.upload, os.O_WRONLY)


@probe("write")
def truncate_its_input(room: Room) -> None:
    os.truncate(room.upload, 1)


@probe("write")
def truncate_its_input_by_opening_it(room: Room) -> None:
    os.close(os.open(room.upload, os.O_RDONLY | os.O_TRUNC))


@probe("write")
def delete_its_input(room: Room) -> None:
    room.upload.unlink()


@probe("write")
def open_up_its_input(room: Room) -> None:
    room.upload.chmod(0o777)


@probe("write")
def move_its_result_out(room: Room) -> None:
    (room.result / "moved").write_bytes(b"x")
    (room.result / "moved").rename(room.outside / "moved")


# --- links and nodes -------------------------------------------------------------------------


@probe("links")
def symlink_out(room: Room) -> object:
    (room.result / "link").symlink_to("/etc/passwd")
    return (room.result / "link").read_bytes()


@probe("links")
def hardlink_its_input(room: Room) -> None:
    os.link(room.upload, room.result / "hard")


@probe("links")
def make_a_device_node(room: Room) -> None:
    os.mknod(room.result / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))


@probe("links")
def make_a_pipe(room: Room) -> None:
    os.mkfifo(room.result / "fifo")


@probe("links")
def make_a_setuid_program(room: Room) -> None:
    (room.result / "program").write_bytes(b"#!/bin/sh\n")
    (room.result / "program").chmod(0o4755)


@probe("links")
def give_a_file_away(room: Room) -> None:
    (room.result / "gift").write_bytes(b"x")
    os.chown(room.result / "gift", os.getuid(), os.getgid())
