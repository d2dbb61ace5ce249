"""The file system in our own words: no kernel, no HTTP."""
