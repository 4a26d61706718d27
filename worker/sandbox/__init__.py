"""Where uploads are opened: processes behind Landlock, seccomp and limits; see docs/security.md."""
