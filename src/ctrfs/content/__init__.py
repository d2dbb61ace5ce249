"""The bytes of files: open files, downloads, uploads."""
