"""What Linux offers a process to lock itself in: Landlock, seccomp, limits, another user.

Pure standard library over ctypes. Works on x86_64 and aarch64; elsewhere it reports that nothing is
given. What the locks are used for stands in ``worker/sandbox``.
"""
