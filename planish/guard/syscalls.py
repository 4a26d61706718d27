"""System call numbers by name, for the two processors that Planish runs on.

Source: Linux 6.1 ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64). Each entry is
a name, its x86_64 number and its aarch64 number; a dash where there is none.
"""

from __future__ import annotations

import platform

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 1, "aarch64": 2}

_TABLE = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69
pwritev 296 70; preadv2 327 286; pwritev2 328 287; lseek 8 62; open 2 -; openat 257 56
openat2 437 437; close 3 57; close_range 436 436; fstat 5 80; stat 4 -; lstat 6 -
newfstatat 262 79; statx 332 291; statfs 137 43; fstatfs 138 44; access 21 -; faccessat 269 48
faccessat2 439 439; readlink 89 -; readlinkat 267 78; getdents 78 -; getdents64 217 61
getcwd 79 17; chdir 80 49; fchdir 81 50; rename 82 -; renameat 264 38; renameat2 316 276
mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; ftruncate 77 46
truncate 76 45; fallocate 285 47; fadvise64 221 223; fsync 74 82; fdatasync 75 83
sync_file_range 277 84; flock 73 32; copy_file_range 326 285; sendfile 40 71; fcntl 72 25
dup 32 23; dup2 33 -; dup3 292 24; pipe 22 -; pipe2 293 59; poll 7 -; ppoll 271 73; select 23 -
pselect6 270 72; epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22
eventfd2 290 19; mmap 9 222; mprotect 10 226; munmap 11 215; mremap 25 216; madvise 28 233
msync 26 227; mincore 27 232; mlock 149 228; munlock 150 229; brk 12 214; membarrier 324 283
mbind 237 235; get_mempolicy 239 236; set_mempolicy 238 237; futex 202 98; futex_waitv 449 449
set_robust_list 273 99; get_robust_list 274 100; rseq 334 293; set_tid_address 218 96
sched_yield 24 124; sched_getaffinity 204 123; sched_setaffinity 203 122
sched_getparam 143 121; sched_getscheduler 145 120; sched_get_priority_max 146 125
sched_get_priority_min 147 126; getpriority 140 141; getcpu 309 168; rt_sigaction 13 134
rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigsuspend 130 133; rt_sigtimedwait 128 137
rt_sigpending 127 136; sigaltstack 131 132; restart_syscall 219 128; pause 34 -
nanosleep 35 101; clock_nanosleep 230 115; clock_gettime 228 113; clock_getres 229 114
gettimeofday 96 169; time 201 -; times 100 153; alarm 37 -; setitimer 38 103; getitimer 36 102
getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174; geteuid 107 175; getgid 104 176
getegid 108 177; getresuid 118 148; getresgid 120 150; getgroups 115 158; getpgrp 111 -
getpgid 121 155; getsid 124 156; getrusage 98 165; getrlimit 97 163; sysinfo 99 179
uname 63 160; umask 95 166; getrandom 318 278; exit 60 93; exit_group 231 94; arch_prctl 158 -
clone 56 220; clone3 435 435; fork 57 -; vfork 58 -; tgkill 234 131; tkill 200 130; kill 62 129
prctl 157 167; prlimit64 302 261; ioctl 16 29; socket 41 198; socketpair 53 199; connect 42 203
bind 49 200; listen 50 201; accept 43 202; accept4 288 242; sendto 44 206; recvfrom 45 207
sendmsg 46 211; recvmsg 47 212; execve 59 221; execveat 322 281; ptrace 101 117
process_vm_readv 310 270; process_vm_writev 311 271; process_madvise 440 440
pidfd_open 434 434; pidfd_getfd 438 438; pidfd_send_signal 424 424; rt_sigqueueinfo 129 138
rt_tgsigqueueinfo 297 240; kcmp 312 272; unshare 272 97; setns 308 268; mount 165 40
umount2 166 39; pivot_root 155 41; chroot 161 51; open_tree 428 428; move_mount 429 429
fsopen 430 430; fsconfig 431 431; fsmount 432 432; fspick 433 433; mount_setattr 442 442
bpf 321 280; perf_event_open 298 241; userfaultfd 323 282; keyctl 250 219; add_key 248 217
request_key 249 218; io_uring_setup 425 425; io_uring_enter 426 426; io_uring_register 427 427
memfd_create 319 279; memfd_secret 447 447; name_to_handle_at 303 264
open_by_handle_at 304 265; fanotify_init 300 262; kexec_load 246 104; kexec_file_load 320 294
init_module 175 105; finit_module 313 273; delete_module 176 106; reboot 169 142
swapon 167 224; swapoff 168 225; acct 163 89; settimeofday 164 170; clock_settime 227 112
adjtimex 159 171; clock_adjtime 305 266; sethostname 170 161; setdomainname 171 162
quotactl 179 60; lookup_dcookie 212 18; nfsservctl 180 42; vhangup 153 58; iopl 172 -
ioperm 173 -; mknod 133 -; mknodat 259 33; personality 135 92; syslog 103 116; setuid 105 146
setgid 106 144; setresuid 117 147; setresgid 119 149; setreuid 113 145; setregid 114 143
setgroups 116 159; setfsuid 122 151; setfsgid 123 152; capset 126 91; setrlimit 160 164
setsid 112 157; symlink 88 -; symlinkat 266 36; link 86 -; linkat 265 37; chown 92 -
fchown 93 55; lchown 94 -; fchownat 260 54; chmod 90 -; fchmod 91 52; fchmodat 268 53
setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7; move_pages 279 239; migrate_pages 256 238
shmget 29 194; shmat 30 196; msgget 68 186; semget 64 190; mq_open 240 180; inotify_init 253 -
inotify_init1 294 26; seccomp 317 277; landlock_create_ruleset 444 444
landlock_add_rule 445 445; landlock_restrict_self 446 446
"""


def machine() -> str | None:
    """Return ``x86_64`` or ``aarch64``; None on another processor, or where Python is 32-bit."""
    name = platform.machine()
    return name if name in AUDIT_ARCH and platform.architecture()[0] == "64bit" else None


def numbers(processor: str) -> dict[str, int]:
    """Return the numbers of `processor` by name; calls that it has not got are absent.

    Raises:
        KeyError: another processor than those of `AUDIT_ARCH`.
    """
    column = _COLUMN[processor]
    rows = (entry.split() for line in _TABLE.split("\n") for entry in line.split(";"))
    return {row[0]: int(row[column]) for row in rows if row and row[column] != "-"}
