"""The kernel: the only part that knows pyfuse3 and errno."""
