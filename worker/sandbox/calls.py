"""The system calls of both profiles: an allow list for the converter, a deny list for the rest."""

from __future__ import annotations

import os
import signal

from planish.guard.seccomp import ABSENT, ALLOW, DENY, Check, Rule, rules

_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS … CLONE_NEWNET, linux/sched.h
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16

_FILES = (
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek open openat "
    "close close_range fstat stat lstat newfstatat statx statfs fstatfs access faccessat "
    "faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir rename renameat "
    "renameat2 mkdir mkdirat rmdir unlink unlinkat ftruncate fallocate fadvise64 fsync "
    "fdatasync sync_file_range flock copy_file_range sendfile fcntl dup dup2 dup3 pipe pipe2 poll "
    "ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 umask"
)
_MEMORY = (
    "mmap mprotect munmap mremap madvise msync mincore mlock munlock brk membarrier mbind "
    "get_mempolicy set_mempolicy"
)
_THREADS = (
    "futex futex_waitv set_robust_list get_robust_list rseq set_tid_address sched_yield "
    "sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max "
    "sched_get_priority_min getpriority getcpu exit exit_group arch_prctl"
)
_SIGNALS = (
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigpending "
    "sigaltstack restart_syscall pause alarm setitimer getitimer"
)
_FACTS = (
    "nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getpid getppid "
    "gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid "
    "getrusage getrlimit sysinfo uname getrandom"
)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what Python asks of any file.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of threads and of memory.
_PRCTLS = (15, 16, 0x53564D41)
# What abort() and fault handlers send to their own process; a SIGKILL would pass for the kernel's.
_OWN_SIGNALS = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)

_NEVER = (
    "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd unshare setns mount umount2 "
    "pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr bpf "
    "perf_event_open userfaultfd keyctl add_key request_key io_uring_setup io_uring_enter "
    "io_uring_register name_to_handle_at open_by_handle_at fanotify_init kexec_load "
    "kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct "
    "settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname quotactl "
    "lookup_dcookie nfsservctl vhangup iopl ioperm mknod mknodat personality syslog setuid setgid "
    "setresuid setresgid setreuid setregid setgroups setfsuid setfsgid migrate_pages move_pages"
)


def converter_calls() -> tuple[Rule, ...]:
    """Return what the converter may call: files, memory, threads; all else is denied."""
    plain = f"{_FILES} {_MEMORY} {_THREADS} {_SIGNALS} {_FACTS}".split()
    return (
        # Landlock knows truncation from ABI 3 on; before it, opening to read may truncate
        Rule("open", DENY, (Check(1, (os.O_TRUNC,), os.O_TRUNC | os.O_ACCMODE),)),
        Rule("openat", DENY, (Check(2, (os.O_TRUNC,), os.O_TRUNC | os.O_ACCMODE),)),
        Rule("openat2", ABSENT),  # its flags lie in memory
        *rules(plain, ALLOW),
        Rule("clone", ALLOW, (Check(0, (_THREAD,), _THREAD | _NEW_NAMESPACES),)),
        Rule("clone3", ABSENT),  # its flags lie in memory; without it libc takes clone
        Rule("tgkill", ALLOW, (Check(0, (os.getpid(),)), Check(2, _OWN_SIGNALS))),
        Rule("prlimit64", ALLOW, (Check(0, (0,)),)),
        Rule("prctl", ALLOW, (Check(0, _PRCTLS),)),
        Rule("ioctl", ALLOW, (Check(1, _IOCTLS),)),
    )


def engine_calls(*, sockets: bool, tcp: bool, truncate: bool = True) -> tuple[Rule, ...]:
    """Return what the engine may not call.

    Args:
        sockets: whether unix sockets stay possible: loader processes hand tensors over by them.
        tcp: whether network sockets do: processes that train together meet by them.
        truncate: whether files may be cut by their path: only where Landlock says which.
    """
    families = ((_UNIX,) if sockets or tcp else ()) + ((_INET, _INET6, _NETLINK) if tcp else ())
    allowed = (Rule("socket", ALLOW, (Check(0, families),)),) if families else ()
    return (
        *rules(_NEVER.split(), DENY),
        *rules(() if truncate else ("truncate",), DENY),
        Rule("clone", ALLOW, (Check(0, (0,), _NEW_NAMESPACES),)),
        Rule("clone", DENY),
        Rule("clone3", ABSENT),
        *allowed,
        Rule("socket", DENY),
    )
