"""Logs that are rotated while the file source follows them: on a real disk and a simulated one."""
